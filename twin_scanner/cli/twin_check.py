"""``twin check``: whether the PACS still has the delivered studies under the patients for whom PETs were made."""

import json
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from twin_scanner.cli.options import AsJson, ConfigFile, read_settings
from twin_scanner.cli.output import print_table, say, stages


def twin_check(
    days: Annotated[
        float | None, typer.Option("--days", min=0.0, help="Only studies whose PET was made in the last so many days.")
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask the PACS again whose the delivered studies are; a patient who was corrected since is an alarm, and exit 1."""
    from twin_scanner.app import open_ledger, patient_finders
    from twin_scanner.service.identity_check import check_identities
    from twin_scanner.service.intake import JobFolders
    from twin_scanner.service.ledger import utc_now
    from twin_scanner.settings import Folders

    settings = read_settings(config)
    finders = patient_finders(settings)
    since = None if days is None else utc_now() - timedelta(days=days)
    with closing(open_ledger(settings)) as ledger, stages() as stage:
        folders = JobFolders(Folders(settings.storage.folder).jobs)
        report = check_identities(ledger, folders, finders, since, stage("studies"))
    if as_json:
        print(json.dumps(asdict(report), indent=1))
    else:
        print_table(
            ["job", "study", "PACS", "differs"],
            [[one.job_id[:12], one.study_uid, one.pacs, ", ".join(one.differing)] for one in report.changed],
        )
        say(f"{report.asked} studies asked for at {', '.join(finders) or 'no PACS'}, {len(report.changed)} differ.")
        for name, reason in report.silent.items():
            say(f"{name}: {reason}")
        if report.unknown:
            say(f"For whom {len(report.unknown)} PETs were made is not known: their records were erased or not kept.")
    if not finders:
        say("No destination may be asked: give its peer the role 'query', or set twin.ask_pacs.")
    if report.changed or report.silent or not finders:
        raise typer.Exit(1)
