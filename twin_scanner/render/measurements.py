"""What is measured in each district: its volume on the CT's grid, and the SUV of the synthetic PET."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from twin_scanner.dicom.district_measurements import SUV_MAX, SUV_MEAN, SUV_PEAK, VOLUME
from twin_scanner.dicom.write.measurement_report import DistrictMeasurement
from twin_scanner.dicom.write.segmentation import segment_numbers
from twin_scanner.districts.district_map import DistrictMap, PartQuality
from twin_scanner.imaging.suv import RegionSuv
from twin_scanner.synthesis.pipeline import SyntheticPet

CHEST_TO_PELVIS_MM: Final = 580.0
ABDOMEN_AND_PELVIS_MM: Final = 400.0
NECK_AND_CHEST_MM: Final = 400.0
NECK_TO_ABDOMEN_MM: Final = 600.0
"""How much of an adult's trunk, the neck with it, these parts take up; of a child more is in view than is said."""
PARTS_OF_THE_TRUNK: Final = ("CHEST", "ABDOMEN", "PELVIS", "CHESTABDOMEN", "ABDOMENPELVIS", "CHESTABDPELVIS")
WHOLE_DISTRICTS: Final = frozenset({"head", "trunk", "arms", "legs"})


def measurements(pet: SyntheticPet, statistics: Mapping[int, RegionSuv]) -> list[DistrictMeasurement]:
    """One for every segment, in the segmentation's order; a district that was not synthesised has no SUV."""
    districts = pet.district_map
    volumes = districts.volumes_ml()
    measured = []
    for label, number in segment_numbers(districts.voxels).items():
        name = districts.name(label)
        suv = None if name in pet.missing_districts else statistics.get(label)
        measured.append(DistrictMeasurement(name, number, volumes[name], suv, _remark(name, districts.quality)))
    return measured


def _remark(district: str, quality: Sequence[PartQuality]) -> str:
    """What the segmenter says of a district's own parts; of the trunk, and of finer regions, all that borders on it."""
    own = [part for part in quality if part.district == district != "trunk"]
    return " ".join(part.sentence() for part in own or quality)


def district_values(pet: SyntheticPet, statistics: Mapping[int, RegionSuv]) -> dict[str, dict[str, float]]:
    """Volume on the CT's grid in ml and SUV of the synthetic PET in g/ml; none for what was not synthesised."""
    values = {}
    for district in measurements(pet, statistics):
        values[district.name] = {VOLUME.key: round(district.volume_ml, VOLUME.digits)}
        if district.suv is not None:
            suv = {SUV_MEAN: district.suv.mean, SUV_MAX: district.suv.maximum, SUV_PEAK: district.suv.peak}
            values[district.name] |= {
                quantity.key: round(value, quantity.digits) for quantity, value in suv.items() if value is not None
            }
    return values


def shown_body_part(districts: DistrictMap, source_body_part: str) -> str:
    """What the CT shows as a term of PS3.16 Annex L: from its districts and how much of the trunk is in view.

    Never more than is in view. Where districts alone do not say, it is the header's own word if it names a part of the
    trunk; empty where that does not either. Finer regions than the four districts leave the header's word.
    """
    shown = {districts.name(label) for label in districts.voxels}
    if not shown <= WHOLE_DISTRICTS:
        return source_body_part
    if "trunk" not in shown:
        return "HEAD" if "head" in shown else "EXTREMITY"
    trunk_mm = _length_mm(districts, "trunk")
    if {"head", "legs"} <= shown:
        cut = {districts.name(int(label)) for end in (0, -1) for label in np.unique(districts.labels[end]) if label}
        return "NECKCHESTABDPELV" if {"head", "legs"} & cut else "WHOLEBODY"
    if "head" in shown and trunk_mm < NECK_AND_CHEST_MM:
        return "HEADNECK"
    if "head" in shown:
        return "NECKCHEST" if trunk_mm < NECK_TO_ABDOMEN_MM else "NECKCHESTABDOMEN"
    if "legs" in shown and trunk_mm < CHEST_TO_PELVIS_MM:
        return "PELVIS" if trunk_mm < ABDOMEN_AND_PELVIS_MM else "ABDOMENPELVIS"
    if trunk_mm >= CHEST_TO_PELVIS_MM:
        return "CHESTABDPELVIS"
    return source_body_part if source_body_part in PARTS_OF_THE_TRUNK else ""


def _length_mm(districts: DistrictMap, district: str) -> float:
    label = next(label for label in districts.voxels if districts.name(label) == district)
    slices = sum(bool((plane == label).any()) for plane in districts.labels)
    return slices * districts.geometry.spacing_mm[0]
