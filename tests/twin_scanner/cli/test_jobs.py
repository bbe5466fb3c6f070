"""The verbs on jobs, on a ledger in which a test holds, fails and rejects: list, show, retry, release."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.samples.command_line import run
from twin_scanner.service.ledger import Ledger, NewJob, State, StudyState, migrate

pytestmark = pytest.mark.record

NODE = "twin-scanner-1"
Verb = Callable[..., str]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """The ledger that the default configuration finds in the test's folder."""
    folder = tmp_path / "twin-scanner-data"
    folder.mkdir()
    url = f"sqlite:///{folder / 'ledger.sqlite'}"
    migrate(url)
    opened = Ledger(url, node=NODE)
    yield opened
    opened.close()


@pytest.fixture
def verb(tmp_path: Path, ledger: Ledger) -> Verb:
    """Runs `twin-scanner` with these words and returns what it printed; it is to succeed."""

    def succeed(*words: str) -> str:
        done = run(tmp_path, *words)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return succeed


def job_that(ledger: Ledger, end: Callable[..., None], number: int, reason: str) -> str:
    ledger.jobs.open(NewJob(f"1.2.{number}", "1.3", "1.4", f"{number:064x}", 20))
    job = ledger.jobs.claim()
    assert job is not None
    end(job, reason)
    return job.job_id


def test_a_held_job_is_shown_with_its_reason_and_released(ledger: Ledger, verb: Verb) -> None:
    job_id = job_that(ledger, ledger.jobs.hold, 1, "Two patients have this identifier.")
    assert "Two patients have this identifier." in verb("jobs", "list", "--state", "held")
    assert json.loads(verb("jobs", "show", job_id[:8]))["state"] == "held"
    assert verb("jobs", "release", job_id[:8]) == f"{job_id} queued\n"
    assert ledger.jobs.find(job_id).state == State.QUEUED


def test_a_held_study_is_listed_and_released_by_its_uid(ledger: Ledger, verb: Verb) -> None:
    ledger.studies.complete("1.2.840.1", "quiet period")
    study = ledger.studies.claim()
    assert study is not None
    ledger.studies.hold(study, "Reading this study's headers never ended.")
    assert "study 1.2.840.1 is held: Reading this study's headers never ended." in verb("jobs", "list")
    verb("jobs", "release", "1.2.840.1")
    assert ledger.studies.of_node(StudyState.HELD) == []
    assert ledger.studies.claim() is not None


def test_jobs_are_retried_by_their_reason_and_all_of_them(ledger: Ledger, verb: Verb) -> None:
    failed = job_that(ledger, ledger.jobs.fail, 1, "The report cannot be read.")
    rejected = job_that(ledger, ledger.jobs.reject, 2, "The slice at z = 3 mm is missing.")
    assert verb("jobs", "retry", "--reason", "z = 3 mm") == f"{rejected} queued\n"
    assert ledger.jobs.find(failed).state == State.FAILED
    assert verb("jobs", "retry", "--all") == f"{failed} queued\n"
