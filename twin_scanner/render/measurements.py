"""What is measured in each district: its volume on the CT's grid, and the SUV of the synthetic PET."""

from collections.abc import Mapping, Sequence

from twin_scanner.dicom.write.measurement_report import DistrictMeasurement
from twin_scanner.dicom.write.segmentation import segment_numbers
from twin_scanner.districts.district_map import PartQuality
from twin_scanner.imaging.suv import RegionSuv
from twin_scanner.synthesis.pipeline import SyntheticPet


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
        values[district.name] = {"volume_ml": round(district.volume_ml, 1)}
        if district.suv is not None:
            suv = {"suv_mean": district.suv.mean, "suv_max": district.suv.maximum, "suv_peak": district.suv.peak}
            values[district.name] |= {name: round(value, 4) for name, value in suv.items() if value is not None}
    return values
