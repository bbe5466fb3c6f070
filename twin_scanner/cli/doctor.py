"""The verb `doctor`: the examination of this installation."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from twin_scanner.cli.options import AsJson, ConfigFile, read_settings

if TYPE_CHECKING:
    from twin_scanner.doctor import Finding

MARKS = {"ok": "ok     ", "warning": "warning", "fault": "FAULT  "}


def doctor(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Examine this installation: disk, ledger, model, segmenters, PACS, port, twin; exit 1 where one is at fault."""
    from twin_scanner.doctor import examine

    findings = examine(read_settings(config), _ignore if as_json else _print)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)


def _print(finding: "Finding") -> None:
    print(f"{MARKS[finding.state]}  {finding.name}: {finding.sentence}", flush=True)


def _ignore(_: "Finding") -> None:
    """With --json all findings are printed at the end."""
