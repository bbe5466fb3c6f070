"""The verb on the real pair: tables, parquet and a report that a browser shows and that says what the model knows."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peers.browser import browser
from tests.samples.command_line import run
from training.evaluation.rows_table import read_table

pytestmark = [pytest.mark.system, pytest.mark.long]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """thorax_petct, an examination without annotations, judged by the demonstration model."""
    folder = tmp_path_factory.mktemp("evaluated")
    done = run(
        folder, "evaluate", "--model", "champion", "--dataset", str(shared_data / "thorax_petct"), "--out", "out"
    )
    assert done.returncode == 0, done.stderr
    numbers, *_, last = done.stdout.strip().splitlines()
    assert re.match(r"\S+: mean absolute error SUV \d\.\d{3} in the whole body \(head .*PSNR .* dB, SSIM", numbers)
    assert last == "out: studies 1, patients 1, refused 0"
    return folder / "out"


def test_every_region_in_view_is_measured(result: Path) -> None:
    table = read_table(result / "metrics.parquet")
    assert {"body", "head", "trunk", "arms"} <= set(table["region"]) and "legs" not in set(table["region"])
    errors = table[table["metric"] == "mae_suv"].set_index("region")["value"]
    assert errors.between(0.05, 3.0).all()
    text = (result / "tables.md").read_text("utf-8")
    assert "| Whole body | MAE ↓ |" in text and "0.020 ± 0.005" in text and "| Legs |" not in text


def test_the_report_says_in_words_that_the_model_knows_phantoms_only(
    result: Path, peer: Callable[[str], str], tmp_path: Path, shared_data: Path
) -> None:
    with browser(peer("chromium"), tmp_path) as opened:
        seen = opened.open(result / "report.html", 1280)
        text = str(opened.value("document.body.innerText"))
        pictures = opened.value("[...document.images].map(i => i.naturalWidth > 0)")
    assert (seen.console, seen.outside) == ([], [])
    assert "The model has seen phantoms only" in text and "not for diagnosis" in text
    assert len(pictures) >= 3 and all(pictures)
    assert "ACRIN" not in text and str(shared_data) not in text


def test_a_users_mistake_is_one_sentence(tmp_path: Path) -> None:
    for words, sentence in (
        (("--model", "nobody", "--dataset", ".", "--out", "x"), "nobody"),
        (("--model", "champion", "--dataset", "none", "--out", "x"), "none does not exist"),
        (("--model", "champion", "--baseline", "champion", "--dataset", ".", "--out", "x"), "give each model once"),
    ):
        done = run(tmp_path, "evaluate", *words, timeout_s=300)
        assert done.returncode == 1 and sentence in done.stderr and "Traceback" not in done.stderr
        assert done.stdout == ""
