"""The demonstration: the main job end to end, on loopback."""

from pathlib import Path
from typing import Annotated

import typer

from twin_scanner.cli.output import print_pairs, progress_bars, reporter
from twin_scanner.logs import set_up_logging


def demo(
    out: Annotated[Path, typer.Option("--out", help="Where the results go.", file_okay=False)] = Path("demo-out"),
) -> None:
    """Run the main job end to end on a generated whole-body CT, everything embedded, on loopback."""
    from twin_scanner.demo import run_demo

    set_up_logging("WARNING")
    with progress_bars() as bars:
        result = run_demo(out, reporter(bars))
    print_pairs(
        {
            "PET series": f"{result.pet_folder} ({result.pet_count} instances, as received back by the PACS stand-in)",
            "Twin record": str(result.twin_record),
            "Preview": str(result.preview),
            "PET as NIfTI": str(result.pet_nifti),
            "Report": str(result.report),
        }
    )
    print("Synthetic, research, not for diagnosis: the demonstration model has seen phantoms only.")
