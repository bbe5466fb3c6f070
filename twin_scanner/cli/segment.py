"""One CT to its districts, at the desk."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from twin_scanner.cli.options import ConfigFile, LabelmapFile, SegmenterName, read_settings, segmenter_with
from twin_scanner.errors import Rejected


def segment(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A folder of a CT series, or a .nii.gz file in HU.")],
    out: Annotated[Path, typer.Option("--out", help="The label map to write (.nii.gz).", dir_okay=False)],
    segmenter: SegmenterName = None,
    labelmap: LabelmapFile = None,
    config: ConfigFile = None,
) -> None:
    """Split a CT into districts: 0 outside the body, 1 head, 2 trunk, 3 arms, 4 legs, on the CT's grid."""
    from twin_scanner.dicom.read.ct_series import read_ct_series
    from twin_scanner.districts.choice import make_segmenter
    from twin_scanner.imaging.volume import read_nifti_ct, write_nifti

    if not out.name.endswith((".nii", ".nii.gz")):
        raise Rejected(f"{out} is no NIfTI name: let it end in .nii.gz.")
    is_nifti = source.name.endswith((".nii", ".nii.gz"))
    ct = read_nifti_ct(source) if is_nifti else read_ct_series(source, accept_synthetic=True).volume
    districts = make_segmenter(segmenter_with(read_settings(config), segmenter, labelmap)).segment(ct)
    write_nifti(out, districts.labels, districts.geometry)
    for part in districts.quality:
        print(part.sentence(), file=sys.stderr)
    print(out)
