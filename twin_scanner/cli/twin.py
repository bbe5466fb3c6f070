"""The verbs on twin records."""

import json
from typing import Annotated

import typer

from twin_scanner import app as application
from twin_scanner.cli.options import ConfigFile, read_settings

twin_cli = typer.Typer(help="The patients' twin records.", no_args_is_help=True)


@twin_cli.command("show")
def twin_show(
    patient_id: Annotated[str, typer.Argument(help="The Patient ID of the CT.")],
    issuer: Annotated[
        str | None, typer.Option("--issuer", help="Issuer of Patient ID, where the CT names one.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """A patient's twin record as a FHIR Bundle, JSON."""
    target = application.open_twin(read_settings(config))
    print(json.dumps(target.patient_record(patient_id, issuer), indent=1, ensure_ascii=False))
