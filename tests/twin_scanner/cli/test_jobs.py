"""The verbs on jobs, on a ledger in which a test holds, fails and rejects: list, show, retry, release."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.samples.command_line import run
from twin_scanner.cli.jobs import RESEND_REASONS
from twin_scanner.service.ledger import (
    Destination,
    Ledger,
    NewJob,
    Outcome,
    Rendered,
    ResendReason,
    Result,
    State,
    StudyState,
)

pytestmark = pytest.mark.record

Verb = Callable[..., str]


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
    assert json.loads(verb("jobs", "show", job_id[:8], "--json"))["state"] == "held"
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


def test_each_delivery_is_shown_with_its_confirmation_its_warnings_and_what_is_outstanding(
    ledger: Ledger, verb: Verb, tmp_path: Path
) -> None:
    ledger.jobs.open(NewJob("1.2.1", "1.3", "1.4", "1" * 64, 20))
    job = ledger.jobs.claim()
    assert job is not None
    to = (Destination("pacs"), Destination("archive", required=False))
    ledger.rendered(job, Rendered("2.25.1", "m", (), Result({}, {}), to))
    stored, waiting = ledger.deliveries.claim("pacs"), ledger.deliveries.claim("archive")
    assert stored is not None and waiting is not None
    ledger.deliveries.confirmed(stored, "query", Outcome(3, 3, {"0xB000": ("1.1", "1.2")}))
    ledger.deliveries.note_outcome(waiting, Outcome(3, 1, refused={"0xC000": ("1.1",)}, not_taken=("1.2.840.66",)))
    ledger.deliveries.hold(waiting, "The configuration has no destination 'archive' any more.")
    pacs, archive = json.loads(verb("jobs", "show", job.job_id, "--json"))["deliveries"]
    assert (pacs["confirmed_by"], pacs["outcome"]["warnings"]) == ("query", {"0xB000": 2})
    assert (archive["state"], archive["required"], archive["outcome"]["outstanding"]) == ("held", False, 2)
    assert (archive["outcome"]["refused"], archive["outcome"]["not_taken"]) == ({"0xC000": 1}, ["1.2.840.66"])
    refused = run(tmp_path, "jobs", "release", job.job_id)
    assert refused.returncode == 1 and "release the job with --without archive" in refused.stderr.replace("\n", " ")
    assert verb("jobs", "release", job.job_id, "--without", "archive") == f"{job.job_id} done\n"


def test_contents_that_were_kept_apart_are_shown_with_what_to_do(ledger: Ledger, verb: Verb) -> None:
    ledger.studies.complete("1.2.1", "quiet period")
    study = ledger.studies.claim()
    assert study is not None
    ledger.studies.note_apart(study, 3)
    job = ledger.jobs.open(NewJob("1.2.1", "1.3", "1.4", "1" * 64, 20))
    shown = json.loads(verb("jobs", "show", job.job_id, "--json"))
    assert shown["kept_apart"]["instances"] == 3
    assert "have a correction sent with new SOP Instance UIDs" in shown["kept_apart"]["reason"]
    assert "study 1.2.1: 3 instances of the study came again with another content" in verb("jobs", "list")
    assert json.loads(verb("jobs", "list", "--json"))[0]["kept_apart"] == 3


def test_a_confirmed_delivery_is_sent_again_with_a_reason_that_the_timeline_keeps(
    ledger: Ledger, verb: Verb, tmp_path: Path
) -> None:
    ledger.jobs.open(NewJob("1.2.1", "1.3", "1.4", "1" * 64, 20))
    job = ledger.jobs.claim()
    assert job is not None
    ledger.rendered(job, Rendered("2.25.1", "m", (), Result({}, {}), (Destination("pacs"), Destination("gone"))))
    for name in ("pacs", "gone"):
        delivery = ledger.deliveries.claim(name)
        assert delivery is not None
        ledger.deliveries.confirmed(delivery, "query", Outcome(3, 3))
    words = ("jobs", "resend", job.job_id[:8], "--to")
    assert run(tmp_path, *words, "pacs").returncode == 2, "a reason is wanted"
    assert run(tmp_path, *words, "pacs", "--reason", "because").returncode == 2
    unknown = run(tmp_path, *words, "gone", "--reason", "lost")
    assert unknown.returncode == 1 and "no destination 'gone'" in unknown.stderr.replace("\n", " ")
    assert verb(*words, "pacs", "--reason", "restored") == f"{job.job_id} rendered\n"
    assert "destination pacs, reason restored" in " ".join(verb("jobs", "show", job.job_id).split())
    assert ledger.deliveries.claim("pacs") is not None


def test_the_reasons_of_the_verb_are_those_of_the_ledger() -> None:
    assert tuple(ResendReason) == RESEND_REASONS
