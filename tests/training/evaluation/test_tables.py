"""The tables: the paper's layout and numbers, what is beside them, and the words that a comparison allows."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.samples.known_cases import body_pet, case_of, of_patient, spot_label, with_spot
from training.evaluation import published
from training.evaluation.case import Row
from training.evaluation.rows_table import table_of
from training.evaluation.score import score
from training.evaluation.sentences import number_sentences, summary_sentences
from training.evaluation.statistics import Comparison, Scores, summary
from training.evaluation.tables import (
    RESEARCH_ONLY,
    Table,
    beyond_table,
    comparison_lines,
    comparison_table,
    comparisons,
    paper_tables,
    write_tables,
)

pytestmark = pytest.mark.unit

SPOT = (20, 12, 12)
PATIENTS = 6


@pytest.fixture(scope="module")
def scores() -> Scores:
    """Six patients; "near" misses the real PET by less than "far" does, everywhere and in each of them."""
    rows: list[Row] = []
    for patient in range(PATIENTS):
        real = with_spot(body_pet(patient), SPOT, 9.0)
        diagnosis = ("LYMPHOMA", "NEGATIVE")[patient % 2]
        for model, error in (("near#1", 0.1), ("near#2", 0.12), ("far", 0.4)):
            made = np.where(real > 0, real + np.float32(error * (1 + patient / 50)), real).astype(np.float32)
            case = of_patient(case_of(real, made, spot_label(SPOT)), f"p{patient}", diagnosis)
            rows += score(case, model)
    return Scores(table_of(rows))


def cells(table: Table, first: str, metric: str) -> tuple[str, ...]:
    (found,) = [row for row in table.rows if row[:2] == (first, metric)]
    return found


def test_the_papers_tables_have_its_rows_and_its_numbers_beside_ours(scores: Scores) -> None:
    one, two, three = paper_tables(scores, ["near", "far"])
    assert [row[0] for row in one.rows[::3]] == ["Head", "Trunk", "Arms", "Legs", "Whole body"]
    assert one.header[:4] == ("District", "Metric", "near", "far")
    head = cells(one, "Head", "MAE ↓")
    assert head[4:] == ("0.023 ± 0.005", "0.025 ± 0.005", "0.044 ± 0.064", "0.050 ± 0.070")
    assert head[2:4] == ("0.0058 ± 0.0002 (SE 0.0001), n 6 / 6 / 2", "0.0210 ± 0.0007 (SE 0.0003), n 6 / 6 / 1")
    assert cells(two, "Lesions", "SSIM ↑")[4] == "0.80 ± 0.02"
    assert {row[0] for row in three.rows} == {"Lymphoma", "Negative controls"}, "nobody here has the other two"
    assert ", n 3 / 3 / 2" in cells(three, "Lymphoma", "PSNR, dB ↑")[2]
    assert "not directly comparable" in one.note


def test_the_published_numbers_are_the_papers(shared: Path) -> None:
    text = (shared / "paper.txt").read_text("utf-8")
    tables = text[text.index("TABLE I") : text.index("VI. CONCLUSIONS")]
    printed = re.findall(r"\d+\.\d+ ± \d+\.\d+", tables)
    ours = [
        number
        for known in (published.DISTRICTS, published.LESIONS, published.DIAGNOSES)
        for rows in known.values()
        for row in rows
        for number in row
    ]
    assert ours == printed and len(ours) == 4 * 3 * (5 + 1 + 4)


def test_what_lies_beyond_the_paper_has_intervals_by_patient(scores: Scores) -> None:
    table = beyond_table(scores, ["near", "far"])
    bias = cells(table, "Lesions", "SUVmax bias")
    assert re.fullmatch(r"0\.1\d* \[0\.1\d* to 0\.1\d*\], n 6 / 6", bias[2]), bias[2]
    assert cells(table, "Lesions", "lesion recall, SUV 4 ↑")[2].startswith("1")
    assert cells(table, "Whole body", "false uptake in negatives, ml ↓")[2] == "0, n 3 / 3"
    assert not [row for row in table.rows if "organ" in row[0].lower()]


def test_beside_the_papers_tables_stand_the_mean_above_suv_4_and_what_ssim_does_on_a_grid(scores: Scores) -> None:
    """By hand: the spot is at SUV 9 and 64 voxels, the model is 0.1 to 0.12 above it."""
    table = beyond_table(scores, ["near", "far"])
    for region in ("Trunk", "Whole body", "Lesions"):
        row = cells(table, region, "synthesised / real mean above SUV 4 (1 is right)")
        assert row[2].startswith("1.01 [1.01 to 1.01]") and row[3].startswith("1.05")
    assert not [row for row in table.rows if row[0] == "Head" and "above SUV 4 (1" in row[1]]
    for note in (table.note, *(one.note for one in paper_tables(scores, ["near"]))):
        assert "Scored on the real PET's own grid: 4 x 4 x 4 mm (6 studies)." in note
        assert "compare SSIM on one grid alone" in note


def test_an_organ_has_its_ratio_and_its_bias() -> None:
    rows = [
        Row("near", f"s{n}", f"p{n}", "", "organ:kidney_left", 0, metric, "", value, 9)
        for n in range(2)
        for metric, value in (("suv_mean_ratio", 0.4), ("suv_mean_bias", -1.5))
    ]
    table = beyond_table(Scores(table_of(rows)), ["near"])
    assert [row[:3] for row in table.rows] == [
        ("Kidney left", "synthesised / real mean (1 is right)", "0.40, n 2 / 2"),
        ("Kidney left", "SUVmean bias", "-1.5, n 2 / 2"),
    ]


def test_lesions_that_are_clipped_are_counted_in_all() -> None:
    """By hand: maxima of 30 and 9 in one study, of 21 in another; two seeds of a model see the same lesions."""
    third = (26, 24, 20)
    rows = []
    for seed in (1, 2):
        for study, spots in (("p1", ((SPOT, 30.0), (third, 9.0))), ("p2", ((SPOT, 21.0),))):
            real = body_pet()
            for corner, suv in spots:
                real = with_spot(real, corner, suv)
            case = case_of(real, real, spot_label(*(corner for corner, _ in spots)))
            rows += score(of_patient(case, study, ""), f"near#{seed}")
    table = beyond_table(
        Scores(table_of([*rows, Row("far", "s", "p", "", "body", 0, "mae", "", 0.1, 9)])), ["near", "far"]
    )
    assert cells(table, "Lesions", "lesions above SUV 20, in all")[2:] == ("2 of 3", "–")
    assert cells(table, "Lesions", "lesions above SUV 20, per study")[2:] == ("1, n 2 / 2", "–")


def test_a_comparison_says_what_is_shown_and_nothing_more(scores: Scores) -> None:
    found = comparisons(scores, ["near", "far"])
    table = comparison_table("near", "far", found["far"])
    line = cells(table, "Trunk", "MAE ↓")
    assert float(line[4]) < 0 and line[-1] == "6 / 6"
    said = summary_sentences("near", found)
    assert said[0] == (
        "No difference of near from far in mean absolute error is shown in: head (n 6), trunk (n 6), arms (n 6), "
        "legs (n 6), whole body (n 6), lesions (n 6)."
    ), "six patients are too few for Wilcoxon's test after Holm's correction"
    assert not [sentence for sentence in said if "better" in sentence or "worse" in sentence]
    assert "nothing clinical follows" in said[-1]


def test_a_summary_begins_with_each_models_numbers(scores: Scores) -> None:
    near, far = number_sentences(scores, ["near", "far"])
    body = summary(scores, "near", "body", "mae_suv")
    assert body is not None
    begins = f"near: mean absolute error SUV {body.mean:.3f} in the whole body (head "
    assert near.startswith(begins) and " dB, SSIM " in near and near.endswith("; 6 studies of 6 patients.")
    assert far.startswith("far: ") and number_sentences(scores, ["nobody"]) == []


def compared(metric: str, difference: float, **other: object) -> Comparison:
    sure = Comparison("trunk", metric, "far", difference, difference - 0.1, difference + 0.1, 1.0, 1.0 - difference,
                      1e-5, 1e-5, 20, 18, 0, 1e-3, 1e-3)  # fmt: skip
    return dataclasses.replace(sure, **other)  # type: ignore[arg-type]


def test_what_is_better_depends_on_the_metric_and_needs_both_tests_and_the_interval() -> None:
    def told(*lines: Comparison) -> list[str]:
        return summary_sentences("near", {"far": lines})[:-1]

    assert told(compared("mae", -0.5)) == [
        "near has a lower (better) mean absolute error than far in: trunk (n 18)."
    ]  # fmt: skip
    assert told(compared("psnr", -0.5)) == ["near has a lower (worse) PSNR than far in: trunk (n 18)."]
    assert told(compared("ssim", 0.5)) == ["near has a higher (better) SSIM than far in: trunk (n 18)."]
    assert told(compared("false_positives", 0.5))[0].startswith("near has a higher (worse) number of false positives")
    for unsure in ({"t_holm": 0.2}, {"wilcoxon_holm": 0.2}, {"high": 0.1}, {"t_holm": None}):
        assert told(compared("mae", -0.5, **unsure))[0].startswith("No difference of near from far"), unsure
    few = compared("mae", -0.5, patients=4, t_p=None, wilcoxon_p=None, t_holm=None, wilcoxon_holm=None)
    assert told(few) == ["4 patients are too few to compare near with far: 5 are needed."]
    assert told(few, compared("psnr", 0.5))[0] == (
        "Too few patients to compare near with far in mean absolute error: trunk (n 4)."
    )
    assert summary_sentences("near", {}) == []


def test_where_enough_patients_agree_the_better_model_is_named() -> None:
    """Twenty patients, an error of 0.010 against 0.020 in the trunk and the same one in the head."""
    random = np.random.default_rng(3)
    rows = [
        Row(model, f"s{n}", f"p{n}", "", region, 0, "mae", "", float(error + random.normal(0, 0.001)), 9)
        for n in range(20)
        for model, errors in (("near", {"head": 0.01, "trunk": 0.01}), ("far", {"head": 0.01, "trunk": 0.02}))
        for region, error in errors.items()
    ]
    said = summary_sentences("near", comparisons(Scores(table_of(rows)), ["near", "far"]))
    assert said[:2] == [
        "near has a lower (better) mean absolute error than far in: trunk (n 20).",
        "No difference of near from far in mean absolute error is shown in: head (n 20).",
    ]


def test_studies_that_one_model_alone_was_scored_on_are_counted_in_the_note() -> None:
    rows = [
        Row(model, f"s{n}", f"p{n}", "", "head", 0, "mae", "", 0.1 * (n + 1), 9)
        for model, numbers in (("near", range(4)), ("far", range(2, 7)))
        for n in numbers
    ]
    found = comparisons(Scores(table_of(rows)), ["near", "far"])["far"]
    assert "one model alone has a number there: Head, MAE ↓: 5." in comparison_table("near", "far", found).note
    same = [dataclasses.replace(one, left_out=0) for one in found]
    assert "Both were scored on the same studies." in comparison_table("near", "far", same).note


def test_comparisons_stand_in_a_file_in_full(scores: Scores, tmp_path: Path) -> None:
    found = comparisons(scores, ["near", "far"])
    write_tables(tmp_path, [], scores, ["near", "far"], found)
    lines = pd.read_csv(tmp_path / "comparisons.csv")
    assert list(lines["difference"]) == pytest.approx([one.difference for one in found["far"]], rel=1e-12)
    assert set(lines["model"]) == {"near"} and set(lines["baseline"]) == {"far"} and "t_holm" in lines
    assert comparison_lines("near", {}).empty and "low" in comparison_lines("near", {})


def test_the_files_hold_every_table_and_every_number(scores: Scores, tmp_path: Path) -> None:
    models = ["near", "far"]
    write_tables(tmp_path, [*paper_tables(scores, models), beyond_table(scores, models)], scores, models)
    text = (tmp_path / "tables.md").read_text("utf-8")
    assert text.startswith(RESEARCH_ONLY) and text.count("\n## ") == 4 and "0.044 ± 0.064" in text
    assert all(line.count("|") >= 5 for line in text.splitlines() if line.startswith("|"))
    lines = pd.read_csv(tmp_path / "tables.csv", keep_default_na=False)
    one = lines[(lines.model == "near") & (lines.region == "head") & (lines.metric == "mae")].iloc[0]
    assert float(one["mean"]) == pytest.approx(0.0055, rel=0.1) and one["seeds"] == 2
    assert set(lines[lines.region == "body"].diagnosis) == {"", "LYMPHOMA", "NEGATIVE"}
