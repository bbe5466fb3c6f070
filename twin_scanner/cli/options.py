"""The options that several verbs share, and the settings that follow from them."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from twin_scanner import app as application
from twin_scanner.districts.choice import SEGMENTERS, SegmenterChoice
from twin_scanner.errors import Rejected
from twin_scanner.settings import Settings, load_settings

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="The TOML configuration; see deploy/.", dir_okay=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
SegmenterName = Annotated[
    str | None, typer.Option("--segmenter", help=f"{', '.join(SEGMENTERS)}; default: the configuration's.")
]
LabelmapFile = Annotated[
    Path | None, typer.Option("--labelmap", help="The label map (NIfTI or DICOM SEG) for the segmenter labelmap.")
]


def read_settings(config: Path | None) -> Settings:
    """The validated configuration; ends the program with 2 where it has faults."""
    try:
        return load_settings(config)
    except Rejected as error:
        Console(stderr=True, highlight=False).print(str(error), markup=False, soft_wrap=True)
        sys.exit(2)


def segmenter_with(settings: Settings, name: str | None, labelmap: Path | None) -> SegmenterChoice:
    """The configuration's, with what the command line says otherwise."""
    choice = application.segmenter_choice(settings)
    return replace(choice, name=name or choice.name, labelmap=labelmap or choice.labelmap)


def package_folder(settings: Settings, reference: str) -> Path:
    """A package by its folder, or by what the model store calls it."""
    from twin_scanner.models.store import ModelStore

    folder = Path(reference)
    return folder if folder.is_dir() else ModelStore(application.model_store(settings)).resolve(reference)
