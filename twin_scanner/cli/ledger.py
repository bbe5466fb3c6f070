"""The verbs on the ledger itself."""

import typer

from twin_scanner.cli.options import ConfigFile, read_settings

ledger_cli = typer.Typer(help="Look after the ledger's database.", no_args_is_help=True)


@ledger_cli.callback()
def _verbs() -> None:
    """Without a callback typer would drop the name of the only verb."""


@ledger_cli.command("migrate")
def ledger_migrate(config: ConfigFile = None) -> None:
    """Create the ledger, or bring it to this version; back it up before."""
    from twin_scanner.service.ledger import migrate, migration_state
    from twin_scanner.settings import Folders

    settings = read_settings(config)
    Folders(settings.storage.folder).prepare()
    migrate(settings.ledger_url)
    state = migration_state(settings.ledger_url)
    print(f"migration {state.found if state else 'none'}")
