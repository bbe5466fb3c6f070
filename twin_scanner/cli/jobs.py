"""The verbs on the jobs of the ledger."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twin_scanner.cli.options import AsJson, ConfigFile, read_settings
from twin_scanner.cli.output import print_table

if TYPE_CHECKING:
    from twin_scanner.service.ledger.ledger import Job, Ledger
    from twin_scanner.settings import Settings

jobs_cli = typer.Typer(help="List, show and retry the jobs in the ledger.", no_args_is_help=True)
JobId = Annotated[str, typer.Argument(help="The job's id, or its first characters.")]


@jobs_cli.command("list")
def jobs_list(
    state: Annotated[str | None, typer.Option("--state", help="List only the jobs in this state.")] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List the newest jobs, their states and reasons."""
    from twin_scanner.service.ledger.ledger import State

    if state is not None and state not in tuple(State):
        raise typer.BadParameter(f"choose one of {', '.join(State)}", param_hint="--state")
    with _ledger(read_settings(config)) as ledger:
        jobs = ledger.jobs(State(state) if state else None)
    if as_json:
        print(json.dumps([_job_json(job) for job in jobs], indent=1))
        return
    print_table(
        ["job", "state", "since", "CT series", "attempts", "reason"],
        [
            [j.job_id[:12], j.state, f"{j.updated_at:%Y-%m-%d %H:%M:%S}Z", j.series_uid, str(j.attempts), j.reason]
            for j in jobs
        ],
    )


@jobs_cli.command("show")
def jobs_show(job_id: JobId, config: ConfigFile = None) -> None:
    """Print one job, with its reasons, as JSON."""
    with _ledger(read_settings(config)) as ledger:
        print(json.dumps(_job_json(ledger.job(job_id)), indent=1))


@jobs_cli.command("retry")
def jobs_retry(job_id: JobId, config: ConfigFile = None) -> None:
    """Try a failed or rejected job again from where it stood."""
    with _ledger(read_settings(config)) as ledger:
        job = ledger.retry(job_id)
    print(f"{job.job_id} {job.state}")


@contextmanager
def _ledger(settings: "Settings") -> Iterator["Ledger"]:
    from twin_scanner.service.ledger.ledger import Ledger, utc_now
    from twin_scanner.settings import Folders

    Folders(settings.storage.folder).prepare()
    ledger = Ledger(settings.ledger_url, utc_now)
    try:
        yield ledger
    finally:
        ledger.close()


def _job_json(job: "Job") -> dict[str, Any]:
    values = {name: getattr(job, name) for name in job.__dataclass_fields__}
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in values.items()}
