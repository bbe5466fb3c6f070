"""What a worker process does before its first render."""

import gc
import sys
from pathlib import Path

import pytest

from twin_scanner.districts.choice import SegmenterChoice
from twin_scanner.errors import Misconfigured
from twin_scanner.pictures import preview
from twin_scanner.render import render
from twin_scanner.render.in_worker import load_in_worker


def test_the_model_that_was_loaded_before_is_the_one_that_renders_have(tmp_path: Path) -> None:
    render._loaded.cache_clear()
    load_in_worker("champion", tmp_path, SegmenterChoice())
    package = render.load_model("champion", tmp_path)
    assert render._loaded.cache_info().hits == 1
    assert package.card.phantom_only
    assert "twin_scanner.districts.landmarks.segmenter" in sys.modules


def test_what_stays_is_ready_to_draw_and_no_work_of_the_garbage_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[bool] = []
    monkeypatch.setattr(preview, "load_drawing", lambda: drawn.append(True))
    gc.unfreeze()
    try:
        load_in_worker("champion", tmp_path, SegmenterChoice())
        assert drawn == [True]
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()


def test_a_model_that_is_not_there_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="nowhere"):
        load_in_worker("nowhere", tmp_path, SegmenterChoice())
