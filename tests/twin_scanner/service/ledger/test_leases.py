"""Leases: no time in them, so no clock takes one away; a holder is dead when its beat was seen to stand still."""

from collections.abc import Callable

import pytest

from tests.fakes.clock import Clock
from twin_scanner.errors import Misconfigured
from twin_scanner.service.ledger import LeaseLost, Ledger, NewJob
from twin_scanner.service.ledger.ledger import NodeLost

pytestmark = pytest.mark.record

Open = Callable[..., Ledger]


@pytest.fixture
def other(url: str, ledger: Ledger, open_ledger: Open) -> Ledger:
    """A second node on the same ledger."""
    return open_ledger(url, "other")


def watch_s(ledger: Ledger, clock: Clock, seconds: float) -> None:
    """Let a node's timer run for so long."""
    for _ in range(round(seconds / ledger.leases.beat_s)):
        clock.pass_s(ledger.leases.beat_s)
        ledger.beat()


def test_one_owner_has_a_lease_until_it_gives_it_back(ledger: Ledger, other: Ledger) -> None:
    lease = ledger.leases.take("retrain", "schedule")
    assert lease is not None
    assert ledger.leases.take("retrain", "somebody else here") is None
    assert other.leases.take("retrain", "schedule") is None
    ledger.leases.give_back(lease)
    assert other.leases.take("retrain", "schedule") is not None
    assert ledger.leases.take("retrain", "schedule") is None


def test_a_holder_that_beats_keeps_its_lease_whatever_the_clocks_say(
    ledger: Ledger, other: Ledger, clock: Clock
) -> None:
    lease = ledger.leases.take("retrain", "schedule")
    assert lease is not None
    for jump_s in (3600.0, -86400.0):
        clock.jump_s(jump_s)
        for _ in range(30):
            ledger.beat()
            watch_s(other, clock, other.leases.beat_s)
            assert other.leases.take("retrain", "schedule") is None
    ledger.leases.renew(lease)


def test_a_dead_holders_lease_is_taken_when_it_was_watched_for_its_whole_time(
    ledger: Ledger, other: Ledger, clock: Clock
) -> None:
    lease = ledger.leases.take("retrain", "schedule")
    assert lease is not None
    watch_s(other, clock, 108.0)
    assert other.leases.take("retrain", "schedule") is None
    watch_s(other, clock, 24.0)
    assert other.leases.take("retrain", "schedule") is not None
    with pytest.raises(LeaseLost, match="The lease 'retrain' was taken over"):
        ledger.leases.renew(lease)
    assert lease in ledger.leases.beat()


def test_a_watcher_that_slept_has_not_watched(ledger: Ledger, other: Ledger, clock: Clock) -> None:
    """A stopped process or a sleeping machine comes back before the holder had a chance to beat."""
    ledger.leases.take("retrain", "schedule")
    other.beat()
    clock.pass_s(86400.0)
    assert other.leases.take("retrain", "schedule") is None
    ledger.beat()
    watch_s(other, clock, 60.0)
    assert other.leases.take("retrain", "schedule") is None


def test_a_node_that_starts_again_frees_what_its_earlier_process_held(
    url: str, ledger: Ledger, open_ledger: Open
) -> None:
    ledger.leases.take("retrain", "schedule")
    assert open_ledger(url).leases.take("retrain", "schedule") is not None


def test_two_scanners_of_one_name_do_not_run_side_by_side(
    url: str, ledger: Ledger, open_ledger: Open, clock: Clock
) -> None:
    second = open_ledger(url, holder=None)

    def sleep(seconds: float) -> None:
        clock.pass_s(seconds)
        ledger.beat()

    with pytest.raises(Misconfigured, match=r"Another scanner named node runs .* give each its own node\.name"):
        second.leases.take_node("another folder", sleep)


def test_a_name_whose_scanner_died_elsewhere_is_taken_after_watching_it(
    url: str, ledger: Ledger, open_ledger: Open, clock: Clock
) -> None:
    ledger.jobs.open(NewJob("1.2", "1.9", "1.2.3", "a" * 64, 20))
    second = open_ledger(url, holder=None)
    began_s = clock.seconds
    assert second.leases.take_node("another folder", clock.pass_s) is not None
    assert clock.seconds - began_s >= 120.0
    with pytest.raises(NodeLost, match="took the name node over"):
        ledger.beat()
