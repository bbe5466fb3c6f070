"""The verb `segment`: one CT to its district label map."""

from pathlib import Path
from typing import Annotated

from twin_scanner.cli.options import (
    ConfigFile,
    CtSource,
    LabelmapFile,
    SegmenterName,
    out_file,
    read_settings,
    segmenter_with,
)
from twin_scanner.cli.output import say, stages
from twin_scanner.errors import Rejected


def segment(
    source: CtSource,
    out: Annotated[Path, out_file("The file for the label map (.nii.gz).")],
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
    chosen = make_segmenter(segmenter_with(read_settings(config), segmenter, labelmap))
    with stages("no label map was written.") as stage:
        progress = stage("Splitting into districts")
        progress(0, 1)
        is_nifti = source.name.endswith((".nii", ".nii.gz"))
        ct = read_nifti_ct(source) if is_nifti else read_ct_series(source, accept_synthetic=True).volume
        districts = chosen.segment(ct)
        write_nifti(out, districts.labels, districts.geometry)
        progress(1, 1)
    for part in districts.quality:
        say(part.sentence())
    print(out)
