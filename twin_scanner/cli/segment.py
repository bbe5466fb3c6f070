"""The verb `segment`: one CT to its district label map."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from twin_scanner.imaging.volume import Volume
    from twin_scanner.settings import Settings


def segment(
    source: CtSource,
    out: Annotated[Path, out_file("The file for the label map (.nii.gz).")],
    segmenter: SegmenterName = None,
    labelmap: LabelmapFile = None,
    config: ConfigFile = None,
) -> None:
    """Split a CT into districts: 0 outside the body, 1 head, 2 trunk, 3 arms, 4 legs, on the CT's grid."""
    from twin_scanner.districts.choice import make_segmenter
    from twin_scanner.imaging.volume import write_nifti

    if not out.name.endswith((".nii", ".nii.gz")):
        raise Rejected(f"{out} is no NIfTI name: let it end in .nii.gz.")
    settings = read_settings(config)
    chosen = make_segmenter(segmenter_with(settings, segmenter, labelmap))
    with stages("no label map was written.") as stage:
        progress = stage("Splitting into districts")
        progress(0, 1)
        ct, notes = _read(source, settings)
        districts = chosen.segment(ct)
        write_nifti(out, districts.labels, districts.geometry)
        progress(1, 1)
    for sentence in (*notes, *(part.sentence() for part in districts.quality)):
        say(sentence)
    print(out)


def _read(source: Path, settings: "Settings") -> "tuple[Volume, tuple[str, ...]]":
    """The CT, and sentences on how it was read."""
    from twin_scanner.app import series_preference
    from twin_scanner.dicom.read.ct_series import read_ct_series
    from twin_scanner.imaging.volume import read_nifti_ct

    if source.name.endswith((".nii", ".nii.gz")):
        return read_nifti_ct(source), ()
    preference, tilt = series_preference(settings), settings.reading.gantry_tilt
    series = read_ct_series(source, preference=preference, accept_synthetic=True, gantry_tilt=tilt)
    return series.volume, series.set_aside
