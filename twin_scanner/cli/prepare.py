"""The verb `prepare`: studies into a training store."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from twin_scanner.cli.options import (
    AcceptSynthetic,
    ConfigFile,
    SegmenterName,
    StudiesSource,
    out_folder,
    package_folder,
    study_tools,
    written_file,
)
from twin_scanner.cli.output import say, stages


def prepare(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help=StudiesSource)],
    out: Annotated[Path, out_folder("The folder of the training store; an unfinished one is continued.")],
    split: Annotated[
        Path | None,
        typer.Option(
            "--split",
            help="Write a split by patient into this file; patients who are in it keep their part.",
            callback=written_file,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The seed of the random split.")] = 0,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="The number of processes; each needs 2.5 to 3.5 GB of memory.")
    ] = 1,
    keep_air: Annotated[
        bool, typer.Option("--keep-air", help="Store the whole field of view, for a whole-volume network.")
    ] = False,
    retry_refused: Annotated[bool, typer.Option("--retry-refused", help="Try refused studies again.")] = False,
    accept_synthetic: AcceptSynthetic = False,
    model: Annotated[
        str | None, typer.Option("--model", help="The model whose grid the store takes; default: 3 x 2.04 x 2.04 mm.")
    ] = None,
    segmenter: SegmenterName = None,
    config: ConfigFile = None,
) -> None:
    """Bring PET/CT studies into a training store: checked, registered, on the networks' grid, with districts."""
    from training.data.prepare import prepare as fill
    from training.data.splits import check_patients, make_split_file
    from training.data.studies import find_studies
    from training.data.training_store import patients_in
    from twin_scanner.executor.local import LocalProcesses
    from twin_scanner.models.package import load_package
    from twin_scanner.models.plan import Plan

    settings, recipe = study_tools(config, segmenter)
    plan = Plan()
    if model is not None:
        plan = replace(load_package(package_folder(settings, model)).plan, training_grid=plan.training_grid)
    with closing(LocalProcesses(workers)) as processes, stages() as stage:
        studies = find_studies(source, accept_synthetic=accept_synthetic, progress=stage("Headers"))
        if split is not None:
            check_patients(len(patients_in(out).union(study.patient for study in studies)))
        store = fill(
            studies,
            out,
            plan,
            recipe,
            keep_air=keep_air,
            executor=processes if workers > 1 else None,
            workers=workers,
            retry_refused=retry_refused,
            progress=stage("Studies"),
        )
    for refusal in store.refused:
        say(f"refused {refusal.name}: {refusal.reason}")
    print(f"{out}: {len(store.entries)} studies, {len(store.refused)} refused")
    if split is not None:
        make_split_file(split, store.entries, seed, store=store.fingerprint)
