"""The examination of this installation."""

import json
from dataclasses import asdict

import typer

from twin_scanner.cli.options import AsJson, ConfigFile, read_settings


def doctor(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Examine this installation: disk, ledger, model, segmenters, PACS and twin; exit 1 where something is at fault."""
    from twin_scanner.doctor import Finding, examine

    marks = {"ok": "ok     ", "warning": "warning", "fault": "FAULT  "}

    def tell(finding: Finding) -> None:
        if not as_json:
            print(f"{marks[finding.state]}  {finding.name}: {finding.sentence}", flush=True)

    findings = examine(read_settings(config), tell)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)
