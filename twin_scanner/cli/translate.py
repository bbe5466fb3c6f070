"""The verb `translate`: one CT to a synthetic PET, without the service."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twin_scanner.cli.options import (
    AsJson,
    ConfigFile,
    CtSource,
    DeviceName,
    LabelmapFile,
    SegmenterName,
    compute_with,
    out_folder,
    read_settings,
    segmenter_with,
)
from twin_scanner.cli.output import log_from, print_pairs, say, stages
from twin_scanner.errors import Rejected

if TYPE_CHECKING:
    from twin_scanner.render.report import RenderReport


def translate(
    source: CtSource,
    out: Annotated[Path, out_folder("A new or empty folder for the results.")],
    model: Annotated[
        str | None, typer.Option("--model", help="The model's alias, name or hash; default: model.name.")
    ] = None,
    segmenter: SegmenterName = None,
    labelmap: LabelmapFile = None,
    uncertainty: Annotated[
        bool,
        typer.Option("--uncertainty", help="Write the standard deviation of SUV too; this takes eight times as long."),
    ] = False,
    explain: Annotated[
        str,
        typer.Option(
            "--explain",
            metavar="TARGET",
            help="Show which CT evidence leads to the uptake of a target: voxel:D,H,W, mm:X,Y,Z (LPS), "
            "MASK.nii.gz[:LABEL] on the grid of pet.nii.gz, or a district.",
        ),
    ] = "",
    device: DeviceName = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Translate one CT: write pet/ seg/ sr/ key/ (DICOM), pet.nii.gz, districts.nii.gz, preview.png, report.json."""
    from twin_scanner.app import render_template
    from twin_scanner.render.render import render

    settings = read_settings(config)
    log_from("WARNING")
    if not source.exists():
        raise Rejected(f"{source} does not exist: give a folder of a CT series, or a .nii.gz file.")
    if out.exists() and any(out.iterdir()):
        raise Rejected(f"{out} is not empty: give a new folder, nothing is overwritten.")
    request = replace(
        render_template(settings),
        source=source,
        result=out,
        made_at=datetime.now().astimezone(),
        model=model or settings.model.name,
        segmenter=segmenter_with(settings, segmenter, labelmap),
        compute=compute_with(settings, device),
        accept_phantom_only=True,
        uncertainty=uncertainty,
        explain=explain,
    )
    with stages(f"{out} holds no complete result: remove it before you try again.") as stage:
        report = render(request, stage("Translating windows"))
    for note in (*report.notes, *_doubts(report)):
        say(f"note: {note}")
    if as_json:
        print((out / "report.json").read_text("utf-8"))
        return
    seen = ", trained on phantoms only" if report.phantom_only else ""
    print_pairs(
        {
            "PET series": str(out / "pet") if report.pet_files else "none (NIfTI input)",
            "PET as NIfTI": str(out / "pet.nii.gz"),
            "Beside it": ", ".join(companion.file for companion in report.companions) or "none",
            "Preview": str(out / "preview.png"),
            "Report": str(out / "report.json"),
            "Model": f"{report.model_name} {report.model_hash[:12]}{seen}",
        }
    )


def _doubts(report: "RenderReport") -> Iterator[str]:
    """What a user must know of uncertainty and explanation."""
    if report.uncertainty and not report.uncertainty["calibrated"]:
        yield "The uncertainty is the raw deviation of mirrored translations: 'evaluate --calibrate' calibrates it."
    if report.explanation and not report.explanation["complete"]:
        yield "The explanation does not add up to the whole uptake: read it as an indication."
