"""The calibration that turns a model's raw deviation into a standard deviation of its error, and its file."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from twin_scanner.errors import Rejected
from twin_scanner.files.durable_file import write_durably, writing
from twin_scanner.imaging.volume import FloatArray
from twin_scanner.models.card import Card

SCHEMA: Final = 1
"""Raised when a calibration's meaning changes; an older program refuses a newer file."""
CALIBRATIONS: Final = "calibrations"
"""A folder of its own in a model store, for the packages are immutable: CALIBRATIONS/<model hash>/<method>.json."""
AXES: Final = "DHW"
_AXIS_CHOICES: Final = frozenset("".join(axes) for count in (1, 2, 3) for axes in combinations(AXES, count))


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
            raise Rejected("An ensemble needs at least one model besides the served one, each of them once.")

    @property
    def name(self) -> str:
        """Short, and different for every method: a file's name."""
        if self.kind == "flips":
            return f"flips-{self.axes}"
        return f"ensemble-{hashlib.sha256(','.join(self.members).encode()).hexdigest()[:12]}"


FLIPS: Final = SpreadMethod()


@dataclass(frozen=True)
class CalibrationBin:
    """One range of predicted SUV: knots from the raw deviation to the standard deviation, and one factor per level.

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
            raise ValueError("every bin of a calibration holds one factor per level")

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


def check_calibration(calibration: Calibration, card: Card, method: SpreadMethod) -> None:
    """Raise Rejected where a calibration is not of this model, Plan and method."""
    if (calibration.model_hash, calibration.plan_hash) != (card.model_hash, card.plan.plan_hash):
        raise Rejected(
            f"The calibration is of model {calibration.model_hash[:12]}, not of {card.model_hash[:12]}: "
            "calibrate this model, or leave its deviation uncalibrated."
        )
    if calibration.method.name != method.name:
        raise Rejected(
            f"The calibration is of '{calibration.method.name}', not of '{method.name}': calibrate that method."
        )


def calibration_file(store: Path, model_hash: str, method: SpreadMethod = FLIPS) -> Path:
    """The file in which a model store keeps the calibration of a model and a method."""
    return store / CALIBRATIONS / model_hash / f"{method.name}.json"


def stored_calibration(store: Path, card: Card, method: SpreadMethod = FLIPS) -> Calibration | None:
    """The calibration of a model store, None where this model has none; raises Rejected for a bad one."""
    path = calibration_file(store, card.model_hash, method)
    if not path.is_file():
        return None
    calibration = read_calibration(path)
    check_calibration(calibration, card, method)
    return calibration


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration, whole or not at all; one that stands is replaced. Raises Transient where the disk fails."""
    content = (json.dumps(calibration.as_json(), indent=1) + "\n").encode()
    with writing(path.name, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, content)


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
