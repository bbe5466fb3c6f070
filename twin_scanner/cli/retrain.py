"""The verb `retrain`: a challenger for the champion."""

import json
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from twin_scanner.cli.options import AsJson, ConfigFile, DeviceName, read_settings
from twin_scanner.cli.output import log_from, stages
from twin_scanner.errors import Rejected


def retrain(
    train_config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG", help="A retraining configuration (TOML); default: retrain.config.", dir_okay=False
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Train and score, but change no model.")] = False,
    device: DeviceName = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Train a challenger on the store; it becomes champion where no district is worse and the whole body is better."""
    from training.retraining.retrain import main as challenge

    settings = read_settings(config)
    log_from("INFO")
    chosen = train_config or settings.retrain.config
    if chosen is None:
        raise Rejected("There is no retraining configuration: give one, or set retrain.config.")
    with stages() as stage:
        report = cache(stage)
        outcome = challenge(
            chosen,
            settings.model_store,
            dry_run=dry_run,
            device=device,
            progress=lambda name, done, total: report(name)(done, total),
        )
    print(json.dumps(outcome.as_json(), indent=1) if as_json else f"{outcome.verdict}: {outcome.reason}")
