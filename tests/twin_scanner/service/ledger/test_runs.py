"""Runs of scheduled commands: begun, ended with their exit code, or interrupted, over restarts and nodes."""

from collections.abc import Callable

import pytest

from tests.fakes.clock import Clock
from twin_scanner.errors import Defect
from twin_scanner.service.ledger import Ledger, RunState

pytestmark = pytest.mark.record

Open = Callable[..., Ledger]


def test_a_run_is_known_to_every_node_with_its_end(url: str, ledger: Ledger, open_ledger: Open, clock: Clock) -> None:
    assert ledger.runs.last("retrain") is None
    run = ledger.runs.begin("retrain")
    assert (run.state, run.node, run.started_at) == (RunState.RUNNING, "node", clock())
    clock.pass_s(60.0)
    ledger.runs.finish(run, 3)
    last = open_ledger(url, "other").runs.last("retrain")
    assert last is not None
    assert (last.run_id, last.state, last.exit_code, last.ended_at) == (run.run_id, RunState.ENDED, 3, clock())
    assert ledger.runs.last("something else") is None


def test_a_run_that_we_ended_is_interrupted(ledger: Ledger) -> None:
    ledger.runs.finish(ledger.runs.begin("retrain"), -15, interrupted=True)
    last = ledger.runs.last("retrain")
    assert last is not None and last.state == RunState.INTERRUPTED
    with pytest.raises(Defect, match="cannot go from interrupted to ended"):
        ledger.runs.finish(last, 0)


def test_what_ran_when_its_node_died_is_interrupted_when_it_starts_again(
    url: str, ledger: Ledger, open_ledger: Open
) -> None:
    ledger.runs.begin("retrain")
    other = open_ledger(url, "other")
    other.runs.begin("backup")
    open_ledger(url)
    retrain, backup = ledger.runs.last("retrain"), ledger.runs.last("backup")
    assert retrain is not None and retrain.state == RunState.INTERRUPTED
    assert backup is not None and backup.state == RunState.RUNNING
