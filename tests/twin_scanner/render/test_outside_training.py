"""A CT's headers against its model's card, before any pixel is read.

Oracle: the extent of a series that was written with a known one.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.samples.saved_packages import saved_package
from tests.samples.small_ct import write_series
from twin_scanner.districts.choice import SegmenterChoice
from twin_scanner.errors import Rejected
from twin_scanner.models.card import read_card
from twin_scanner.render.outside_training import outside_training, states_ranges
from twin_scanner.render.request import RenderRequest

pytestmark = pytest.mark.unit


def request_of(folder: Path, ranges: dict[str, Any] | None) -> RenderRequest:
    """A render of 20 slices, 5 mm apart, by a model whose card states these ranges."""
    write_series(folder / "ct", slices=20, step_mm=5.0, PatientAge="076Y")
    stated = {} if ranges is None else {"ranges": ranges}
    model = saved_package(folder / "model", about={"training_data": {"kind": "store", **stated}})
    return RenderRequest(
        source=folder / "ct",
        result=folder / "result",
        made_at=datetime(2026, 3, 1, tzinfo=UTC),
        model=str(model),
        model_store=folder,
        segmenter=SegmenterChoice("landmarks"),
        allow_other_segmenter=False,
        missing_district="reject",
        device_serial_number="TS-1",
        accept_synthetic_ct=True,
    )


def test_headers_alone_say_what_lies_outside(tmp_path: Path) -> None:
    request = request_of(tmp_path, {"age_years": [18, 60], "coverage_mm": [300, 2000], "slice_spacing_mm": [1, 5]})
    age, coverage = outside_training(request)
    assert "age lies outside" in age
    assert "76" not in age
    assert "is 100 mm" in coverage


def test_a_card_without_ranges_asks_for_nothing(tmp_path: Path) -> None:
    request = request_of(tmp_path, None)
    assert not states_ranges(request)
    assert outside_training(request) == ()


def test_what_cannot_be_read_is_left_to_the_render(tmp_path: Path) -> None:
    request = request_of(tmp_path, {"age_years": [18, 60]})
    for file in sorted(request.source.iterdir())[3:5]:
        file.unlink()
    assert outside_training(request) == ()
    assert not states_ranges(replace(request, model="none"))


def test_a_card_of_unreadable_ranges_is_refused(tmp_path: Path) -> None:
    model = saved_package(tmp_path / "model", about={"training_data": {"ranges": {"age_years": [60, 18]}}})
    with pytest.raises(Rejected, match="ranges"):
        read_card(model)
