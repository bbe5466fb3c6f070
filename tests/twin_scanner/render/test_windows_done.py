"""How far a render is, from its process to whoever waits: written now and then, and never in the way."""

from pathlib import Path

import pytest

from tests.fakes.clock import Clock
from twin_scanner.render.windows_done import EVERY_S, read_windows, writing_windows

pytestmark = pytest.mark.unit


def test_windows_are_written_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    result, clock = tmp_path / "result", Clock()
    report = writing_windows(result, clock.monotonic_s)
    report(1, 100)
    report(2, 100)
    assert read_windows(result) == (1, 100)
    clock.pass_s(EVERY_S)
    report(20, 100)
    report(21, 100)
    assert read_windows(result) == (20, 100)
    report(100, 100)
    assert read_windows(result) == (100, 100)
    writing_windows(result, clock.monotonic_s)
    assert read_windows(result) is None, "what an earlier try has left"


def test_a_folder_that_cannot_be_written_ends_no_render(tmp_path: Path) -> None:
    writing_windows(tmp_path / "nowhere" / "result")(10, 10)
