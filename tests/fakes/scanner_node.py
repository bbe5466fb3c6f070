"""The command line with a fake render and a clock that a test sets: ``scanner_node.py CLOCK serve --config FILE``.

Everything is the product's own, its verbs too, but the render, which writes a few tiny PET images in a moment, always
the same for the same request. ``CLOCK`` is a file with the seconds by which this node's wall clock is wrong; a missing
file means none.
"""

import sys
import time
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid

from twin_scanner import app
from twin_scanner.cli.command_line import main as run
from twin_scanner.render.report import REPORT, RenderReport, read_report, write_report
from twin_scanner.render.request import RenderRequest
from twin_scanner.service.ledger import utc_now
from twin_scanner.service.worker import Beat

PET_SLICES: Final = 6
RENDER_S: Final = 0.3


def fake_render(request: RenderRequest, beat: Beat) -> RenderReport:
    """What a render leaves behind: PET files, then the report; both are kept where they are there already."""
    if (request.result / REPORT).is_file():
        return read_report(request.result)
    time.sleep(RENDER_S)
    beat()
    sources = sorted(request.source.rglob("*.dcm"))
    cts = [pydicom.dcmread(file, stop_before_pixels=True) for file in sources]
    (request.result / "pet").mkdir(parents=True, exist_ok=True)
    series_uid = generate_uid(entropy_srcs=[*(ct.SOPInstanceUID for ct in cts), str(request.revision)])
    pets = [_pet(cts[0], series_uid, number, request) for number in range(1, PET_SLICES + 1)]
    names = tuple(f"pet/pet-{number:04}.dcm" for number in range(1, PET_SLICES + 1))
    for name, pet in zip(names, pets, strict=True):
        pet.save_as(request.result / name, enforce_file_format=True)
    report = RenderReport(
        software_version="0",
        model_name="fake",
        model_hash="f" * 64,
        plan_hash="f" * 64,
        segmenter="fake",
        segmenter_hash="f" * 64,
        missing_districts=(),
        districts={"trunk": {"volume_ml": 1.0, "suv_mean": 1.0, "suv_max": 1.0, "suv_peak": 1.0}},
        segmentation_quality=(),
        suv_max=1.0,
        notes=(),
        seconds={},
        made_at=request.made_at.isoformat(),
        revision=request.revision,
        study_uid=str(cts[0].StudyInstanceUID),
        source_series_uid=str(cts[0].SeriesInstanceUID),
        source_sop_class_uid=str(cts[0].SOPClassUID),
        source_instance_uids=tuple(str(ct.SOPInstanceUID) for ct in cts),
        pet_series_uid=series_uid,
        pet_instance_uids=tuple(str(pet.SOPInstanceUID) for pet in pets),
        pet_files=names,
    )
    write_report(request.result, report)
    return report


def _pet(ct: Dataset, series_uid: str, number: int, request: RenderRequest) -> Dataset:
    """A PET image; its date is the job's, so two renders of one job by clocks that disagree would differ."""
    pet = Dataset()
    pet.file_meta = FileMetaDataset()
    pet.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pet.SOPClassUID, pet.Modality = PositronEmissionTomographyImageStorage, "PT"
    pet.SOPInstanceUID = generate_uid(entropy_srcs=[series_uid, str(number)])
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
        setattr(pet, keyword, ct.get(keyword))
    pet.StudyTime, pet.AccessionNumber, pet.FrameOfReferenceUID = ct.StudyTime, "", ct.FrameOfReferenceUID
    pet.SeriesInstanceUID, pet.SeriesNumber, pet.InstanceNumber = series_uid, 201, number
    pet.SeriesDescription, pet.DeviceSerialNumber = "SYNTHETIC", request.device_serial_number
    pet.SeriesDate, pet.SeriesTime = f"{request.made_at:%Y%m%d}", f"{request.made_at:%H%M%S.%f}"
    pet.Rows, pet.Columns, pet.SamplesPerPixel, pet.PhotometricInterpretation = 8, 8, 1, "MONOCHROME2"
    pet.BitsAllocated, pet.BitsStored, pet.HighBit, pet.PixelRepresentation = 16, 16, 15, 0
    pet.PixelData = np.full((8, 8), number, np.uint16).tobytes()
    return pet


def main(clock: Path, words: list[str]) -> None:
    """The command line with these words, whose scanner renders and reads the clock as this file says."""

    def now() -> datetime:
        wrong_s = float(clock.read_text() or 0.0) if clock.exists() else 0.0
        return utc_now() + timedelta(seconds=wrong_s)

    app.Scanner = partial(app.Scanner, now=now, render=fake_render)  # type: ignore[assignment,misc]
    sys.argv[1:] = words
    run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
