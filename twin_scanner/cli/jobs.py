"""The verbs on the jobs of the ledger."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from twin_scanner.cli.options import AsJson, ConfigFile, opened_ledger, read_settings
from twin_scanner.cli.output import print_pairs, print_table
from twin_scanner.cli.status import Since, Watch, watch
from twin_scanner.cli.work_table import APART, COLUMNS, as_json, event_as_json, known_by, short

if TYPE_CHECKING:
    from pathlib import Path

    from twin_scanner.service.ledger import Delivery, Job, Ledger, Work

jobs_cli = typer.Typer(help="List, show, retry, release and send again the jobs in the ledger.", no_args_is_help=True)
RESEND_REASONS: Final = ("lost", "restored", "incomplete", "damaged", "requested")
"""Those of the ledger's ``ResendReason``, which is not imported before a verb runs."""
JOB_HELP = "The job's id, or its first characters."
JobId = Annotated[str, typer.Argument(metavar="JOB", help=JOB_HELP)]
Held = Annotated[str, typer.Argument(metavar="JOB", help=f"{JOB_HELP[:-1]}; or the UID of a held study.")]


@jobs_cli.command("list")
def jobs_list(
    since: Since = None,
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            help="List only jobs in this state: queued, rendered, done, held, rejected, failed or superseded.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The most jobs that are listed.")] = 1000,
    watching: Watch = False,
    config: ConfigFile = None,
    print_json: AsJson = False,
) -> None:
    """List the newest jobs, their states and reasons; below them studies that are held or came with two contents."""
    from twin_scanner.service.ledger import State

    if state is not None and state not in tuple(State):
        raise typer.BadParameter(f"choose one of {', '.join(State)}", param_hint="--state")
    chosen, moment_since = State(state) if state else None, since.replace(tzinfo=UTC) if since else None
    with opened_ledger(config) as ledger:

        def show() -> None:
            works = ledger.overview.jobs(limit, since=moment_since, state=chosen)
            if print_json:
                now = datetime.now(UTC)
                rows = [{**_values(work.job), **as_json(work, now)} for work in works]
                print(json.dumps(rows, indent=None if watching else 1), flush=True)
            else:
                _print_list(ledger, works, with_held=chosen in (None, State.HELD))

        watch(show, clear=watching and not print_json and sys.stdout.isatty()) if watching else show()


def _print_list(ledger: "Ledger", works: "Sequence[Work]", *, with_held: bool) -> None:
    from twin_scanner.service.ledger import Standing, StudyState

    rows = []
    for work in works:
        job = work.job
        assert job is not None
        running = f", {work.step} runs" if work.standing == Standing.RUNNING else ""
        rows.append([job.job_id[:12], f"{job.state}{running}", short(job.updated_at), *known_by(work)])
        rows[-1] += [job.series_uid, str(job.attempts), work.reason]
    print_table(["job", "state", "since", *COLUMNS, "CT series", "attempts", "reason"], rows)
    for study in ledger.studies.of_node(StudyState.HELD) if with_held else []:
        print(f"study {study.study_uid} is held: {study.reason}")
    apart = {work.study.study_uid: work.study.kept_apart for work in works if work.study is not None}
    for study_uid, count in apart.items():
        if count:
            print(f"study {study_uid}: {APART.format(count)}")


@jobs_cli.command("show")
def jobs_show(job_id: JobId, config: ConfigFile = None, print_json: AsJson = False) -> None:
    """Print one job: its study, reasons, deliveries and what confirms each, and its timeline."""
    with opened_ledger(config) as ledger:
        (work,) = ledger.overview.of([ledger.jobs.find(job_id)])
        events = ledger.overview.timeline(work)
    now = datetime.now(UTC)
    shown = {**_values(work.job), **as_json(work, now)}
    shown["deliveries"] = [_shown(delivery) for delivery in work.deliveries]
    apart = shown.pop("kept_apart")
    if apart:
        shown["kept_apart"] = {"instances": apart, "reason": APART.format(apart)}
    if print_json:
        print(json.dumps({**shown, "timeline": [event_as_json(event) for event in events]}, indent=1))
        return
    _print_job(work, shown)
    print()
    print_table(
        ["when", "who", "of", "what", "detail"],
        [[short(e.at), e.who, e.of_table, e.what, _detail(e.detail)] for e in events],
    )


def _print_job(work: "Work", shown: dict[str, Any]) -> None:
    """A job for a person: only what is known of it, then its deliveries and the series that were not chosen."""
    lists = ("deliveries", "skipped", "kept_apart")
    print_pairs({name: str(value) for name, value in shown.items() if name not in lists and value not in (None, "")})
    print()
    columns = ["destination", "state", "stored", "confirmed", "by", "attempts", "outstanding", "reason"]
    rows = []
    for one in work.deliveries:
        outstanding = "" if one.outcome is None else f"{one.outcome.asked - one.outcome.stored} of {one.outcome.asked}"
        rows.append([one.destination, one.state.value, short(one.stored_at), short(one.confirmed_at)])
        rows[-1] += [one.confirmed_by, str(one.attempts), outstanding, one.reason]
    print_table(columns, rows)
    for series_uid, reason in shown["skipped"]:
        print(f"series {series_uid or '(none)'} was skipped: {reason}")
    if "kept_apart" in shown:
        print(f"study {shown['study_uid']}: {shown['kept_apart']['reason']}")


def _detail(detail: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in detail.items() if value not in (None, ""))


@jobs_cli.command("retry")
def jobs_retry(
    job_id: Annotated[str | None, typer.Argument(metavar="JOB", help=JOB_HELP)] = None,
    all_jobs: Annotated[bool, typer.Option("--all", help="Retry every failed or rejected job.")] = False,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Retry every such job whose reason contains this text.")
    ] = "",
    config: ConfigFile = None,
) -> None:
    """Try failed or rejected jobs again from where they stood: one job, or several by --all or --reason."""
    if (job_id is not None) + all_jobs + bool(reason) != 1:
        raise typer.BadParameter("give a job, or --all, or --reason", param_hint="JOB")
    with opened_ledger(config) as ledger:
        retried = ledger.retry_all(reason) if job_id is None else [ledger.retry(job_id)]
    _print_states(retried)


@jobs_cli.command("release")
def jobs_release(
    held: Held,
    without: Annotated[
        str,
        typer.Option("--without", metavar="DESTINATION", help="Let the job be done without this destination."),
    ] = "",
    config: ConfigFile = None,
) -> None:
    """Release a held job, its held deliveries, or a held study: it goes on where it stood."""
    with opened_ledger(config) as ledger:
        if without:
            _print_states([ledger.release_without(held, without)])
        elif "." in held:
            ledger.studies.release(held)
            print(f"{held} released")
        else:
            _check_destinations(ledger, held, config)
            _print_states([ledger.release(held)])


@jobs_cli.command("resend")
def jobs_resend(
    job_id: JobId,
    destination: Annotated[
        str,
        typer.Option("--to", metavar="DESTINATION", help="The destination that has confirmed the job's PET before."),
    ],
    reason: Annotated[str, typer.Option("--reason", help=f"Why, for the audit: {', '.join(RESEND_REASONS)}.")],
    config: ConfigFile = None,
) -> None:
    """Send a job's PET and what belongs to it again to one destination, as the same SOP instances."""
    from twin_scanner.errors import Rejected
    from twin_scanner.service.ledger import ResendReason

    if reason not in RESEND_REASONS:
        raise typer.BadParameter(f"choose one of {', '.join(RESEND_REASONS)}", param_hint="--reason")
    with opened_ledger(config) as ledger:
        if destination not in _known_destinations(config):
            raise Rejected(f"The configuration has no destination '{destination}': nobody would serve it.")
        _print_states([ledger.resend(job_id, destination, ResendReason(reason))])


def _values(row: Any) -> dict[str, Any]:
    """A row as JSON has it."""
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(row).items()}


def _check_destinations(ledger: "Ledger", job_id: str, config: "Path | None") -> None:
    """Raise Rejected where a held delivery would wait for a destination that nobody serves."""
    from twin_scanner.errors import Rejected
    from twin_scanner.service.ledger import DeliveryState

    job, known = ledger.jobs.find(job_id), _known_destinations(config)
    for delivery in ledger.deliveries.of_jobs([job.job_id])[job.job_id]:
        if delivery.state == DeliveryState.HELD and delivery.destination not in known:
            raise Rejected(
                f"The configuration has no destination '{delivery.destination}': give it back, or release the job with "
                f"--without {delivery.destination}."
            )


def _known_destinations(config: "Path | None") -> set[str]:
    from twin_scanner.settings.destinations import TWIN

    return {TWIN, *(destination.name for destination in read_settings(config).known_destinations)}


def _shown(delivery: "Delivery") -> dict[str, Any]:
    """A delivery as a person wants to see it: of its instances the counts, by status where there is a remark."""
    outcome = delivery.outcome
    counts: dict[str, Any] = {}
    if outcome is not None:
        remarks = {"warnings": outcome.warnings, "refused": outcome.refused}
        counts = {name: {status: len(uids) for status, uids in remark.items()} for name, remark in remarks.items()}
        counts |= {"not_taken": outcome.not_taken, "instances": outcome.asked}
        counts["outstanding"] = outcome.asked - outcome.stored
    return {**_values(delivery), "outcome": counts}


def _print_states(jobs: list["Job"]) -> None:
    for job in jobs:
        print(f"{job.job_id} {job.state}")
