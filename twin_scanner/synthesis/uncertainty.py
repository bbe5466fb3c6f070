"""The uncertainty of a synthetic PET: how far it moves under mirrored input or other seeds, calibrated or not."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from twin_scanner.errors import Defect, Rejected
from twin_scanner.imaging.nifti_file import write_image
from twin_scanner.imaging.volume import FloatArray, LabelArray, Volume, to_sitk
from twin_scanner.models.card import Stitching
from twin_scanner.models.inputs import ct_channels
from twin_scanner.models.package import ModelPackage
from twin_scanner.models.plan import model_to_suv
from twin_scanner.progress import Progress
from twin_scanner.synthesis.calibration import AXES, Calibration, CalibrationBin, SpreadMethod, check_calibration
from twin_scanner.synthesis.translate import missing_districts, translate

PARTS_PER_MEMBER: Final = 1000
"""Progress counts thousandths of a translation: mirrored volumes place slightly different windows."""


def spread_method(members: Sequence[ModelPackage] = (), axes: str = AXES) -> SpreadMethod:
    """The ensemble of the served model with ``members``, where there are any, else flips along ``axes``."""
    if members:
        return SpreadMethod("ensemble", "", tuple(sorted(member.model_hash for member in members)))
    return SpreadMethod("flips", axes)


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """SUV (g/ml) per voxel on the Plan's grid, 0 where nothing was synthesised.

    With a calibration it is the standard deviation of the model's error; without, the raw deviation of ``method``,
    which says only how far the model disagrees with itself.
    """

    deviation: Volume
    model_hash: str
    method: SpreadMethod
    calibration: Calibration | None

    @property
    def file_name(self) -> str:
        """``uncertainty.nii.gz`` is calibrated; what is not says so."""
        return "uncertainty.nii.gz" if self.calibration else f"uncertainty-not-calibrated-{self.method.name}.nii.gz"

    @property
    def description(self) -> str:
        """For the NIfTI's header, which holds 79 letters."""
        kind = "calibrated SD of SUV g/ml" if self.calibration else "NOT CALIBRATED deviation of SUV g/ml"
        return f"{kind}, {self.method.name}, model {self.model_hash[:12]}"

    def as_json(self) -> dict[str, object]:
        """The report's entry."""
        entry: dict[str, object] = {
            "file": self.file_name,
            "unit": "SUV g/ml",
            "method": self.method.name,
            "calibrated": self.calibration is not None,
        }
        if self.calibration is None:
            return {**entry, "meaning": "How far the model disagrees with itself; it promises no interval."}
        return {
            **entry,
            "meaning": "Standard deviation of the model's error; SUV plus or minus factor times it is an interval.",
            "calibration_patients": len(self.calibration.patients),
            "levels": list(self.calibration.levels),
            "factors": [asdict(one) for one in map(_factors, self.calibration.bins)],
            "coverage_on_other_patients": [asdict(one) for one in self.calibration.coverage],
        }


@dataclass(frozen=True)
class _Factors:
    """What the report says of one bin."""

    suv_low: float
    suv_high: float
    factors: tuple[float, ...]


def uncertainty(
    ct: Volume,
    districts: LabelArray,
    suv: Volume,
    package: ModelPackage,
    *,
    members: Sequence[ModelPackage] = (),
    axes: str = AXES,
    stitching: Stitching | None = None,
    calibration: Calibration | None = None,
    progress: Progress | None = None,
) -> Uncertainty:
    """The uncertainty of a synthetic PET, from what ``translate_ct`` gave: CT (HU), districts and SUV on its grid.

    With ``members``, the same model from other seeds, the spread is the ensemble's, else that of flips along ``axes``.
    Raises Rejected where the calibration is of another model or method, or the members do not fit.
    """
    method = spread_method(members, axes)
    if calibration is not None:
        check_calibration(calibration, package.card, method)
    raw = raw_deviation(ct, districts, suv, package, members=members, axes=axes, stitching=stitching, progress=progress)
    if calibration is not None:
        for plane, predicted, labels in zip(raw, suv.array, districts, strict=True):
            inside = _synthesised(labels, package)
            plane[inside] = calibration.standard_deviation(plane[inside], predicted[inside])
    if not np.isfinite(raw).all():
        raise Defect(
            f"Model {package.model_hash[:12]} gives uncertainties that are not finite: take it out of service."
        )
    return Uncertainty(Volume(raw, suv.geometry), package.model_hash, method, calibration)


def raw_deviation(
    ct: Volume,
    districts: LabelArray,
    suv: Volume,
    package: ModelPackage,
    *,
    members: Sequence[ModelPackage] = (),
    axes: str = AXES,
    stitching: Stitching | None = None,
    progress: Progress | None = None,
) -> FloatArray:
    """Sample standard deviation (D, H, W) of SUV (g/ml) over several translations; not calibrated.

    Test-time augmentation after Wang et al. 2019 (Neurocomputing 338:34-45, section 3.2), deep ensembles after
    Lakshminarayanan et al. 2017. ``suv`` is the served translation and counts as the first; all are stitched alike, as
    ``package`` asks unless another ``stitching`` is given. Memory does not grow
    with the number of translations. ``progress`` receives (thousandths done, thousandths in all).
    """
    if not ct.array.shape == districts.shape == suv.array.shape:
        raise ValueError(f"CT {ct.array.shape}, districts {districts.shape} and SUV {suv.array.shape} differ in grid")
    method = spread_method(members, axes)
    _check_members(package, districts, members)
    spread = _Spread(suv.array)
    runs: list[tuple[tuple[int, ...], ModelPackage]] = [((), member) for member in members]
    runs = runs or [(mirrored, package) for mirrored in _mirrored_axes(method)]
    for number, (mirrored, one) in enumerate(runs):
        part = _part_of(progress, number, len(runs))
        # Nothing but the spread outlives its turn: a volume kept until the next one would be memory twice.
        spread.add(_flipped_back(ct.array, districts, one, mirrored, stitching or package.card.stitching, part))
    return spread.deviation()


def _flipped_back(
    hu: FloatArray,
    districts: LabelArray,
    package: ModelPackage,
    mirrored: tuple[int, ...],
    stitching: Stitching,
    progress: Progress | None,
) -> FloatArray:
    """SUV (D, H, W) of the mirrored CT, mirrored back."""
    channels = ct_channels(np.ascontiguousarray(np.flip(hu, mirrored)), package.plan, package.architecture)
    labels = np.ascontiguousarray(np.flip(districts, mirrored))
    pet = translate(channels, labels, package, stitching=stitching, progress=progress)
    return np.flip(model_to_suv(pet, package.plan), mirrored)


class _Spread:
    """Mean and squared deviations of volumes that come one after the other (Welford 1962), in place."""

    def __init__(self, first: FloatArray) -> None:
        self._count = 1
        self._mean = first.copy()
        self._squares = np.zeros_like(first)

    def add(self, volume: FloatArray) -> None:
        self._count += 1
        for values, mean, squares in zip(volume, self._mean, self._squares, strict=True):
            before = values - mean
            mean += before / np.float32(self._count)
            squares += before * (values - mean)

    def deviation(self) -> FloatArray:
        """The sample standard deviation; the object is used up."""
        self._squares /= np.float32(self._count - 1)
        return np.sqrt(np.maximum(self._squares, 0.0, out=self._squares), out=self._squares)


def write_uncertainty(folder: Path, uncertainty: Uncertainty) -> Path:
    """Write the NIfTI file, whose name and header say if it is calibrated; raises Transient where the disk fails."""
    path = folder / uncertainty.file_name
    image = to_sitk(uncertainty.deviation.array, uncertainty.deviation.geometry)
    image.SetMetaData("ITK_FileNotes", uncertainty.description)
    write_image(path, image)
    return path


def _mirrored_axes(method: SpreadMethod) -> list[tuple[int, ...]]:
    """Every combination of the method's axes but the empty one, which is the served translation."""
    axes = [AXES.index(axis) for axis in AXES if axis in method.axes]
    return [chosen for count in range(1, len(axes) + 1) for chosen in combinations(axes, count)]


def _check_members(package: ModelPackage, districts: LabelArray, members: Sequence[ModelPackage]) -> None:
    if package.model_hash in {member.model_hash for member in members}:
        raise Rejected(f"Model '{package.name}' is served, so it is already in its ensemble: name the others only.")
    missing = missing_districts(districts, package.partition)
    for member in members:
        if not member.plan.serves_like(package.plan):
            raise Rejected(f"Model '{member.name}' has another Plan than '{package.name}': they form no ensemble.")
        if member.partition.whole_volume != package.partition.whole_volume:
            raise Rejected(f"Models '{member.name}' and '{package.name}' mask differently: they form no ensemble.")
        if missing_districts(districts, member.partition) != missing:
            raise Rejected(f"Models '{member.name}' and '{package.name}' cover other districts: they form no ensemble.")


def _synthesised(labels: LabelArray, package: ModelPackage) -> npt.NDArray[np.bool_]:
    if package.partition.whole_volume:
        return np.ones(labels.shape, np.bool_)
    return np.isin(labels, sorted(package.partition.labels))


def _part_of(progress: Progress | None, number: int, count: int) -> Progress | None:
    if progress is None:
        return None
    report = progress
    start, end = PARTS_PER_MEMBER * number, PARTS_PER_MEMBER * count
    return lambda done, total: report(start + PARTS_PER_MEMBER * done // total, end)


def _factors(one: CalibrationBin) -> _Factors:
    return _Factors(one.suv_low, one.suv_high, one.factors)
