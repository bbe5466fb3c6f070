"""Statistics of an evaluation against SciPy, statsmodels and numbers worked out by hand."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from training.evaluation.case import Row
from training.evaluation.rows_table import table_of
from training.evaluation.statistics import RESAMPLES, Scores, bounds_by_patient, compare, family, summary

pytestmark = pytest.mark.unit


def row(model: str, study: str, value: float, patient: str = "", metric: str = "mae", region: str = "body") -> Row:
    return Row(model, study, patient or study, "LYMPHOMA", region, 0, metric, "", value, 10)


def scores(rows: Iterator[Row] | list[Row]) -> Scores:
    return Scores(table_of(list(rows)))


def test_the_mean_is_over_studies_and_its_standard_error_over_patients() -> None:
    """Patient p has two studies: 1 and 3, so a mean of 2; the others have 4 and 6."""
    rows = [row("m", "s1", 1.0, "p"), row("m", "s2", 3.0, "p"), row("m", "s3", 4.0, "q"), row("m", "s4", 6.0, "r")]
    found = summary(scores(rows), "m", "body", "mae")
    assert found is not None
    assert (found.mean, found.studies, found.patients, found.seeds) == (3.5, 4, 3, 1)
    assert found.sd == pytest.approx(np.std([1, 3, 4, 6], ddof=1))
    assert found.se == pytest.approx(np.std([2, 4, 6], ddof=1) / np.sqrt(3))
    assert found.low is None and found.seed_sd is None, "three patients have no interval, one seed has no spread"


def test_seeds_are_averaged_study_by_study_and_their_own_spread_is_told() -> None:
    rows = [row(f"m#{seed}", study, value) for seed, study, value in
            [(1, "s1", 1.0), (2, "s1", 3.0), (1, "s2", 5.0), (2, "s2", 9.0)]]  # fmt: skip
    found = summary(scores(rows), "m", "body", "mae")
    assert found is not None and (found.mean, found.seeds, found.items) == (4.5, 2, 2)
    assert found.sd == pytest.approx(np.std([2, 7], ddof=1))
    assert found.seed_sd == pytest.approx(np.std([3, 6], ddof=1))
    assert family("m#2") == family("m") == "m"


def test_a_study_that_one_seed_has_no_number_for_is_left_out() -> None:
    rows = [row("m#1", "s1", 1.0), row("m#2", "s1", 3.0), row("m#1", "s2", 50.0)]
    found = summary(scores(rows), "m", "body", "mae")
    assert found is not None and (found.mean, found.studies) == (2.0, 1)
    assert summary(scores(rows), "m", "body", "ssim") is None


def test_the_spread_of_seeds_is_over_the_same_studies_as_the_mean() -> None:
    """Seed 1 alone has the bad study s2: on s1 both are equal, and so they have no spread."""
    rows = [row("m#1", "s1", 1.0), row("m#2", "s1", 1.0), row("m#1", "s2", 50.0)]
    found = summary(scores(rows), "m", "body", "mae")
    assert found is not None and (found.mean, found.seed_sd, found.seeds) == (1.0, 0.0, 2)


def test_lesions_are_averaged_within_their_patient_before_anything_is_tested() -> None:
    """Oracle: SciPy on patients' means; one patient with 40 lesions does not outvote the others."""
    random = np.random.default_rng(6)
    rows, means = [], []
    for patient in range(7):
        bias = random.normal(0.5, 0.3, 40 if patient == 0 else 2)
        means.append(bias.mean())
        for item, value in enumerate(bias, start=1):
            for model, number in (("a", float(value)), ("b", 0.0)):
                rows.append(
                    Row(model, f"s{patient}", f"p{patient}", "", "lesion", item, "suv_max_bias", "g/ml", number, 9)
                )
    (one,) = compare(scores(rows), "a", "b", [("lesion", "suv_max_bias")])
    assert (one.studies, one.patients) == (7, 7)
    assert one.t_p == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    assert one.wilcoxon_p == pytest.approx(stats.wilcoxon(means).pvalue)
    found = summary(scores(rows), "a", "lesion", "suv_max_bias")
    assert found is not None and (found.items, found.studies, found.patients) == (52, 7, 7)


def test_p_values_are_scipys_and_corrected_by_statsmodels() -> None:
    random = np.random.default_rng(1)
    ours, theirs = random.normal(1.0, 0.1, (3, 12)), random.normal(1.05, 0.1, (3, 12))
    rows = [
        row(model, f"s{study}", float(values[metric, study]), metric=f"m{metric}")
        for model, values in (("a", ours), ("b", theirs))
        for metric in range(3)
        for study in range(12)
    ]
    found = compare(scores(rows), "a", "b", [("body", f"m{metric}") for metric in range(3)])
    t_p = [stats.ttest_rel(ours[metric], theirs[metric]).pvalue for metric in range(3)]
    wilcoxon = [stats.wilcoxon(ours[metric], theirs[metric]).pvalue for metric in range(3)]
    assert [one.t_p for one in found] == pytest.approx(t_p)
    assert [one.wilcoxon_p for one in found] == pytest.approx(wilcoxon)
    assert [one.t_holm for one in found] == pytest.approx(list(multipletests(t_p, method="holm")[1]))
    assert [one.wilcoxon_holm for one in found] == pytest.approx(list(multipletests(wilcoxon, method="holm")[1]))
    assert [one.difference for one in found] == pytest.approx(list((ours - theirs).mean(axis=1)))
    for one in found:
        assert one.low is not None and one.high is not None and one.low < one.difference < one.high


def test_two_studies_of_a_patient_are_one_observation() -> None:
    """Oracle: SciPy's test on the patients' means."""
    random = np.random.default_rng(2)
    rows, means = [], []
    for patient in range(6):
        differences = random.normal(0.3, 0.4, 1 + patient % 2)
        means.append(differences.mean())
        for number, difference in enumerate(differences):
            study = f"p{patient}-{number}"
            rows += [row("a", study, 1.0 + difference, f"p{patient}"), row("b", study, 1.0, f"p{patient}")]
    (one,) = compare(scores(rows), "a", "b", [("body", "mae")])
    assert (one.studies, one.patients) == (9, 6)
    assert one.t_p == pytest.approx(stats.ttest_1samp(means, 0).pvalue)


def test_only_common_studies_are_compared_and_the_others_are_counted() -> None:
    rows = [row("a", f"s{n}", 1.0) for n in range(4)] + [row("b", f"s{n}", 2.0) for n in range(2, 7)]
    (one,) = compare(scores(rows), "a", "b", [("body", "mae")])
    assert (one.studies, one.left_out, one.difference) == (2, 5, -1.0)
    assert one.t_p is None and one.wilcoxon_holm is None and one.low is None, "two patients prove nothing"


def test_holms_family_is_what_was_tested_not_what_had_too_few_patients() -> None:
    random = np.random.default_rng(8)
    rows = [
        row(model, f"s{study}", float(random.normal(number, 0.5)), metric=metric)
        for metric, studies in (("mae", 8), ("ssim", 8), ("psnr", 3))
        for number, model in enumerate("ab")
        for study in range(studies)
    ]
    mae, ssim, psnr = compare(scores(rows), "a", "b", [("body", metric) for metric in ("mae", "ssim", "psnr")])
    assert mae.t_p is not None and ssim.t_p is not None and psnr.t_p is None and psnr.t_holm is None
    smaller, larger = sorted((mae.t_p, ssim.t_p))
    by_hand = {smaller: min(1.0, 2 * smaller), larger: max(min(1.0, 2 * smaller), larger)}
    assert (mae.t_holm, ssim.t_holm) == pytest.approx((by_hand[mae.t_p], by_hand[ssim.t_p]))


def test_models_that_are_equal_everywhere_differ_by_nothing() -> None:
    rows = [row(model, f"s{n}", n + noise) for model, noise in (("a", 0.0), ("b", 1e-15)) for n in range(6)]
    (one,) = compare(scores(rows), "a", "b", [("body", "mae")])
    assert (one.difference, one.t_p, one.wilcoxon_p) == (0.0, 1.0, 1.0), "what rounds away is no difference"


def test_a_difference_that_all_patients_share_has_no_t_and_rounding_does_not_disturb_it() -> None:
    """Of 8 patients with the same sign, Wilcoxon's exact p is 2 / 2^8; t would divide by no spread."""
    random = np.random.default_rng(9)
    rows = [row(model, f"s{n}", value + more) for n, value in enumerate(random.random(8))
            for model, more in (("a", 0.1), ("b", 0.0))]  # fmt: skip
    (one,) = compare(scores(rows), "a", "b", [("body", "mae")])
    assert (one.low, one.high) == pytest.approx((0.1, 0.1))
    assert one.t_p is None and one.wilcoxon_p == pytest.approx(2 / 2**8)


def test_the_bounds_are_of_the_mean_over_rows_where_a_patient_with_many_weighs_more() -> None:
    """Patient 0 has 40 lesions of value 1, the 19 others one of value 0: the mean is 40 / 59, not 1 / 20.

    Oracle: the same mean over patients drawn one by one with all of their rows; it is bounded by 0 and, with patient 0
    drawn three times or more (8 % of the draws), by 120 / 137 or more.
    """
    patients, values = ["0"] * 40 + [str(n) for n in range(1, 20)], [1.0] * 40 + [0.0] * 19
    low, high = bounds_by_patient(pd.DataFrame({"patient": patients, "value": values}))
    assert low == 0.0 and high is not None and 120 / 137 <= high <= 1.0


def test_the_bounds_are_scipys_bca_over_patients_whose_rows_stay_together() -> None:
    """Oracle: SciPy's bootstrap of the patients' indices with the same numbers; its percentiles lie elsewhere."""
    random = np.random.default_rng(4)
    rows = [(str(n), x) for n in range(25) for x in random.lognormal(random.normal(), 0.3, random.integers(1, 6))]
    table = pd.DataFrame(rows, columns=["patient", "value"])
    of = [group.to_numpy() for _, group in table.groupby("patient")["value"]]

    def mean(drawn: npt.NDArray[np.int64]) -> float:
        return float(np.concatenate([of[index] for index in drawn]).mean())

    def bounds(method: str) -> list[float]:
        interval = stats.bootstrap(
            (np.arange(25),), mean, vectorized=False, n_resamples=RESAMPLES, method=method, rng=np.random.default_rng(0)
        ).confidence_interval
        return [interval.low, interval.high]

    assert bounds_by_patient(table) == pytest.approx(bounds("BCa"), rel=1e-9)
    assert bounds("percentile") != pytest.approx(bounds("BCa"), rel=0.05)


def test_counts_with_many_ties_give_finite_bounds_around_the_mean() -> None:
    random = np.random.default_rng(10)
    for _ in range(60):
        values = random.integers(0, 3, random.integers(5, 12)).astype(float)
        low, high = bounds_by_patient(pd.DataFrame({"patient": np.arange(len(values)).astype(str), "value": values}))
        assert low is not None and high is not None and low <= values.mean() <= high


def clustered(random: np.random.Generator, patients: int, spread: float) -> pd.DataFrame:
    """Patients with one to eight studies each, alike within a patient."""
    counts = random.integers(1, 9, patients)
    level = random.normal(0.0, spread, patients)
    values = np.concatenate([random.normal(mean, 0.1, count) for mean, count in zip(level, counts, strict=True)])
    return pd.DataFrame({"patient": np.repeat(np.arange(patients), counts).astype(str), "value": values})


def test_the_interval_covers_the_truth_where_one_that_forgets_patients_does_not() -> None:
    """200 simulated evaluations of 50 patients; the truth is 0. The naive bootstrap draws studies as if all were apart.

    For a nominal 0.95 the standard error of a share of 200 is 0.015; SciPy's percentiles judge the naive one.
    """
    random = np.random.default_rng(4)
    ours, naive = [], []
    for _ in range(200):
        rows = clustered(random, 50, 1.0)
        low, high = bounds_by_patient(rows)
        assert low is not None and high is not None
        ours.append(low <= 0 <= high)
        values: npt.NDArray[np.float64] = rows["value"].to_numpy()
        drawn = stats.bootstrap((values,), np.mean, n_resamples=200, method="percentile", rng=random)
        naive.append(drawn.confidence_interval.low <= 0 <= drawn.confidence_interval.high)
    assert 0.90 < np.mean(ours) < 0.99
    assert np.mean(naive) < 0.70


def test_the_interval_of_few_patients_is_as_narrow_as_its_reader_is_told() -> None:
    """The docstring and the tables' notes say 81 % at five patients: 400 simulations have a standard error of 2 %."""
    random = np.random.default_rng(11)
    held = []
    for _ in range(400):
        low, high = bounds_by_patient(clustered(random, 5, 1.0))
        held.append(low is not None and high is not None and low <= 0 <= high)
    assert 0.75 < np.mean(held) < 0.87


def test_the_same_rows_give_the_same_interval() -> None:
    rows = clustered(np.random.default_rng(5), 10, 1.0)
    mixed = rows.sample(frac=1.0, random_state=1)
    assert bounds_by_patient(rows) == pytest.approx(bounds_by_patient(mixed), rel=1e-12)
