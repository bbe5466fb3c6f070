"""The verb `evaluate`: models against studies with a real PET."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from twin_scanner.cli.options import (
    AcceptSynthetic,
    ConfigFile,
    DeviceName,
    SegmenterName,
    StudiesSource,
    compute_with,
    out_folder,
    package_folder,
    study_tools,
)
from twin_scanner.cli.output import say, stages


def evaluate(
    model: Annotated[
        list[str],
        typer.Option("--model", help="The model's alias, name, hash or folder; repeat the option for each seed."),
    ],
    dataset: Annotated[Path, typer.Option("--dataset", help=StudiesSource)],
    out: Annotated[Path, out_folder("The folder for tables and report; an unfinished evaluation is continued.")],
    baseline: Annotated[
        list[str] | None,
        typer.Option("--baseline", help="A model to compare with, named as for --model; repeat it for further ones."),
    ] = None,
    split: Annotated[
        Path | None, typer.Option("--split", help="Evaluate only the studies of one part of this split.")
    ] = None,
    part: Annotated[
        Literal["train", "validation", "gate", "test"],
        typer.Option("--part", help="The part of the split to evaluate."),
    ] = "test",
    registration: Annotated[
        bool, typer.Option(help="Register each PET to its CT first; phantoms are aligned and need none.")
    ] = True,
    accept_synthetic: AcceptSynthetic = False,
    organs: Annotated[
        Path | None,
        typer.Option(
            "--organs",
            help="A folder of label maps STUDY.nii.gz and names.json, to report the bias of each organ.",
            file_okay=False,
        ),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate", help="Calibrate the model's uncertainty too, on half of the patients; this is slow."
        ),
    ] = False,
    segmenter: SegmenterName = None,
    device: DeviceName = None,
    config: ConfigFile = None,
) -> None:
    """Evaluate models on studies with a real PET: the paper's tables, statistics, figures and report.html."""
    from training.data.studies import find_studies
    from training.evaluation.calibrate import calibrate as calibrate_model
    from training.evaluation.evaluate import EvaluationRequest, chosen_studies, evaluated_models, measure_all
    from training.evaluation.organs import organ_maps
    from training.evaluation.pictures import Pictures
    from training.evaluation.result_files import write_results
    from twin_scanner.synthesis.pipeline import PipelineOptions

    settings, recipe = study_tools(config, segmenter)
    folders = [package_folder(settings, reference) for reference in (*model, *(baseline or ()))]
    models = evaluated_models(folders, compute_with(settings, device))
    with stages() as report:
        studies = find_studies(dataset, accept_synthetic=accept_synthetic, progress=report("Headers"))
        request = EvaluationRequest(
            models=models,
            studies=chosen_studies(studies, split, part),
            out=out,
            segmenter=recipe(),
            options=PipelineOptions(
                settings.model.allow_other_segmenter, settings.model.missing_district, settings.model.stitching
            ),
            registered=registration,
            organs=None if organs is None else organ_maps(organs),
        )
        request = replace(request, look=Pictures(request).look)
        outcome = measure_all(request, report("Studies"))
        summary = write_results(request, outcome, dataset.name, report("Tables, figures and report"))
        if calibrate:
            calibrate_model(request, settings.model_store, report("Calibration"))
    for sentence in summary:
        print(sentence)
    for refused in outcome.refused:
        say(f"refused {refused.study}: {refused.reason}")
    print(f"{out}: studies {outcome.studies}, patients {outcome.patients}, refused {len(outcome.refused)}")
