"""The verbs on the jobs of the ledger."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twin_scanner.cli.options import AsJson, ConfigFile, read_settings
from twin_scanner.cli.output import print_table

if TYPE_CHECKING:
    from pathlib import Path

    from twin_scanner.service.ledger import Delivery, Job, Ledger

jobs_cli = typer.Typer(help="List, show, retry and release the jobs in the ledger.", no_args_is_help=True)
JOB_HELP = "The job's id, or its first characters."
JobId = Annotated[str, typer.Argument(metavar="JOB", help=JOB_HELP)]
Held = Annotated[str, typer.Argument(metavar="JOB", help=f"{JOB_HELP[:-1]}; or the UID of a held study.")]


@jobs_cli.command("list")
def jobs_list(
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            help="List only jobs in this state: queued, rendered, done, held, rejected, failed or superseded.",
        ),
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List the newest jobs, their states and reasons, and below them the studies that intake holds."""
    from twin_scanner.service.ledger import State, StudyState

    if state is not None and state not in tuple(State):
        raise typer.BadParameter(f"choose one of {', '.join(State)}", param_hint="--state")
    with _ledger(config) as ledger:
        jobs = ledger.jobs.newest(State(state) if state else None)
        held = ledger.studies.of_node(StudyState.HELD) if state in (None, State.HELD) else []
    if as_json:
        print(json.dumps([_values(job) for job in jobs], indent=1))
        return
    print_table(
        ["job", "state", "since", "CT series", "attempts", "reason"],
        [
            [j.job_id[:12], j.state, f"{j.updated_at:%Y-%m-%d %H:%M:%S}Z", j.series_uid, str(j.attempts), j.reason]
            for j in jobs
        ],
    )
    for study in held:
        print(f"study {study.study_uid} is held: {study.reason}")


@jobs_cli.command("show")
def jobs_show(job_id: JobId, config: ConfigFile = None) -> None:
    """Print one job with its reasons and deliveries as JSON: what confirms each, and what of it is outstanding."""
    with _ledger(config) as ledger:
        job = ledger.jobs.find(job_id)
        deliveries = ledger.deliveries.of_jobs([job.job_id]).get(job.job_id, [])
    print(json.dumps({**_values(job), "deliveries": [_shown(delivery) for delivery in deliveries]}, indent=1))


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
    with _ledger(config) as ledger:
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
    with _ledger(config) as ledger:
        if without:
            _print_states([ledger.release_without(held, without)])
        elif "." in held:
            ledger.studies.release(held)
            print(f"{held} released")
        else:
            _check_destinations(ledger, held, config)
            _print_states([ledger.release(held)])


@contextmanager
def _ledger(config: "Path | None") -> Iterator["Ledger"]:
    """The ledger that is there; it is not created or migrated here."""
    from twin_scanner.service.ledger import Ledger

    settings = read_settings(config)
    ledger = Ledger(settings.ledger_url, node=settings.node.name)
    try:
        yield ledger
    finally:
        ledger.close()


def _values(row: Any) -> dict[str, Any]:
    """A row as JSON has it."""
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(row).items()}


def _check_destinations(ledger: "Ledger", job_id: str, config: "Path | None") -> None:
    """Raise Rejected where a held delivery would wait for a destination that nobody serves."""
    from twin_scanner.errors import Rejected
    from twin_scanner.service.ledger import DeliveryState

    job = ledger.jobs.find(job_id)
    known = {"twin", *(destination.name for destination in read_settings(config).known_destinations)}
    for delivery in ledger.deliveries.of_jobs([job.job_id])[job.job_id]:
        if delivery.state == DeliveryState.HELD and delivery.destination not in known:
            raise Rejected(
                f"The configuration has no destination '{delivery.destination}': give it back, or release the job with "
                f"--without {delivery.destination}."
            )


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
