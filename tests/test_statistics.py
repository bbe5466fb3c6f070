"""Statistics of an evaluation against SciPy, statsmodels and numbers worked out by hand."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from training.evaluation.case import Row
from training.evaluation.rows_table import read_table, table_of, write_table
from training.evaluation.statistics import Scores, bounds_by_patient, compare, family, summary
from twin_scanner.errors import Rejected

pytestmark = pytest.mark.unit


def row(model: str, study: str, value: float, patient: str = "", metric: str = "mae", region: str = "body") -> Row:
    return Row(model, study, patient or study, "LYMPHOMA", region, 0, metric, "", value, 10)


def scores(rows: Iterator[Row] | list[Row]) -> Scores:
    return Scores(table_of(list(rows)))


def test_a_table_comes_back_from_its_file_as_it_was_and_another_file_is_none(tmp_path: Path) -> None:
    table = table_of([row("a", "s2", 0.5), row("a", "s1", 0.25, metric="ssim")])
    write_table(table, tmp_path / "metrics.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "metrics.parquet"), table)
    assert list(table["study"]) == ["s1", "s2"]
    (tmp_path / "other.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(Rejected, match="is no table of measurements"):
        read_table(tmp_path / "other.parquet")
    table.drop(columns="unit").to_parquet(tmp_path / "less.parquet")
    with pytest.raises(Rejected, match="other columns"):
        read_table(tmp_path / "less.parquet")


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


def test_models_that_are_equal_everywhere_differ_by_nothing() -> None:
    rows = [row(model, f"s{n}", float(n)) for model in "ab" for n in range(6)]
    (one,) = compare(scores(rows), "a", "b", [("body", "mae")])
    assert (one.difference, one.t_p, one.wilcoxon_p) == (0.0, 1.0, 1.0)


def clustered(random: np.random.Generator, patients: int, spread: float) -> pd.DataFrame:
    """Patients with one to eight studies each, alike within a patient."""
    counts = random.integers(1, 9, patients)
    level = random.normal(0.0, spread, patients)
    values = np.concatenate([random.normal(mean, 0.1, count) for mean, count in zip(level, counts, strict=True)])
    return pd.DataFrame({"patient": np.repeat(np.arange(patients), counts).astype(str), "value": values})


def test_the_interval_covers_the_truth_where_one_that_forgets_patients_does_not() -> None:
    """150 simulated evaluations of 25 patients; the truth is 0. The naive one draws studies as if all were apart."""
    random = np.random.default_rng(4)
    ours, naive = [], []
    for _ in range(150):
        rows = clustered(random, 25, 1.0)
        low, high = bounds_by_patient(rows)
        assert low is not None and high is not None
        ours.append(low <= 0 <= high)
        values: npt.NDArray[np.float64] = rows["value"].to_numpy()
        half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
        naive.append(abs(values.mean()) <= half)
    assert np.mean(ours) > 0.87, "nominally 0.95; 25 patients are few"
    assert np.mean(naive) < 0.75


def test_the_same_rows_give_the_same_interval() -> None:
    rows = clustered(np.random.default_rng(5), 10, 1.0)
    mixed = rows.sample(frac=1.0, random_state=1)
    assert bounds_by_patient(rows) == pytest.approx(bounds_by_patient(mixed), rel=1e-12)
