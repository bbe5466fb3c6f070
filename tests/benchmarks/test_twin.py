"""The benchmark of the embedded store on a small one: what it fills is a record, and each figure is there."""

from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import twin
from twin_record.embedded import EmbeddedStore
from twin_record.timeline import timeline_of

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin, "SLICES", 2)
    monkeypatch.setattr(twin, "REPEATS", 1)


def test_the_copies_are_records_of_patients_of_their_own(tmp_path: Path) -> None:
    twin._fill(tmp_path / "store.sqlite", 3)
    with closing(EmbeddedStore(tmp_path / "store.sqlite", twin.SITE)) as store:
        timelines = [timeline_of(bundle) for bundle in store.records()]
    assert [len(timeline.scans) for timeline in timelines] == [twin.STUDIES] * 3
    assert all(scan.synthetic[0].model == "benchmark" for timeline in timelines for scan in timeline.scans)
    assert len({scan.study_uid for timeline in timelines for scan in timeline.scans}) == 3 * twin.STUDIES


def test_every_figure_is_measured() -> None:
    figures = twin.measure(few=1, many=2)
    assert [figure.unit for figure in figures] == ["ms", "ms", "ms", "ms", "kB"]
    assert all(figure.name == "twin" and figure.value >= 0 for figure in figures)
