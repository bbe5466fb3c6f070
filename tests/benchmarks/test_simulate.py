"""A small day through the real ledger: an archive that is down delays its own deliveries alone, and loses nothing."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.simulate import (
    ARCHIVE,
    DAYTIME_S,
    DOWN_S,
    HOUR_S,
    NIGHT_SHARE,
    SHARES,
    STAGES_S,
    Clock,
    Day,
    arrivals,
    check,
    measure,
    waits_s,
)
from twin_scanner.errors import Misconfigured
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger import Ledger, Priority, migrate

pytestmark = pytest.mark.record

ALONE_S = sum(STAGES_S[stage] for stage in ("evidence", "intake", "render", "pacs"))


@pytest.fixture
def day(tmp_path: Path) -> Iterator[Day]:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    migrate(url)
    clock = Clock()
    with closing(Ledger(url, node="node", who="test", now=clock, monotonic_s=clock.monotonic_s)) as ledger:
        ledger.enter("folder")
        yield Day(ledger, clock, JobFolders(tmp_path / "jobs"), 1)


def test_an_urgent_ct_goes_before_what_came_earlier_and_an_archive_that_is_down_delays_itself_alone(day: Day) -> None:
    begin_s = DOWN_S[0] + 60.0
    came = [(begin_s, Priority.ROUTINE), (begin_s + 1.0, Priority.ROUTINE), (begin_s + 2.0, Priority.URGENT)]
    day.run(came, lambda done, total: None)
    check(day.ledger, day.sent, len(came))
    waits = waits_s(day.ledger)
    first, second = sorted(waits[Priority.ROUTINE, "pacs"])
    (urgent,) = waits[Priority.URGENT, "pacs"]
    assert first == pytest.approx(ALONE_S) and urgent < second
    assert all(wait > DOWN_S[1] - begin_s - 2.0 for (_, to), each in waits.items() if to == ARCHIVE for wait in each)


def test_what_was_lost_or_made_twice_fails_loudly(day: Day) -> None:
    day.run([(0.0, Priority.ROUTINE)], lambda done, total: None)
    with pytest.raises(RuntimeError, match="1 were lost"):
        check(day.ledger, day.sent, 2)
    with pytest.raises(RuntimeError, match="3 were made twice"):
        check(day.ledger, Counter(dict.fromkeys(day.sent, 2)), 1)


def test_the_page_on_scale_computes_with_the_seconds_that_are_simulated(project: Path) -> None:
    page = (project / "docs" / "scale.md").read_text("utf-8")
    assert {
        name: float(seconds) for name, seconds in re.findall(r"^\| `(\w+)` \| ([0-9.]+) \|", page, re.M)
    } == STAGES_S
    rows = re.findall(r"^\| [\w ,]+ \| ([\d,]+) \| ([\d,]+) \| (\d+)(?: at 70 %)? \| (\d+) % \|$", page, re.M)
    by_day = 1 - SHARES[Priority.BACKFILL]
    hours = (DAYTIME_S[1] - DAYTIME_S[0]) / HOUR_S
    for a_day, an_hour, at_a_time, busy in (map(int, (text.replace(",", "") for text in row)) for row in rows):
        busiest = by_day * a_day * ((1 - NIGHT_SHARE) / hours + NIGHT_SHARE / 24)
        assert an_hour == pytest.approx(busiest, rel=0.01, abs=1)
        assert busy == pytest.approx(100 * busiest * STAGES_S["render"] / HOUR_S / at_a_time, abs=1)
    assert [int(row[0].replace(",", "")) for row in rows] == [200, 10_000, 1_000_000]


def test_a_database_that_holds_jobs_is_not_simulated_on(day: Day, tmp_path: Path) -> None:
    day.run([(0.0, Priority.ROUTINE)], lambda done, total: None)
    with pytest.raises(Misconfigured, match="name an empty one"):
        measure(days={"a day": (1, 1)}, url=f"sqlite:///{tmp_path / 'ledger.sqlite'}")


def test_a_day_is_the_same_for_the_same_seed() -> None:
    assert arrivals(50, 1) == arrivals(50, 1) != arrivals(50, 2)
    assert [at_s for at_s, _ in arrivals(50, 1)] == sorted(at_s for at_s, _ in arrivals(50, 1))
