"""The verb `phantom`: generated studies."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from twin_scanner.cli.options import out_folder
from twin_scanner.cli.output import stages


def phantom(
    out: Annotated[Path, out_folder("A new folder for the studies.")],
    count: Annotated[int, typer.Option("--count", min=1, help="The number of patients to generate.")],
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="The seed of the phantoms; the same seed gives the same bytes.")
    ] = 0,
    dicom: Annotated[bool, typer.Option("--dicom", help="Write each study as DICOM too.")] = False,
    world: Annotated[
        Literal["district-dependent", "appearance-only"],
        typer.Option("--world", help="Whether the uptake of a tissue depends on its district or on its HU alone."),
    ] = "district-dependent",
) -> None:
    """Generate paired whole-body CT and PET studies of phantoms in the autoPET layout."""
    from training.phantom.files import write_studies

    with stages() as stage:
        write_studies(out, count, seed, world=world, dicom=dicom, progress=stage("Phantoms"))
    print(out)
