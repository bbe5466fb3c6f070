"""The verbs on twin records."""

import json
from typing import Annotated

import typer

from twin_scanner.cli.options import ConfigFile, read_settings

twin_cli = typer.Typer(help="Show the twin records of patients.", no_args_is_help=True)


@twin_cli.command("show")
def twin_show(
    patient_id: Annotated[str, typer.Argument(metavar="PATIENT_ID", help="The Patient ID in the CT's header.")],
    issuer: Annotated[
        str | None, typer.Option("--issuer", help="The Issuer of Patient ID, where the CT names one.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Print the twin record of a patient as a FHIR Bundle in JSON."""
    from twin_scanner.app import open_twin

    target = open_twin(read_settings(config))
    print(json.dumps(target.patient_record(patient_id, issuer), indent=1, ensure_ascii=False))
