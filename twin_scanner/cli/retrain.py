"""A challenger for the champion."""

import json
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from twin_scanner import app as application
from twin_scanner.cli.options import AsJson, ConfigFile, read_settings
from twin_scanner.cli.output import progress_bars, reporter
from twin_scanner.errors import Rejected
from twin_scanner.logs import set_up_logging


def retrain(
    train_config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="A retraining configuration (TOML).", dir_okay=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Train and score, but change no model.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Train a challenger on the store as it stands; it goes live only where it is not worse and is better overall."""
    from training.retraining.retrain import main as challenge

    settings = read_settings(config)
    set_up_logging("INFO")
    chosen = train_config or settings.retrain.config
    if chosen is None:
        raise Rejected("There is no retraining configuration: give one, or set retrain.config.")
    with progress_bars() as bars:
        stage = cache(reporter(bars))
        outcome = challenge(
            chosen,
            application.model_store(settings),
            dry_run=dry_run,
            progress=lambda name, done, total: stage(name)(done, total),
        )
    print(json.dumps(outcome.as_json(), indent=1) if as_json else f"{outcome.verdict}: {outcome.reason}")
