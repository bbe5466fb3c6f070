"""The verb `demo`: the main job end to end, on loopback."""

from pathlib import Path
from typing import Annotated

from twin_scanner.cli.options import out_folder
from twin_scanner.cli.output import log_from, print_pairs, stages


def demo(
    out: Annotated[
        Path, out_folder("The folder for the results; an earlier demonstration's are cleared from it.")
    ] = Path("demo-out"),
) -> None:
    """Run the main job end to end on a generated whole-body CT, everything embedded, on loopback."""
    from twin_scanner.demo import run_demo

    log_from("ERROR")
    with stages(f"the next demonstration clears what is in {out}.") as stage:
        result = run_demo(out, stage)
    print_pairs(
        {
            "PET series": f"{result.pet_folder} ({result.pet_count} instances, as the PACS stand-in received them)",
            "Twin record": str(result.twin_record),
            "Preview": str(result.preview),
            "PET as NIfTI": str(result.pet_nifti),
            "Report": str(result.report),
        }
    )
    print("Synthetic, research, not for diagnosis: the demonstration model was trained on phantoms only.")
    print("Next:")
    print(f"  look at   {result.preview}")
    print(f"  ask       {result.twin_command}")
    print("  continue  twin-scanner translate CT_FOLDER --out RESULT, with a CT of your own")
