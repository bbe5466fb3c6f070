"""How studies and jobs are shown: the keys of `status --json` and `jobs list --json`, and the columns of the tables."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from twin_scanner.service.ledger import Delivery, Event, Work

COLUMNS: Final = ("study date", "accession", "description", "from")
APART: Final = (
    "{} instances of the study came again with another content under the same SOP Instance UIDs, perhaps a correction. "
    "The first content is what is translated, the other lies in .apart of the spool: compare both, and have a "
    "correction sent with new SOP Instance UIDs."
)


def as_json(work: "Work", now: datetime) -> dict[str, Any]:
    """One study or job; docs/status.md says what each key means."""
    job, study = work.job, work.study
    first_at = None if study is None else study.first_instance_at
    return {
        "standing": work.standing.value,
        "state": job.state.value if job is not None else study.state.value if study is not None else "",
        "job_id": None if job is None else job.job_id,
        "study_uid": job.study_uid if job is not None else study.study_uid if study is not None else "",
        "series_uid": None if job is None else job.series_uid,
        "study_date": _date(study.study_date) if study is not None else None,
        "accession_number": (study.accession_number or None) if study is not None else None,
        "study_description": (study.study_description or None) if study is not None else None,
        "calling_ae": (study.calling_ae or None) if study is not None else None,
        "node": work.node,
        "priority": work.priority,
        "instances": job.instance_count if job is not None else study.received if study is not None else 0,
        "evidence": job.evidence if job is not None else study.evidence if study is not None else "",
        "first_instance_at": moment(first_at),
        "last_instance_at": moment(None if study is None else study.last_instance_at),
        "made_at": moment(None if job is None else job.made_at),
        "updated_at": moment(None if job is None else job.updated_at),
        "step": work.step,
        "begun_at": moment(work.begun_at),
        "seconds": None if work.begun_at is None else round((now - work.begun_at).total_seconds(), 1),
        "windows_done": None if job is None else job.windows_done,
        "windows": None if job is None else job.windows,
        "next_try_at": moment(work.next_try_at) if work.next_try_at is not None and work.next_try_at > now else None,
        "attempts": job.attempts if job is not None else study.attempts if study is not None else 0,
        "reason": work.reason,
        "kept_apart": 0 if study is None else study.kept_apart,
        "deliveries": [_delivery(one, now) for one in work.deliveries],
    }


def _delivery(delivery: "Delivery", now: datetime) -> dict[str, Any]:
    outcome = delivery.outcome
    later = delivery.due_at is not None and delivery.due_at > now
    return {
        "destination": delivery.destination,
        "state": delivery.state.value,
        "required": delivery.required,
        "attempts": delivery.attempts,
        "next_try_at": moment(delivery.due_at) if later else None,
        "stored_at": moment(delivery.stored_at),
        "confirmed_at": moment(delivery.confirmed_at),
        "confirmed_by": delivery.confirmed_by,
        "instances": None if outcome is None else outcome.asked,
        "stored": None if outcome is None else outcome.stored,
        "reason": delivery.reason,
    }


def event_as_json(event: "Event") -> dict[str, Any]:
    """One line of a timeline."""
    return {
        "at": moment(event.at),
        "node": event.node,
        "who": event.who,
        "of": event.of_table,
        "what": event.what,
        "detail": event.detail,
    }


def known_by(work: "Work") -> list[str]:
    """By what the hospital knows the study: the cells of ``COLUMNS``."""
    study = work.study
    if study is None:
        return ["", "", "", ""]
    date = _date(study.study_date) or ""
    return [date, study.accession_number or "", study.study_description or "", study.calling_ae]


def name_of(work: "Work") -> str:
    """The beginning of the job's id, or the study's UID."""
    return work.job.job_id[:12] if work.job is not None else work.study.study_uid if work.study is not None else ""


def delivered_to(work: "Work") -> str:
    """Each destination with what became of its delivery, and when it confirmed."""
    said = []
    for one in work.deliveries:
        is_open = one.is_resent or one.confirmed_at is None
        at = "" if is_open else f" {short(one.confirmed_at)}"
        by = f" ({one.confirmed_by})" if one.confirmed_by and not one.is_resent else ""
        part = f" {one.outcome.stored} of {one.outcome.asked}" if not at and one.outcome is not None else ""
        said.append(f"{one.destination}: {one.state}{part}{at}{by}")
    return "; ".join(said)


def windows_of(work: "Work") -> str:
    """How far the networks of a render are; empty before they begin."""
    job = work.job
    return f"{job.windows_done} of {job.windows}" if job is not None and job.windows else ""


def moment(at: datetime | None) -> str | None:
    """As JSON has it."""
    return None if at is None else at.astimezone(UTC).isoformat()


def short(at: datetime | None) -> str:
    """As a table has it."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S}Z"


def _date(study_date: str | None) -> str | None:
    """A DA as a date of ISO 8601."""
    return f"{study_date[:4]}-{study_date[4:6]}-{study_date[6:]}" if study_date else None
