"""What the numbers of an evaluation prove: means with their spread, and paired comparisons of two models by patient."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

LEAST_PATIENTS: Final = 5
"""With fewer no test of ours is asked: five are the fewest whose paired signs can reach 0.05 one-sided."""
CONFIDENCE: Final = 0.95
RESAMPLES: Final = 2000
SEED: Final = 0
SEPARATOR: Final = "#"
"""Between a model's name and the seed that it was trained with."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """One metric of one model in one region.

    ``mean`` and ``sd`` are over studies (lesions, where each has a number), seeds averaged first; ``se`` is the
    standard error of the mean over patients, whose studies are averaged first; ``low`` and ``high`` bound the mean by
    a bootstrap that resamples patients. ``seed_sd`` is the spread of the seeds' means. None where there are too few.
    """

    mean: float
    sd: float | None
    se: float | None
    low: float | None
    high: float | None
    seed_sd: float | None
    items: int
    studies: int
    patients: int
    seeds: int


@dataclass(frozen=True)
class Comparison:
    """Two models on the studies that both were scored on: model less baseline.

    ``t_p`` is the paper's paired two-tailed t-test and ``wilcoxon_p`` the signed-rank test, both over patients (their
    studies averaged); ``t_holm`` and ``wilcoxon_holm`` are adjusted for all lines of one table.
    """

    region: str
    metric: str
    baseline: str
    difference: float
    low: float | None
    high: float | None
    model_mean: float
    baseline_mean: float
    t_p: float | None
    wilcoxon_p: float | None
    studies: int
    patients: int
    left_out: int
    t_holm: float | None = None
    wilcoxon_holm: float | None = None


def family(model: str) -> str:
    """A model's name without the seed."""
    return model.split(SEPARATOR, 1)[0]


class Scores:
    """A table of rows, ready to be asked: each model's seeds are averaged study by study, once.

    Only what every seed of a model has a number for is averaged, so that no seed counts more than another.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table
        self._families = table["model"].map(family)
        self._averaged: dict[str, dict[tuple[str, str], pd.DataFrame]] = {}

    def averaged(self, model: str, region: str, metric: str, diagnosis: str | None = None) -> pd.DataFrame:
        """A model's numbers in a region, perhaps of one diagnosis: study, patient, diagnosis, item and value."""
        if model not in self._averaged:
            self._averaged[model] = _averaged(self.table[self._families == model])
        return _of(self._averaged[model].get((region, metric), _NOTHING), diagnosis)

    def of_seeds(self, model: str, region: str, metric: str, diagnosis: str | None = None) -> Floats:
        """The mean of each seed of a model."""
        rows = self.table[
            (self._families == model) & (self.table["region"] == region) & (self.table["metric"] == metric)
        ]
        return _of(rows, diagnosis).groupby("model")["value"].mean().to_numpy()


def summary(scores: Scores, model: str, region: str, metric: str, diagnosis: str | None = None) -> Summary | None:
    """One number of a table; None where no study has it."""
    rows = scores.averaged(model, region, metric, diagnosis)
    if rows.empty:
        return None
    values = rows["value"].to_numpy()
    by_patient = rows.groupby("patient")["value"].mean().to_numpy()
    means = scores.of_seeds(model, region, metric, diagnosis)
    low, high = bounds_by_patient(rows)
    return Summary(
        mean=float(values.mean()),
        sd=_sd(values),
        se=None if len(by_patient) < 2 else float(by_patient.std(ddof=1) / np.sqrt(len(by_patient))),
        low=low,
        high=high,
        seed_sd=_sd(means),
        items=len(rows),
        studies=rows["study"].nunique(),
        patients=len(by_patient),
        seeds=len(means),
    )


def compare(scores: Scores, model: str, baseline: str, pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
    """The model against a baseline for each (region, metric), Holm's correction over all of them together.

    Holm, Scand J Statist 1979; 6:65. The t-tests and the Wilcoxon tests are a family each.
    """
    found = [_comparison(scores, model, baseline, region, metric) for region, metric in pairs]
    return _adjusted([one for one in found if one is not None])


def bounds_by_patient(rows: pd.DataFrame) -> tuple[float | None, float | None]:
    """Bounds of the mean over rows with columns patient and value, at 95 %.

    Bias-corrected and accelerated bootstrap (Efron, J Am Stat Assoc 1987; 82:171) that draws patients, each with all of
    its rows, for these are not independent. (None, None) below five patients.
    """
    grouped = rows.groupby("patient")["value"]
    sums, counts = grouped.sum().to_numpy(dtype=np.float64), grouped.count().to_numpy(dtype=np.float64)
    if len(sums) < LEAST_PATIENTS:
        return None, None
    if np.ptp(sums / counts) == 0:
        return float(sums[0] / counts[0]), float(sums[0] / counts[0])

    def mean(total: Floats, number: Floats, axis: int = -1) -> Floats:
        ratio: Floats = total.sum(axis=axis) / number.sum(axis=axis)
        return ratio

    interval = stats.bootstrap(
        (sums, counts), mean, paired=True, vectorized=True, n_resamples=RESAMPLES, confidence_level=CONFIDENCE,
        method="BCa", rng=np.random.default_rng(SEED),
    ).confidence_interval  # fmt: skip
    return float(interval.low), float(interval.high)


_NOTHING: Final = pd.DataFrame({"study": [], "patient": [], "diagnosis": [], "item": [], "value": []})


def _averaged(rows: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    keys = ["region", "metric", "study", "patient", "diagnosis", "item"]
    grouped = rows.groupby(keys, sort=True)["value"].agg(["mean", "count"]).reset_index()
    whole = grouped[grouped["count"] == rows["model"].nunique()]
    whole = whole.drop(columns="count").rename(columns={"mean": "value"})
    return {
        (str(region), str(metric)): part.drop(columns=["region", "metric"])
        for (region, metric), part in whole.groupby(["region", "metric"])
    }


def _of(rows: pd.DataFrame, diagnosis: str | None) -> pd.DataFrame:
    return rows if diagnosis is None else rows[rows["diagnosis"] == diagnosis]


def _sd(values: Floats) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _comparison(scores: Scores, model: str, baseline: str, region: str, metric: str) -> Comparison | None:
    one, other = (scores.averaged(name, region, metric) for name in (model, baseline))
    both = one.merge(other, on=["study", "patient", "item"], suffixes=("", "_baseline"))
    if both.empty:
        return None
    both["value"], model_mean = both["value"] - both["value_baseline"], float(both["value"].mean())
    by_patient = both.groupby("patient")["value"].mean().to_numpy()
    low, high = bounds_by_patient(both)
    t_p, wilcoxon_p = _p_values(by_patient)
    return Comparison(
        region, metric, baseline, float(both["value"].mean()), low, high, model_mean,
        float(both["value_baseline"].mean()), t_p, wilcoxon_p, both["study"].nunique(), len(by_patient),
        len(one) + len(other) - 2 * len(both),
    )  # fmt: skip


def _p_values(differences: Floats) -> tuple[float | None, float | None]:
    """Of the t-test and of Wilcoxon's; models that do not differ anywhere have p 1."""
    if len(differences) < LEAST_PATIENTS:
        return None, None
    if np.ptp(differences) == 0:
        return (1.0, 1.0) if differences[0] == 0 else (0.0, float(stats.wilcoxon(differences).pvalue))
    return float(stats.ttest_1samp(differences, 0.0).pvalue), float(stats.wilcoxon(differences).pvalue)


def _adjusted(found: Sequence[Comparison]) -> list[Comparison]:
    t_holm = _holm([one.t_p for one in found])
    wilcoxon_holm = _holm([one.wilcoxon_p for one in found])
    return [
        Comparison(**{**vars(one), "t_holm": t, "wilcoxon_holm": w})
        for one, t, w in zip(found, t_holm, wilcoxon_holm, strict=True)
    ]


def _holm(values: Sequence[float | None]) -> list[float | None]:
    known = [value for value in values if value is not None]
    if not known:
        return [None] * len(values)
    adjusted = iter(multipletests(known, method="holm")[1])
    return [None if value is None else float(next(adjusted)) for value in values]
