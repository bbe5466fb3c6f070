"""How far a synthetic PET would move under mirrored input or other seeds, and the calibration that makes it a claim."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from twin_scanner.errors import Defect, Rejected, Transient
from twin_scanner.files.durable_file import write_durably
from twin_scanner.imaging.volume import FloatArray, LabelArray, Volume, to_sitk
from twin_scanner.models.package import ModelPackage
from twin_scanner.models.plan import ct_to_model, model_to_suv
from twin_scanner.progress import Progress
from twin_scanner.synthesis.translate import missing_districts, translate

SCHEMA: Final = 1
"""Raised when a calibration's meaning changes; an older program refuses a newer file."""
CALIBRATIONS: Final = "calibrations"
"""The folder of a model store beside its packages, which are immutable: CALIBRATIONS/<model hash>/<method>.json."""
AXES: Final = "DHW"
_AXIS_CHOICES: Final = frozenset("".join(axes) for count in (1, 2, 3) for axes in combinations(AXES, count))
PARTS_A_MEMBER: Final = 1000
"""Progress counts thousandths of a translation: mirrored volumes place slightly different windows."""


@dataclass(frozen=True)
class SpreadMethod:
    """What the raw deviation is taken over.

    ``flips``: the input mirrored along every combination of ``axes`` (letters of DHW), 8 for three axes. ``ensemble``:
    the served model and ``members``, the sorted hashes of models trained alike from other seeds.
    """

    kind: Literal["flips", "ensemble"] = "flips"
    axes: str = AXES
    members: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind == "flips" and (self.members or self.axes not in _AXIS_CHOICES):
            raise Rejected(f"Flips go along one or more of the axes {AXES}, in that order, not along '{self.axes}'.")
        if self.kind == "ensemble" and (self.axes or len(set(self.members)) != len(self.members) or not self.members):
            raise Rejected("An ensemble needs at least one model beside the served one, each of them once.")

    @property
    def name(self) -> str:
        """Short, and different for every method: a file's name."""
        if self.kind == "flips":
            return f"flips-{self.axes}"
        return f"ensemble-{hashlib.sha256(','.join(self.members).encode()).hexdigest()[:12]}"


FLIPS: Final = SpreadMethod()


def spread_method(members: Sequence[ModelPackage] = (), axes: str = AXES) -> SpreadMethod:
    """The ensemble of the served model with ``members``, where there are any, else flips along ``axes``."""
    if members:
        return SpreadMethod("ensemble", "", tuple(sorted(member.model_hash for member in members)))
    return SpreadMethod("flips", axes)


@dataclass(frozen=True)
class CalibrationBin:
    """One range of predicted SUV: knots from the raw deviation to the standard deviation, and a factor a level.

    ``raw`` rises strictly, ``deviation`` never falls (both SUV in g/ml); ``factors`` belong to the calibration's
    levels. ``patients`` and ``voxels`` are how many were fitted.
    """

    suv_low: float
    suv_high: float
    raw: tuple[float, ...]
    deviation: tuple[float, ...]
    factors: tuple[float, ...]
    patients: int
    voxels: int

    def __post_init__(self) -> None:
        numbers = np.asarray([self.suv_low, self.suv_high, *self.raw, *self.deviation, *self.factors], np.float64)
        rising = bool((np.diff(self.raw) > 0).all() and (np.diff(self.deviation) >= 0).all())
        if not (self.raw and len(self.raw) == len(self.deviation) and rising and self.suv_low < self.suv_high):
            raise ValueError("the knots of a calibration must rise")
        if not np.isfinite(numbers).all() or self.raw[0] < 0 or min(self.deviation) <= 0 or min(self.factors) < 0:
            raise ValueError("the numbers of a calibration must be finite and positive")

    def standard_deviation(self, raw: FloatArray) -> FloatArray:
        """Interpolated between the knots, level below the first, in proportion beyond the last; monotone."""
        inside = np.interp(raw, self.raw, self.deviation)
        beyond = np.maximum(raw, self.raw[-1]) / self.raw[-1] if self.raw[-1] > 0 else 1.0
        return np.asarray(inside * beyond, np.float32)


@dataclass(frozen=True)
class Coverage:
    """How often the real SUV lay in the stated interval, on patients other than those of the calibration.

    ``coverage`` is the mean over patients, ``lowest`` the worst patient's, ``raw_coverage`` what the uncalibrated
    deviation as a normal distribution's would have covered, ``half_width_suv`` the mean half width of the interval.
    ``binned_by`` says which SUV (g/ml) lies from ``suv_low`` to ``suv_high``: the predicted one, which a reader sees,
    or the real one; ``body`` is every voxel. No calibration can promise coverage for a real SUV that nobody knows.
    """

    binned_by: Literal["body", "predicted", "real"]
    suv_low: float
    suv_high: float
    level: float
    coverage: float
    lowest: float
    raw_coverage: float
    half_width_suv: float
    patients: int
    voxels: int


@dataclass(frozen=True)
class Calibration:
    """The monotone map from a raw deviation to a standard deviation of one model's error, by one method.

    ``bins`` meet without gap from SUV 0 to ``suv_max``; ``levels`` are the coverages that intervals are stated for.
    ``patients`` are digests of the pseudonyms of those it was fitted on, ``coverage`` what was measured on others:
    empty until then. Fitted by training.evaluation.calibration, which cites the method.
    """

    model_hash: str
    plan_hash: str
    method: SpreadMethod
    suv_max: float
    levels: tuple[float, ...]
    bins: tuple[CalibrationBin, ...]
    patients: tuple[str, ...]
    coverage: tuple[Coverage, ...] = ()

    def __post_init__(self) -> None:
        edges = [self.bins[0].suv_low, *(one.suv_high for one in self.bins)] if self.bins else []
        starts = [one.suv_low for one in self.bins]
        if not edges or edges[0] != 0 or edges[-1] != self.suv_max or edges[:-1] != starts:
            raise ValueError("the bins of a calibration must meet from SUV 0 to its largest")
        if not self.levels or any(not 0 < level < 1 for level in self.levels) or not self.patients:
            raise ValueError("a calibration states levels between 0 and 1 and whom it was fitted on")
        if any(len(one.factors) != len(self.levels) for one in self.bins):
            raise ValueError("every bin of a calibration holds one factor a level")

    def standard_deviation(self, raw: FloatArray, predicted: FloatArray) -> FloatArray:
        """Standard deviation of SUV (g/ml) for raw deviations and the predicted SUV of the same shape."""
        deviation = np.empty(raw.shape, np.float32)
        for one, chosen in self._chosen(predicted):
            deviation[chosen] = one.standard_deviation(raw[chosen])
        return deviation

    def half_width(self, raw: FloatArray, predicted: FloatArray, level: float) -> FloatArray:
        """Half the width in SUV (g/ml) of the interval around the predicted SUV that covers ``level`` of voxels."""
        if level not in self.levels:
            raise Rejected(f"The calibration states intervals of {_listed(self.levels)}, not of {level:g}.")
        place, width = self.levels.index(level), self.standard_deviation(raw, predicted)
        for one, chosen in self._chosen(predicted):
            width[chosen] *= np.float32(one.factors[place])
        return width

    def as_json(self) -> dict[str, object]:
        """The plain form of the file."""
        return {"schema": SCHEMA, **asdict(self)}

    def _chosen(self, predicted: FloatArray) -> Iterator[tuple[CalibrationBin, npt.NDArray[np.bool_]]]:
        place = np.digitize(predicted, [one.suv_high for one in self.bins[:-1]])
        return ((one, place == number) for number, one in enumerate(self.bins))


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
    calibration: Calibration | None = None,
    progress: Progress | None = None,
) -> Uncertainty:
    """The uncertainty of a synthetic PET, from what ``translate_ct`` gave: CT (HU), districts and SUV on its grid.

    With ``members``, the same model from other seeds, the spread is the ensemble's, else that of flips along ``axes``.
    Raises Rejected where the calibration is of another model or method, or the members do not fit.
    """
    method = spread_method(members, axes)
    if calibration is not None:
        check_calibration(calibration, package, method)
    raw = raw_deviation(ct, districts, suv, package, members=members, axes=axes, progress=progress)
    if calibration is not None:
        for plane, predicted, labels in zip(raw, suv.array, districts, strict=True):
            made = _synthesised(labels, package)
            plane[made] = calibration.standard_deviation(plane[made], predicted[made])
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
    progress: Progress | None = None,
) -> FloatArray:
    """Sample standard deviation (D, H, W) of SUV (g/ml) over several translations; not calibrated.

    Test-time augmentation after Wang et al. 2019 (Neurocomputing 338:34-45, section 3.2), deep ensembles after
    Lakshminarayanan et al. 2017. ``suv`` is the served translation and counts as the first. Memory does not grow with
    the number of translations. ``progress`` receives (thousandths done, thousandths in all).
    """
    if not ct.array.shape == districts.shape == suv.array.shape:
        raise ValueError(f"CT {ct.array.shape}, districts {districts.shape} and SUV {suv.array.shape} differ in grid")
    method = spread_method(members, axes)
    _check_members(package, districts, members)
    spread = _Spread(suv.array)
    model_space = ct_to_model(ct.array, package.plan)
    runs: list[tuple[tuple[int, ...], ModelPackage]] = [((), member) for member in members]
    runs = runs or [(mirrored, package) for mirrored in _mirrored_axes(method)]
    for number, (mirrored, one) in enumerate(runs):
        turned, labels = (
            np.ascontiguousarray(np.flip(model_space, mirrored)),
            np.ascontiguousarray(np.flip(districts, mirrored)),
        )
        made = translate(turned, labels, one, progress=_part_of(progress, number, len(runs)))
        spread.add(np.flip(model_to_suv(made, one.plan), mirrored))
    return spread.deviation()


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


def check_calibration(calibration: Calibration, package: ModelPackage, method: SpreadMethod) -> None:
    """Raise Rejected where a calibration is not of this model, Plan and method."""
    if (calibration.model_hash, calibration.plan_hash) != (package.model_hash, package.plan.plan_hash):
        raise Rejected(
            f"The calibration is of model {calibration.model_hash[:12]}, not of {package.model_hash[:12]}: "
            "calibrate this model, or leave its deviation uncalibrated."
        )
    if calibration.method.name != method.name:
        raise Rejected(
            f"The calibration is of '{calibration.method.name}', not of '{method.name}': calibrate that method."
        )


def calibration_file(store: Path, model_hash: str, method: SpreadMethod = FLIPS) -> Path:
    """Where a model store keeps the calibration of a model and a method."""
    return store / CALIBRATIONS / model_hash / f"{method.name}.json"


def stored_calibration(store: Path, package: ModelPackage, method: SpreadMethod = FLIPS) -> Calibration | None:
    """The calibration of a model store, None where this model has none; raises Rejected for a bad one."""
    path = calibration_file(store, package.model_hash, method)
    if not path.is_file():
        return None
    calibration = read_calibration(path)
    check_calibration(calibration, package, method)
    return calibration


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration, whole or not at all; one that stands is replaced. Raises Transient where the disk fails."""
    content = (json.dumps(calibration.as_json(), indent=1) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, content)
    except OSError as error:
        raise Transient(f"{path.name} cannot be written to {path.parent}: check its free space and rights.") from error


def read_calibration(path: Path) -> Calibration:
    """A calibration from its file; raises Rejected where there is none that this version understands."""
    if not path.is_file():
        raise Rejected(f"{path} does not exist: calibrate the model's uncertainty first.")
    try:
        values = json.loads(path.read_bytes())
        if values.pop("schema") != SCHEMA:
            raise ValueError("unknown schema")
        return _calibration(values)
    except (AttributeError, KeyError, TypeError, ValueError, Rejected) as error:
        raise Rejected(f"{path} is no calibration that this version understands: calibrate the model again.") from error


def write_uncertainty(folder: Path, made: Uncertainty) -> Path:
    """Write the NIfTI file, whose name and header say if it is calibrated; raises Transient where the disk fails."""
    path = folder / made.file_name
    image = to_sitk(made.deviation.array, made.deviation.geometry)
    image.SetMetaData("ITK_FileNotes", made.description)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
    except (OSError, RuntimeError) as error:
        raise Transient(f"{path.name} cannot be written to {folder}: check its free space and rights.") from error
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
        if member.plan != package.plan:
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
    tell = progress
    return lambda done, total: tell(PARTS_A_MEMBER * number + PARTS_A_MEMBER * done // total, PARTS_A_MEMBER * count)


def _factors(one: CalibrationBin) -> _Factors:
    return _Factors(one.suv_low, one.suv_high, one.factors)


def _calibration(values: Mapping[str, Any]) -> Calibration:
    method = SpreadMethod(**{**values["method"], "members": tuple(values["method"]["members"])})
    bins = tuple(
        CalibrationBin(**{**one, **{key: _numbers(one[key]) for key in ("raw", "deviation", "factors")}})
        for one in values["bins"]
    )
    levels, patients = _numbers(values["levels"]), tuple(str(patient) for patient in values["patients"])
    coverage = tuple(Coverage(**one) for one in values["coverage"])
    changed: dict[str, Any] = {"method": method, "bins": bins, "levels": levels, "patients": patients}
    return Calibration(**{**values, **changed, "coverage": coverage})


def _numbers(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _listed(levels: Sequence[float]) -> str:
    return ", ".join(f"{level:g}" for level in levels)
