"""The page of all figures: a run goes on where it stood, and what falls short names its cause."""

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import page
from benchmarks.causes import FSYNCS, cause_of
from benchmarks.figures import Figure, at_most

pytestmark = pytest.mark.unit


def lines(*figures: Figure) -> str:
    return "\n".join(figure.line() for figure in figures)


def test_what_was_measured_is_not_measured_again_and_a_failure_is_kept_nowhere(tmp_path: Path) -> None:
    asked: list[str] = []

    def run(name: str) -> str:
        asked.append(name)
        if name == "twin":
            raise subprocess.CalledProcessError(1, name)
        return lines(at_most(name, "list of 50", 1.0, 5.0, "ms"))

    kept = tmp_path / "kept"
    assert page.measured("ledger", kept, run) and page.measured("ledger", kept, run)
    assert not page.measured("twin", kept, run)
    assert asked == ["ledger", "twin"] and [file.name for file in kept.iterdir()] == ["ledger.json"]
    assert page.measured("ledger", kept, run, again=True) and len(asked) == 3
    text = page.page(kept)
    assert "| list of 50 | 1 ms | goal | 5 ms | 5.00 |  |" in text
    assert "twin" in text.splitlines()[-1], "what was not measured is said"


def test_a_goal_that_was_missed_stands_with_its_cause_or_without_one(tmp_path: Path) -> None:
    known = at_most("latency", "all but the networks", 15.0, 5.0, "s")
    strange = at_most("latency", "something new", 15.0, 5.0, "s")
    page.measured("latency", tmp_path, lambda name: lines(known, strange))
    known_row, strange_row = (row for row in page.page(tmp_path).splitlines() if "0.33 behind" in row)
    assert page.NO_CAUSE not in known_row and known_row.count("|") == 7
    assert page.NO_CAUSE in strange_row


def test_a_bar_in_a_figures_name_ends_no_cell(tmp_path: Path) -> None:
    """The memory benchmark's rows had a cell too many."""
    page.measured("memory", tmp_path, lambda name: at_most(name, "|predicted - measured|", 0.1, 0.25, "").line())
    (row,) = (row for row in page.page(tmp_path).splitlines() if "predicted" in row)
    assert row.replace("\\|", "").count("|") == 7


def test_a_cause_is_found_by_words_of_the_figure_whatever_its_counts() -> None:
    """Those of 200 slices are not those of 600, and had none."""
    for slices in (200, 600):
        assert cause_of("receipt", f"{slices} CT slices of 512 x 512, one sender") == FSYNCS
    assert not cause_of("latency", "something new") and not cause_of("twin", "600 CT slices of 512 x 512")


def test_every_missed_goal_of_the_kept_page_names_its_cause(project: Path) -> None:
    text = (project / "docs" / "performance.md").read_text("utf-8")
    assert text.startswith(page.HEAD)
    assert page.NO_CAUSE not in text


def test_the_machine_is_its_processor_and_its_cores_alone() -> None:
    assert page.machine().endswith(" cores")
    assert json.dumps(page.versions()).count("torch") == 1
