"""Models against studies with a real PET."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from twin_scanner import app as application
from twin_scanner.cli.options import ConfigFile, SegmenterName, package_folder, read_settings, segmenter_with
from twin_scanner.cli.output import progress_bars, reporter
from twin_scanner.files.writable import check_writable
from twin_scanner.logs import set_up_logging


def evaluate(
    model: Annotated[
        list[str], typer.Option("--model", help="An alias, name, hash or folder; once for each seed of one model.")
    ],
    dataset: Annotated[Path, typer.Option("--dataset", help="Studies: autoPET's layout, or DICOM PET/CT.")],
    out: Annotated[
        Path, typer.Option("--out", help="Of tables and report; an evaluation that was begun goes on.", file_okay=False)
    ],
    baseline: Annotated[
        list[str] | None, typer.Option("--baseline", help="What the model is compared with; more than once for more.")
    ] = None,
    split: Annotated[Path | None, typer.Option("--split", help="Only the studies of a part of this split.")] = None,
    part: Annotated[
        Literal["train", "validation", "gate", "test"], typer.Option("--part", help="Of the split.")
    ] = "test",
    registration: Annotated[
        bool, typer.Option(help="Move each PET onto its CT first; phantoms, drawn in one place, need none.")
    ] = True,
    accept_synthetic: Annotated[
        bool, typer.Option("--accept-synthetic", help="Take DICOM that is marked synthetic: phantoms, never our PET.")
    ] = False,
    organs: Annotated[
        Path | None,
        typer.Option("--organs", help="Label maps STUDY.nii.gz and names.json: each organ's bias.", file_okay=False),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Also calibrate the model's uncertainty, on half of the patients; slow."),
    ] = False,
    segmenter: SegmenterName = None,
    config: ConfigFile = None,
) -> None:
    """Measure models on studies with a real PET: the paper's tables, statistics, figures and report.html."""
    from training.data.studies import find_studies
    from training.evaluation.calibrate import calibrate as calibrate_model
    from training.evaluation.evaluate import EvaluationRequest, chosen_studies, evaluated_models, measure_all
    from training.evaluation.organs import organ_maps
    from training.evaluation.pictures import Pictures
    from training.evaluation.result_files import write_results
    from twin_scanner.districts.choice import make_segmenter
    from twin_scanner.synthesis.pipeline import PipelineOptions

    settings = read_settings(config)
    set_up_logging("ERROR")
    check_writable(out)
    models = evaluated_models([package_folder(settings, reference) for reference in (*model, *(baseline or ()))])
    with progress_bars() as bars:
        report = reporter(bars)
        studies = find_studies(dataset, accept_synthetic=accept_synthetic, progress=report("Headers"))
        request = EvaluationRequest(
            models=models,
            studies=chosen_studies(studies, split, part),
            out=out,
            segmenter=make_segmenter(segmenter_with(settings, segmenter, None)),
            options=PipelineOptions(settings.model.allow_other_segmenter, settings.model.missing_district),
            registered=registration,
            organs=None if organs is None else organ_maps(organs),
        )
        request = replace(request, look=Pictures(request).look)
        outcome = measure_all(request, report("Studies"))
        summary = write_results(request, outcome, dataset.name, report("Tables, figures and report"))
        if calibrate:
            calibrate_model(request, application.model_store(settings), report("Calibration"))
    for sentence in summary:
        print(sentence)
    for refused in outcome.refused:
        print(f"refused {refused.study}: {refused.reason}", file=sys.stderr)
    print(f"{out}: studies {outcome.studies}, patients {outcome.patients}, refused {len(outcome.refused)}")
