"""Studies into a training store."""

import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from twin_scanner.cli.options import ConfigFile, SegmenterName, package_folder, read_settings, segmenter_with
from twin_scanner.cli.output import progress_bars, reporter
from twin_scanner.files.writable import check_writable
from twin_scanner.logs import set_up_logging


def prepare(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Studies: autoPET's layout, or DICOM PET/CT.")],
    out: Annotated[
        Path, typer.Option("--out", help="The training store; one that was begun goes on.", file_okay=False)
    ],
    split: Annotated[
        Path | None,
        typer.Option("--split", help="Draw a split by patient into this file; the patients of one that is there stay."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the split.")] = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes; each needs 2.5 to 3.5 GB.")] = 1,
    keep_air: Annotated[
        bool, typer.Option("--keep-air", help="Store the whole field of view, for a whole-volume network.")
    ] = False,
    retry_refused: Annotated[bool, typer.Option("--retry-refused", help="Try refused studies again.")] = False,
    accept_synthetic: Annotated[
        bool, typer.Option("--accept-synthetic", help="Take DICOM that is marked synthetic: phantoms, never our PET.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="Whose grid the store has; default: 3 x 2.04 x 2.04 mm.")
    ] = None,
    segmenter: SegmenterName = None,
    config: ConfigFile = None,
) -> None:
    """Bring PET/CT studies into a training store: checked, registered, on the networks' grid, with districts."""
    from training.data.prepare import prepare as fill
    from training.data.splits import draw_into
    from training.data.studies import find_studies
    from twin_scanner.districts.choice import make_segmenter
    from twin_scanner.executor.local import LocalProcesses
    from twin_scanner.models.package import load_package
    from twin_scanner.models.plan import Plan

    settings = read_settings(config)
    set_up_logging("ERROR")
    recipe = partial(make_segmenter, segmenter_with(settings, segmenter, None))
    plan = Plan() if model is None else load_package(package_folder(settings, model)).plan
    for folder in (out, *([] if split is None else [split.parent])):
        check_writable(folder)
    with closing(LocalProcesses(workers)) as processes, progress_bars() as bars:
        report = reporter(bars)
        studies = find_studies(source, accept_synthetic=accept_synthetic, progress=report("Headers"))
        store = fill(
            studies,
            out,
            plan,
            recipe,
            keep_air=keep_air,
            executor=processes if workers > 1 else None,
            workers=workers,
            retry_refused=retry_refused,
            progress=report("Studies"),
        )
    for refusal in store.refused:
        print(f"refused {refusal.name}: {refusal.reason}", file=sys.stderr)
    print(f"{out}: {len(store.entries)} studies, {len(store.refused)} refused")
    if split is not None:
        draw_into(split, store.entries, seed, store=store.fingerprint)
