"""The verbs `backup` and `restore`: the ledger, the embedded twin store and the models."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twin_scanner.cli.options import AsJson, ConfigFile, read_settings
from twin_scanner.cli.output import print_pairs, say, stages

if TYPE_CHECKING:
    from twin_scanner.service.backup import Places
    from twin_scanner.settings import Settings


def backup(
    into: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where backups are kept; each is a folder of its own.")
    ],
    keep: Annotated[
        int | None, typer.Option("--keep", min=1, help="Then remove all but so many of the newest backups.")
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Back up the ledger, the embedded twin store and the models while `serve` runs; images are not in it."""
    from importlib.metadata import version

    from twin_scanner.service.backup import back_up, remove_older
    from twin_scanner.service.ledger import utc_now

    settings = read_settings(config)
    own, node = version("twin-scanner"), settings.node.name
    with stages("no backup was written.") as stage:
        folder = back_up(_places(settings), into, version=own, node=node, at=utc_now(), progress=stage("Backup"))
    removed = [] if keep is None else remove_older(into, keep)
    if as_json:
        print(json.dumps({"backup": str(folder), "removed": [str(path) for path in removed]}, indent=1))
        return
    print(folder)
    for path in removed:
        say(f"removed {path}")


def restore(
    folder: Annotated[
        Path, typer.Argument(metavar="BACKUP", help="The folder that `backup` printed.", file_okay=False)
    ],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup back, with `serve` stopped; what is there already is never overwritten."""
    from twin_scanner.service.backup import restore as put_back

    settings = read_settings(config)
    with stages("what was not restored is still in the backup.") as stage:
        manifest = put_back(_places(settings), folder, stage("Restore"))
    facts = {name: value for name, value in asdict(manifest).items() if name not in ("files", "format")}
    if as_json:
        print(json.dumps({**facts, "files": len(manifest.files)}, indent=1))
    else:
        print_pairs({name.replace("_", " "): str(value) for name, value in facts.items()})
        say("Start 'serve', which brings the ledger to this version.")


def _places(settings: "Settings") -> "Places":
    from twin_scanner.service.backup import Places
    from twin_scanner.settings import Folders

    folder = settings.storage.folder
    return Places(folder, settings.ledger_url, Folders(folder).twin, settings.model_store)
