"""The verbs on model packages."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from twin_scanner import app as application
from twin_scanner.cli.options import AsJson, ConfigFile, read_settings
from twin_scanner.cli.output import print_table

if TYPE_CHECKING:
    from twin_scanner.models.store import ModelStore

models_cli = typer.Typer(help="Model packages.", no_args_is_help=True)


@models_cli.command("list")
def models_list(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """The model packages that are here, and their aliases."""
    rows = _model_store(config).list()
    if as_json:
        print(json.dumps([row.as_json() for row in rows], indent=1))
        return
    print_table(
        ["name", "hash", "aliases", "partition", "intended use"],
        [[r.name, r.model_hash[:12], ", ".join(r.aliases), r.partition, r.intended_use] for r in rows],
    )


@models_cli.command("show")
def models_show(
    model: Annotated[str, typer.Argument(help="An alias, a name or a hash.")], config: ConfigFile = None
) -> None:
    """The card of one model package, as JSON."""
    folder = _model_store(config).resolve(model)
    print((folder / "card.json").read_text("utf-8"))


@models_cli.command("promote")
def models_promote(
    model: Annotated[str, typer.Argument(help="An alias (challenger), a name or a hash.")],
    force: Annotated[str, typer.Option("--force", metavar="REASON", help="Past the gate; the reason is kept.")] = "",
    config: ConfigFile = None,
) -> None:
    """Make a model the champion, where the gate's record says so."""
    from training.retraining.retrain import promote

    promotion = promote(_model_store(config), model, force=force)
    print(f"champion {promotion.champion}")


@models_cli.command("rollback")
def models_rollback(reason: Annotated[str, typer.Argument(help="Why; it is kept.")], config: ConfigFile = None) -> None:
    """Put the previous champion back in service."""
    promotion = _model_store(config).rollback(reason)
    print(f"champion {promotion.champion}")


@models_cli.command("import")
def models_import(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="A package, or a bundle that was exported.")],
    config: ConfigFile = None,
) -> None:
    """Take a model package into the store; weights and card are read, nothing in it is run."""
    from training.exchange.monai_bundle import import_package

    print(import_package(source, _model_store(config)).name)


@models_cli.command("export")
def models_export(
    model: Annotated[str, typer.Argument(help="An alias, a name or a hash.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder.", file_okay=False)],
    layout: Annotated[
        Literal["folder", "monai"], typer.Option("--layout", help="Our own folder, or a MONAI Bundle.")
    ] = "folder",
    config: ConfigFile = None,
) -> None:
    """Write a model package as a folder of our own or as a MONAI Bundle."""
    from training.exchange.monai_bundle import export_package

    print(export_package(_model_store(config).resolve(model), out, layout))


def _model_store(config: Path | None) -> "ModelStore":
    from twin_scanner.models.store import ModelStore

    return ModelStore(application.model_store(read_settings(config)))
