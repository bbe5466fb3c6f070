"""One CT to files: the PET series, NIfTI, preview and report; the command line and the worker process share it."""

import time
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from twin_scanner.dicom.ct_series import CtSeries, read_ct_series
from twin_scanner.dicom.patient import text
from twin_scanner.dicom.pet_series import PetSeries, Synthesis, write_pet_series
from twin_scanner.districts.district_map import Segmenter
from twin_scanner.districts.labelmap import LabelmapSegmenter
from twin_scanner.districts.landmarks import LandmarkSegmenter
from twin_scanner.errors import Rejected
from twin_scanner.models import ModelPackage, ModelStore, load_package
from twin_scanner.pipeline import PipelineOptions, SyntheticPet, translate_ct
from twin_scanner.preview import write_preview
from twin_scanner.service.report import REPORT, RenderReport, RenderRequest, read_report, write_report
from twin_scanner.volume import Volume, read_nifti, write_nifti

PRECISION = "float32"


def render(request: RenderRequest, progress: Callable[[int, int], None] | None = None) -> RenderReport:
    """Translate ``source`` (a folder of one CT series, or a NIfTI file in HU) into the folder ``result``.

    Repeatable: where a report already stands, nothing is made again. Raises Rejected for what cannot be translated.
    """
    if (request.result / REPORT).is_file():
        return read_report(request.result)
    begin = time.monotonic()
    package = _package(request.model, request.model_store)
    segmenter = make_segmenter(request.segmenter, request.labelmap)
    series, ct = _read(request)
    read = time.monotonic()
    pet = translate_ct(ct, package, segmenter, _options(request), progress)
    translated = time.monotonic()
    request.result.mkdir(parents=True, exist_ok=True)
    written = None if series is None else _write_dicom(request, series, pet, package)
    write_nifti(request.result / "pet.nii.gz", pet.suv.array, pet.suv.geometry)
    write_nifti(request.result / "districts.nii.gz", pet.districts, pet.suv.geometry)
    write_preview(request.result / "preview.png", pet.ct, pet.districts, pet.suv)
    seconds = {"read": read - begin, "translate": translated - read, "write": time.monotonic() - translated}
    report = _report(request, package, series, pet, written, {name: round(s, 2) for name, s in seconds.items()})
    write_report(request.result, report)
    return report


def make_segmenter(name: str, labelmap: Path | None) -> Segmenter:
    """The segmenter of that name; raises Rejected for an unknown one or a label map that was not given."""
    if name == "landmarks":
        return LandmarkSegmenter()
    if name == "labelmap" and labelmap is not None:
        return LabelmapSegmenter(labelmap)
    raise Rejected(f"There is no segmenter '{name}': choose landmarks, or labelmap with a label map file.")


def software_version() -> str:
    """The installed version of this software."""
    return version("twin-scanner")


def _options(request: RenderRequest) -> PipelineOptions:
    return PipelineOptions(request.allow_other_segmenter, request.missing_district)


def _package(reference: str, store: Path) -> ModelPackage:
    return _loaded(ModelStore(store).resolve(reference))


@lru_cache(maxsize=2)
def _loaded(folder: Path) -> ModelPackage:
    """Packages are immutable, so one that was loaded stays valid: the worker keeps the champion resident."""
    return load_package(folder)


def _read(request: RenderRequest) -> tuple[CtSeries | None, Volume]:
    if request.source.name.endswith((".nii", ".nii.gz")):
        return None, read_nifti(request.source)
    series = read_ct_series(request.source, accept_synthetic=request.accept_synthetic_ct)
    if request.needs_patient_id and not text(series.header, "PatientID").strip():
        raise Rejected("The CT has no PatientID (0010,0020), so its PET would belong to no twin: complete the CT.")
    return series, series.volume


def _write_dicom(request: RenderRequest, series: CtSeries, pet: SyntheticPet, package: ModelPackage) -> PetSeries:
    synthesis = Synthesis(
        model_name=package.name,
        model_hash=package.model_hash,
        plan_hash=package.plan.plan_hash,
        segmenter=pet.segmenter,
        segmenter_hash=pet.segmenter_hash,
        precision=PRECISION,
        software_version=software_version(),
        device_serial_number=request.device_serial_number,
        made_at=request.made_at,
        missing_districts=pet.missing_districts,
        revision=request.revision,
    )
    return write_pet_series(pet.suv, series, synthesis, request.result / "pet")


def _number(value: str) -> int | None:
    """An IS; scanners that write something else there are not worth losing a PET for."""
    try:
        return int(value)
    except ValueError:
        return None


def _report(
    request: RenderRequest,
    package: ModelPackage,
    series: CtSeries | None,
    pet: SyntheticPet,
    written: PetSeries | None,
    seconds: dict[str, float],
) -> RenderReport:
    dicom: dict[str, Any] = {}
    notes: tuple[str, ...] = ("A NIfTI file names no patient and no study: no DICOM series was written.",)
    if series is not None and written is not None:
        notes = series.set_aside
        dicom = {
            "study_uid": str(series.header.StudyInstanceUID),
            "source_series_uid": str(series.header.SeriesInstanceUID),
            "source_description": text(series.header, "SeriesDescription"),
            "source_number": _number(text(series.header, "SeriesNumber")),
            "source_body_part": text(series.header, "BodyPartExamined"),
            "source_sop_class_uid": series.sop_class_uid,
            "source_instance_uids": series.sop_instance_uids,
            "pet_series_uid": written.series_uid,
            "pet_instance_uids": written.sop_instance_uids,
            "pet_files": tuple(f"pet/{file.name}" for file in written.files),
        }
    return RenderReport(
        software_version=software_version(),
        model_name=package.name,
        model_hash=package.model_hash,
        plan_hash=package.plan.plan_hash,
        segmenter=pet.segmenter,
        segmenter_hash=pet.segmenter_hash,
        missing_districts=pet.missing_districts,
        district_volumes_ml={name: round(ml, 1) for name, ml in pet.district_volumes_ml().items()},
        suv_max=round(float(pet.suv.array.max()), 3),
        notes=notes,
        seconds=seconds,
        made_at=request.made_at.isoformat(),
        revision=request.revision,
        **dicom,
    )
