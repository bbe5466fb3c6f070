"""Turns raw deviations into standard deviations whose intervals cover: fitted on some patients, checked on others."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression
from scipy.stats import norm

from training.evaluation.case import Case
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import FloatArray
from twin_scanner.models.package import ModelPackage
from twin_scanner.models.plan import model_to_suv, suv_to_model
from twin_scanner.synthesis.calibration import Calibration, CalibrationBin, Coverage, SpreadMethod

SUV_EDGES: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Lower ends of the SUV bins, doubling; the last one ends at the Plan's largest SUV."""
LEVELS: Final = (0.5, 0.683, 0.9, 0.95)
"""Coverages that intervals are stated for; 0.683 is what one standard deviation of a normal distribution covers."""
VOXELS_A_BIN: Final = 4000
"""Sampled from each SUV bin of a study: 0.5 MB a study, whatever its size."""
KNOTS: Final = 12
"""Groups of the raw deviation in one bin."""
SMALLEST_GROUP: Final = 50
"""Voxels behind a knot."""
SMALLEST_BIN: Final = 500
"""Voxels of a bin that stands alone; smaller ones, and those of one patient, join their lower neighbour."""
FEWEST_PATIENTS: Final = 3
FOLDS: Final = 5
SMALLEST_DEVIATION_SUV: Final = 1e-3
"""A standard deviation is never stated below this: far under any scanner's noise."""

Numbers: TypeAlias = npt.NDArray[np.float64]
BinnedBy: TypeAlias = Literal["body", "predicted", "real"]


@dataclass(frozen=True, eq=False)
class Sample:
    """Voxels of one study, as many from each bin of predicted SUV; arrays (n,), SUV in g/ml.

    ``real`` is clipped to the Plan's range, as in the model's training. ``weight`` is how many voxels of the study each
    one stands for. ``body_error_suv`` is the mean absolute error over the whole body, None where it was not scored.
    """

    study: str
    patient: str
    diagnosis: str
    suv_max: float
    predicted: FloatArray
    real: FloatArray
    raw: FloatArray
    weight: FloatArray
    body_error_suv: float | None = None


def sample_voxels(case: Case, raw: FloatArray, package: ModelPackage, seed: int = 0) -> Sample:
    """The sample of one study and its raw deviation (D, H, W), SUV in g/ml, on the case's grid.

    Mask: the body where the real PET has a value and the package has a network. The same seed and study give the same
    voxels, whatever came before.
    """
    if raw.shape != case.real.shape:
        raise ValueError(f"the deviation {raw.shape} does not lie on the case {case.real.shape}")
    covered = sorted(package.partition.labels)
    mask = np.isin(case.labels, covered) if covered else case.labels > 0
    place = np.flatnonzero(mask)
    predicted = case.synthetic.ravel()[place]
    stratum = np.digitize(predicted, SUV_EDGES[1:])
    random = np.random.default_rng([seed, *hashlib.sha256(case.study.encode()).digest()])
    parts, weights = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for number in range(len(SUV_EDGES)):
        there = np.flatnonzero(stratum == number)
        chosen = random.choice(there, min(VOXELS_A_BIN, there.size), replace=False)
        parts.append(chosen)
        weights.append(np.full(chosen.size, there.size / max(1, chosen.size), np.float32))
    chosen = np.concatenate(parts)
    real = model_to_suv(suv_to_model(case.real.ravel()[place[chosen]], case.plan), case.plan)
    values = predicted[chosen], real, raw.ravel()[place[chosen]], np.concatenate(weights)
    return Sample(case.study, case.patient, case.diagnosis, case.plan.suv_max, *values)


def fit_calibration(
    samples: Sequence[Sample],
    package: ModelPackage,
    method: SpreadMethod,
    *,
    trained_on: Collection[str] = (),
    levels: tuple[float, ...] = LEVELS,
) -> Calibration:
    """Fit the map from raw deviation to standard deviation, and the intervals' factors, in each bin of predicted SUV.

    The standard deviation is the root mean square error at that raw deviation (calibrated in the sense of Levi et al.
    2022, Sensors 22:5540, section 3), made monotone by isotonic regression (Barlow et al. 1972). The factor of a level
    is the quantile of |error| / standard deviation: split conformal prediction with a normalised score (Lei et al.
    2018, JASA 113:1094, section 5.2), a bin apart (Mondrian; Vovk 2012). Scores come from maps that did not see their
    patient (cross-conformal; Vovk 2015). Every patient weighs the same, for voxels of one patient are not independent
    (pooled distribution functions of groups; Dunn et al. 2023, JASA 118:2491).

    Raises Rejected for fewer than FEWEST_PATIENTS patients, or where ``trained_on`` names one of them.
    """
    patients = sorted({sample.patient for sample in samples})
    if len(patients) < FEWEST_PATIENTS:
        raise Rejected(f"A calibration needs {FEWEST_PATIENTS} patients or more, not {len(patients)}: add studies.")
    if set(patients) & set(trained_on):
        raise Rejected("Patients of the training are among those of the calibration: calibrate on held-out patients.")
    suv_max = package.plan.suv_max
    _check_range(samples, suv_max)
    pool = _Pool.of(samples, patients)
    edges = _edges(pool, suv_max)
    bins = tuple(_fit_bin(pool.of_bin(low, high, suv_max), low, high, levels) for low, high in _pairs(edges))
    digests = tuple(patient_digest(package.model_hash, patient) for patient in patients)
    return Calibration(package.model_hash, package.plan.plan_hash, method, suv_max, levels, bins, digests)


def check_coverage(calibration: Calibration, samples: Sequence[Sample]) -> tuple[Coverage, ...]:
    """Coverage of the stated intervals in the body, per bin of predicted SUV and per bin of real SUV.

    Raises Rejected where a patient of the samples was calibrated on, or there is none.
    """
    patients = sorted({sample.patient for sample in samples})
    known = set(calibration.patients)
    repeated = sum(patient_digest(calibration.model_hash, patient) in known for patient in patients)
    if repeated:
        raise Rejected(
            f"{repeated} of {len(patients)} patients were calibrated on: coverage is measured on other patients only."
        )
    if not patients:
        raise Rejected("There is no patient to measure coverage on: give studies of others than the calibration's.")
    _check_range(samples, calibration.suv_max)
    pool = _Pool.of(samples, patients)
    found: list[Coverage] = []
    for binned_by, low, high, chosen in _regions(pool, calibration.suv_max):
        part = pool.part(chosen)
        for level in calibration.levels:
            width = calibration.half_width(part.raw, part.predicted, level)
            found += _coverage(part, width, (binned_by, low, high), level)
    return tuple(found)


def coverage_table(found: Sequence[Coverage]) -> str:
    """The coverage as a Markdown table, a line a bin and level."""
    head = (
        "| binned by | SUV | level | coverage | worst patient | raw deviation's | half width, SUV | patients | voxels |"
    )
    lines = [head, "|" + "---|" * 9]
    for one in found:
        shares = " | ".join(f"{100 * share:.1f} %" for share in (one.coverage, one.lowest, one.raw_coverage))
        region = f"{one.binned_by} | {one.suv_low:g} to {one.suv_high:g} | {100 * one.level:g} %"
        lines.append(f"| {region} | {shares} | {one.half_width_suv:.3f} | {one.patients} | {one.voxels} |")
    return "\n".join(lines) + "\n"


def patient_digest(model_hash: str, patient: str) -> str:
    """What a calibration keeps of a patient's pseudonym: enough to refuse the same patient, too little to name one."""
    return hashlib.sha256(f"{model_hash}:{patient}".encode()).hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class _Pool:
    """Samples end to end; ``patient`` numbers the patients, ``weight`` sums to 1 over each patient's voxels."""

    predicted: FloatArray
    real: FloatArray
    raw: FloatArray
    patient: npt.NDArray[np.int64]
    weight: Numbers

    @classmethod
    def of(cls, samples: Sequence[Sample], patients: Sequence[str]) -> "_Pool":
        numbers = [np.full(sample.raw.size, patients.index(sample.patient)) for sample in samples]
        predicted, real, raw = (
            np.concatenate([getattr(sample, name) for sample in samples]) for name in ("predicted", "real", "raw")
        )
        weight = np.concatenate([sample.weight for sample in samples]).astype(np.float64)
        return cls(predicted, real, raw, np.concatenate(numbers), weight)

    @property
    def error(self) -> Numbers:
        """How far each voxel lies off, the score of conformal prediction; nothing averages it into a metric."""
        return np.abs(self.predicted - self.real).astype(np.float64)

    @property
    def patients(self) -> npt.NDArray[np.int64]:
        return np.unique(self.patient)

    def part(self, chosen: npt.NDArray[np.bool_]) -> "_Pool":
        patient, weight = self.patient[chosen], self.weight[chosen]
        share = np.bincount(patient, weight, minlength=1)
        return _Pool(self.predicted[chosen], self.real[chosen], self.raw[chosen], patient, weight / share[patient])

    def of_bin(self, low: float, high: float, suv_max: float) -> "_Pool":
        return self.part(_within(self.predicted, low, high, suv_max))


def _within(suv: FloatArray, low: float, high: float, suv_max: float) -> npt.NDArray[np.bool_]:
    """The first bin holds what is below it, the last one its upper end: the Plan's clip puts values there."""
    above: npt.NDArray[np.bool_] = (suv >= low) | (low == SUV_EDGES[0])
    return above & ((suv < high) | (high == suv_max))


def _check_range(samples: Sequence[Sample], suv_max: float) -> None:
    if any(sample.suv_max != suv_max for sample in samples):
        raise Rejected(
            f"The studies were not translated to SUV {suv_max:g}, the model's range: translate them with it."
        )


def _edges(pool: _Pool, suv_max: float) -> list[float]:
    """Edges of bins that all hold enough voxels of enough patients."""
    edges = [*(edge for edge in SUV_EDGES if edge < suv_max), suv_max]
    for edge in reversed(edges[1:-1]):
        low, high = edges[edges.index(edge) - 1], edges[edges.index(edge) + 1]
        if not all(_suffices(pool.of_bin(*ends, suv_max)) for ends in ((edge, high), (low, edge))):
            edges.remove(edge)
    if not _suffices(pool):
        raise Rejected(f"The calibration's studies show fewer than {SMALLEST_BIN} voxels of the body: add studies.")
    return edges


def _suffices(pool: _Pool) -> bool:
    return pool.raw.size >= SMALLEST_BIN and pool.patients.size >= FEWEST_PATIENTS


def _fit_bin(pool: _Pool, low: float, high: float, levels: tuple[float, ...]) -> CalibrationBin:
    raw, deviation = _monotone(pool)
    scores = np.empty(pool.raw.size)
    rank = np.searchsorted(pool.patients, pool.patient)
    for fold in range(FOLDS):
        held_out = rank % FOLDS == fold
        if held_out.any():
            known = pool.part(~held_out)
            scores[held_out] = pool.error[held_out] / _interpolated(_monotone(known), pool.raw[held_out])
    factors = tuple(_quantile(scores, pool.weight, level) for level in levels)
    return CalibrationBin(low, high, raw, deviation, factors, int(pool.patients.size), int(pool.raw.size))


def _monotone(pool: _Pool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Knots: the mean raw deviation of groups of equal weight, and their root mean square error, never falling."""
    order = np.argsort(pool.raw, kind="stable")
    raw, error, weight = pool.raw[order].astype(np.float64), pool.error[order], pool.weight[order]
    groups = max(1, min(KNOTS, raw.size // SMALLEST_GROUP))
    share = np.cumsum(weight) / weight.sum()
    limits = np.unique(np.interp(np.arange(1, groups) / groups, share, raw))
    group = np.digitize(raw, limits)
    total = np.bincount(group, weight)
    there = total > 0
    mean_raw = np.bincount(group, weight * raw)[there] / total[there]
    mean_square = np.bincount(group, weight * error**2)[there] / total[there]
    rising = np.sqrt(isotonic_regression(mean_square, weights=total[there]).x)
    return tuple(mean_raw.tolist()), tuple(np.maximum(rising, SMALLEST_DEVIATION_SUV).tolist())


def _interpolated(knots: tuple[tuple[float, ...], tuple[float, ...]], raw: FloatArray) -> FloatArray:
    raw_knots, deviation = knots
    return CalibrationBin(0.0, 1.0, raw_knots, deviation, (0.0,), 1, 1).standard_deviation(raw)


def _quantile(values: Numbers, weight: Numbers, level: float) -> float:
    """The smallest value that at least ``level`` of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][min(int(np.searchsorted(share, level)), values.size - 1)])


def _pairs(edges: Sequence[float]) -> list[tuple[float, float]]:
    return list(pairwise(edges))


def _regions(pool: _Pool, suv_max: float) -> Iterator[tuple[BinnedBy, float, float, npt.NDArray[np.bool_]]]:
    yield "body", 0.0, suv_max, np.ones(pool.raw.shape, np.bool_)
    edges = [*(edge for edge in SUV_EDGES if edge < suv_max), suv_max]
    for low, high in _pairs(edges):
        yield "predicted", low, high, _within(pool.predicted, low, high, suv_max)
    for low, high in _pairs(edges):
        yield "real", low, high, _within(pool.real, low, high, suv_max)


def _coverage(
    part: _Pool, half_width: FloatArray, region: tuple[BinnedBy, float, float], level: float
) -> Iterator[Coverage]:
    """None where the region is empty: an empty mask gives no number."""
    if not part.raw.size:
        return
    covered, raw_covered = part.error <= half_width, part.error <= norm.ppf((1 + level) / 2) * part.raw
    each = np.bincount(part.patient, part.weight * covered)[part.patients]
    raw_each = np.bincount(part.patient, part.weight * raw_covered)[part.patients]
    width = np.bincount(part.patient, part.weight * half_width)[part.patients]
    yield Coverage(
        *region,
        level,
        float(each.mean()),
        float(each.min()),
        float(raw_each.mean()),
        float(width.mean()),
        int(part.patients.size),
        int(part.raw.size),
    )
