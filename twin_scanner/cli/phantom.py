"""Generated studies of phantoms."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from twin_scanner.cli.output import progress_bars, reporter


def phantom(
    out: Annotated[Path, typer.Option("--out", help="A folder for the studies.", file_okay=False)],
    count: Annotated[int, typer.Option("--count", min=1, help="How many patients.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same bytes.")] = 0,
    dicom: Annotated[bool, typer.Option("--dicom", help="Write DICOM too.")] = False,
    world: Annotated[
        Literal["district-dependent", "appearance-only"], typer.Option("--world", help="What decides the uptake.")
    ] = "district-dependent",
) -> None:
    """Generate paired whole-body CT and PET studies of phantoms in the autoPET layout."""
    from training.phantom.files import write_studies

    with progress_bars() as bars:
        write_studies(out, count, seed, world=world, dicom=dicom, progress=reporter(bars)("Phantoms"))
    print(out)
