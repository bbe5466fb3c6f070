"""The verbs on model packages."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from twin_scanner.cli.options import AsJson, ConfigFile, out_folder, read_settings
from twin_scanner.cli.output import print_table

if TYPE_CHECKING:
    from twin_scanner.models.store import ModelStore

models_cli = typer.Typer(help="List, show, promote and exchange model packages.", no_args_is_help=True)
ModelReference = Annotated[str, typer.Argument(metavar="MODEL", help="The model's alias, name or hash.")]


@models_cli.command("list")
def models_list(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List the model packages that are here, and their aliases."""
    rows = _model_store(config).list()
    if as_json:
        print(json.dumps([row.as_json() for row in rows], indent=1))
        return
    print_table(
        ["name", "hash", "aliases", "partition", "intended use"],
        [[r.name, r.model_hash[:12], ", ".join(r.aliases), r.partition, r.intended_use] for r in rows],
    )


@models_cli.command("show")
def models_show(model: ModelReference, config: ConfigFile = None) -> None:
    """Print the card of one model package as JSON."""
    folder = _model_store(config).resolve(model)
    print((folder / "card.json").read_text("utf-8"))


@models_cli.command("promote")
def models_promote(
    model: ModelReference,
    force: Annotated[
        str, typer.Option("--force", metavar="REASON", help="Promote even against the gate; the reason is recorded.")
    ] = "",
    config: ConfigFile = None,
) -> None:
    """Make a model the champion, where the gate decided so."""
    from training.retraining.retrain import promote

    promotion = promote(_model_store(config), model, force=force)
    print(f"champion {promotion.champion}")


@models_cli.command("rollback")
def models_rollback(
    reason: Annotated[str, typer.Argument(metavar="REASON", help="Why you go back; the reason is recorded.")],
    config: ConfigFile = None,
) -> None:
    """Put the previous champion back in service."""
    promotion = _model_store(config).rollback(reason)
    print(f"champion {promotion.champion}")


@models_cli.command("import")
def models_import(
    source: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder: a model package, or an exported MONAI Bundle.")
    ],
    config: ConfigFile = None,
) -> None:
    """Add a model package to the store; its weights and card are read, nothing in it is executed."""
    from training.exchange.monai_bundle import import_package

    print(import_package(source, _model_store(config)).name)


@models_cli.command("export")
def models_export(
    model: ModelReference,
    out: Annotated[Path, out_folder("A new folder for the package.")],
    layout: Annotated[
        Literal["folder", "monai"],
        typer.Option("--layout", help="The layout to write: the package's own folder, or a MONAI Bundle."),
    ] = "folder",
    config: ConfigFile = None,
) -> None:
    """Write a model package into a new folder, as it is or as a MONAI Bundle."""
    from training.exchange.monai_bundle import export_package

    print(export_package(_model_store(config).resolve(model), out, layout))


def _model_store(config: Path | None) -> "ModelStore":
    from twin_scanner.models.store import ModelStore

    return ModelStore(read_settings(config).model_store)
