"""Quick settings: what is changed is a parameter of the benchmark, and the page says what it is."""

import inspect
import json
from pathlib import Path

import pytest

from benchmarks import console, dask, evaluation, ledger, memory, page, receipt, simulate, training, twin
from benchmarks.__main__ import NAMES
from benchmarks.figures import at_most
from benchmarks.quick import QUICK, options_of, words_of

pytestmark = pytest.mark.unit

MODULES = (training, evaluation, ledger, console, receipt, twin, dask, simulate, memory)


def test_a_quick_setting_changes_what_the_benchmark_takes() -> None:
    """segmentation's is an option of the command line."""
    assert QUICK.keys() <= set(NAMES) and QUICK.keys() - {module.NAME for module in MODULES} == {"segmentation"}
    for module in MODULES:
        quick = QUICK[module.NAME]
        assert quick.words and quick.options.keys() <= inspect.signature(module.measure).parameters.keys()
    assert not options_of("ledger", quick=False) and not words_of("ledger", quick=False)


def test_a_quick_result_counts_for_a_quick_run_alone_and_its_setting_stands_on_the_page(tmp_path: Path) -> None:
    asked: list[str] = []

    def run(name: str) -> str:
        asked.append(name)
        return at_most(name, "list of 50", 1.0, 5.0, "ms").line()

    for quick in (True, True, False, True):
        assert page.measured("ledger", tmp_path, run, quick=quick)
        if len(asked) == 1:
            assert "Quick setting: 10,000 jobs instead of 100,000." in page.page(tmp_path)
    assert len(asked) == 2, "the full result counts for a quick run too"
    assert "Quick setting" not in page.page(tmp_path)
    assert json.loads((tmp_path / "ledger.json").read_text())["minutes"] >= 0
