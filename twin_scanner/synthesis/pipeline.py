"""The method, read top to bottom: a CT in HU becomes a synthetic FDG-PET in SUV."""

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from twin_scanner.districts.district_map import DistrictMap, Segmenter
from twin_scanner.errors import Defect, Misconfigured, Rejected
from twin_scanner.imaging.volume import LabelArray, Volume, canonical_labels, resample_labels
from twin_scanner.models import plan as preprocess
from twin_scanner.models.card import Stitching, StitchingChoice
from twin_scanner.models.inputs import ct_channels
from twin_scanner.models.package import ModelPackage
from twin_scanner.progress import Progress
from twin_scanner.synthesis.translate import missing_districts, translate

MissingDistrict = Literal["reject", "deliver"]


@dataclass(frozen=True)
class PipelineOptions:
    """What a site may decide: another segmenter than the training's, what to do without a district's network, and
    another stitching than the package's."""

    allow_other_segmenter: bool = False
    missing_district: MissingDistrict = "reject"
    stitching: StitchingChoice = "package"


@dataclass(frozen=True, eq=False)
class SyntheticPet:
    """The result on the Plan's grid (canonical axes): SUV in g/ml, the CT in HU, and the districts.

    ``district_map`` holds the same districts on the CT's own grid, as the segmenter gave them. The networks' windows
    took ``networks_s``.
    """

    suv: Volume
    ct: Volume
    districts: LabelArray
    district_map: DistrictMap
    missing_districts: tuple[str, ...]
    stitching: Stitching
    networks_s: float = 0.0


def translate_ct(
    ct: Volume,
    package: ModelPackage,
    segmenter: Segmenter,
    options: PipelineOptions,
    progress: Progress | None = None,
) -> SyntheticPet:
    """Translate a CT (HU, any regular grid) into a synthetic PET on the package's Plan grid.

    ``progress`` receives (windows done, windows in all). Raises Rejected where the CT shows no human body or a
    district that the package cannot synthesise, or where the segmenter is not the one of the training masks.
    """
    # 1. The districts are only comparable with the training masks if the same segmenter made both.
    _check_segmenter(package, segmenter, options)
    # 2. Every voxel of the body gets its district (paper equations 1, 2, 5).
    district_map = segmenter.segment(ct)
    # 3. The CT stands upright: D to the head, H to the back, W to the left.
    upright = ct.canonical()
    # 4. It comes to the Plan's grid.
    ct_on_grid = preprocess.ct_on_grid(upright, package.plan)
    # 5. So do the districts.
    upright_districts = canonical_labels(district_map.labels, district_map.geometry)
    districts = resample_labels(upright_districts, upright.geometry, ct_on_grid.geometry)
    # 6. A district without a network is never SUV 0 in silence.
    missing = _missing(districts, district_map, package, options)
    # 7. HU become the channels in model space that the networks are given.
    channels = ct_channels(ct_on_grid.array, package.plan, package.architecture)
    # 8. Each district's network translates its windows; they are averaged and stitched (equations 7, 12 to 15).
    stitching = package.card.stitching_for(options.stitching)
    begun_s = time.monotonic()
    pet_model_space = translate(channels, districts, package, stitching=stitching, progress=progress)
    networks_s = time.monotonic() - begun_s
    # 9. Model space becomes SUV.
    suv = Volume(preprocess.model_to_suv(pet_model_space, package.plan), ct_on_grid.geometry)
    # 10. What leaves is finite, or nothing leaves.
    if not np.isfinite(suv.array).all():
        raise Defect(f"Model {package.model_hash[:12]} produced values that are not finite: take it out of service.")
    return SyntheticPet(suv, ct_on_grid, districts, district_map, missing, stitching, networks_s)


def _check_segmenter(package: ModelPackage, segmenter: Segmenter, options: PipelineOptions) -> None:
    trained_with = package.card.segmenter
    if package.partition.whole_volume or options.allow_other_segmenter or trained_with == segmenter.name:
        return
    raise Misconfigured(
        f"Model '{package.name}' was trained on districts by '{trained_with}', not by '{segmenter.name}': "
        "choose that segmenter, or set model.allow_other_segmenter."
    )


def _missing(
    districts: LabelArray, district_map: DistrictMap, package: ModelPackage, options: PipelineOptions
) -> tuple[str, ...]:
    missing = missing_districts(districts, package.partition, district_map.names)
    if missing and options.missing_district == "reject":
        raise Rejected(
            f"The CT shows {', '.join(missing)}, which model '{package.name}' cannot synthesise: choose a model that "
            "covers it, or set model.missing_district to 'deliver' to have it named as not synthesised."
        )
    return missing
