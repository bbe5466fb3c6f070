"""The verbs on the audit trail."""

import json
import sys
from datetime import UTC
from typing import Annotated

import typer

from twin_scanner.cli.options import AsJson, ConfigFile, opened_ledger
from twin_scanner.cli.output import print_table
from twin_scanner.cli.status import Since
from twin_scanner.cli.work_table import short

audit_cli = typer.Typer(help="Show and verify who saw, sent, changed, released or erased what.", no_args_is_help=True)


@audit_cli.command("show")
def audit_show(
    since: Since = None,
    who: Annotated[str | None, typer.Option("--who", help="Show only what this person or program did.")] = None,
    what: Annotated[str | None, typer.Option("--what", help="Show only such events, for example 'released'.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The most events that are shown.")] = 1000,
    config: ConfigFile = None,
    print_json: AsJson = False,
) -> None:
    """Show the newest events of all nodes, newest first; none names a patient."""
    with opened_ledger(config) as ledger:
        events = ledger.events.newest(limit, since=since and since.replace(tzinfo=UTC), who=who, what=what)
    if print_json:
        print(json.dumps([{**vars(event), "at": event.at.isoformat()} for event in events], indent=1))
        return
    rows = [
        [str(event.event_id), short(event.at), event.node, event.who, event.what, event.of_table, event.row_id]
        for event in events
    ]
    print_table(["event", "when", "node", "who", "what", "of", "row"], rows)


@audit_cli.command("verify")
def audit_verify(config: ConfigFile = None, print_json: AsJson = False) -> None:
    """Check that no event was changed or removed; exit status 1 where one was.

    Keep the hash that is printed elsewhere: whoever rewrites every event from one on is seen by it alone.
    """
    from twin_scanner.console.audit.chain import verify

    with opened_ledger(config) as ledger:
        verdicts = verify(ledger)
    if print_json:
        found = [
            {**vars(verdict.chain), "holds": verdict.broken is None, "says": verdict.sentence} for verdict in verdicts
        ]
        print(json.dumps(found, indent=1))
    else:
        for verdict in verdicts:
            print(verdict.sentence)
    if any(verdict.broken is not None for verdict in verdicts):
        sys.exit(1)
