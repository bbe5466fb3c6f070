"""The command line: verbs on nouns; stdout is the result, stderr the log, exit 0 done, 1 failed, 2 wrong usage."""

import sys
from typing import Annotated, NoReturn

import typer

from twin_scanner.cli.audit import audit_cli
from twin_scanner.cli.backup import backup, restore
from twin_scanner.cli.console import console
from twin_scanner.cli.demo import demo
from twin_scanner.cli.doctor import doctor
from twin_scanner.cli.evaluate import evaluate
from twin_scanner.cli.jobs import jobs_cli
from twin_scanner.cli.ledger import ledger_cli
from twin_scanner.cli.models import models_cli
from twin_scanner.cli.output import say
from twin_scanner.cli.phantom import phantom
from twin_scanner.cli.prepare import prepare
from twin_scanner.cli.pull import pull
from twin_scanner.cli.retrain import retrain
from twin_scanner.cli.segment import segment
from twin_scanner.cli.serve import serve
from twin_scanner.cli.status import status
from twin_scanner.cli.support_bundle import support_bundle
from twin_scanner.cli.train import train
from twin_scanner.cli.translate import translate
from twin_scanner.cli.twin import twin_cli
from twin_scanner.cli.users import users_cli
from twin_scanner.errors import Misconfigured, TwinScannerError

FAILED, WRONG_USAGE = 1, 2

cli = typer.Typer(
    help="A virtual PET scanner: CT in by DICOM, synthetic FDG-PET out, the twin record kept by FHIR. Research only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    demo,
    serve,
    console,
    status,
    doctor,
    support_bundle,
    translate,
    segment,
    pull,
    phantom,
    prepare,
    train,
    retrain,
    evaluate,
    backup,
    restore,
):
    cli.command()(verb)
cli.add_typer(models_cli, name="models")
cli.add_typer(jobs_cli, name="jobs")
cli.add_typer(ledger_cli, name="ledger")
cli.add_typer(twin_cli, name="twin")
cli.add_typer(users_cli, name="users")
cli.add_typer(audit_cli, name="audit")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"twin-scanner {version('twin-scanner')}")
        raise typer.Exit


@cli.callback()
def options_of_all_verbs(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the installed version and end."),
    ] = False,
) -> None:
    """The options that stand before a verb."""


def main() -> NoReturn:
    """Entry point: a known error is one sentence on stderr, never a traceback."""
    try:
        cli()
    except Misconfigured as error:
        say(f"error: {error}")
        sys.exit(WRONG_USAGE)
    except TwinScannerError as error:
        say(f"error: {error}")
        sys.exit(FAILED)
    sys.exit(0)
