"""One CT to files: the PET series, NIfTI, preview and report; the command line and the worker process share it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from twin_scanner.dicom.read.ct_series import CtSeries, read_ct_series
from twin_scanner.dicom.read.patient import text
from twin_scanner.dicom.write.companions import WrittenObject
from twin_scanner.dicom.write.key_image import write_key_image
from twin_scanner.dicom.write.measurement_report import DistrictMeasurement, write_measurement_report
from twin_scanner.dicom.write.pet_series import Synthesis, WrittenSeries, write_pet_series
from twin_scanner.dicom.write.segmentation import segment_numbers, write_segmentation
from twin_scanner.districts.choice import SegmenterChoice, make_segmenter
from twin_scanner.districts.district_map import PartQuality
from twin_scanner.districts.labelmap import find_labelmap
from twin_scanner.errors import Misconfigured, Rejected
from twin_scanner.files.durable_file import writing
from twin_scanner.imaging.suv import RegionSuv, region_suv
from twin_scanner.imaging.volume import Volume, read_nifti_ct, write_nifti
from twin_scanner.models.card import check_serves_patients
from twin_scanner.models.package import ModelPackage, load_package
from twin_scanner.models.store import ModelStore
from twin_scanner.pictures.preview import Scene, key_image, write_preview
from twin_scanner.progress import Progress
from twin_scanner.render.optional_outputs import write_optional_outputs
from twin_scanner.render.report import FOLDERS, REPORT, Companion, RenderReport, read_report, write_report
from twin_scanner.render.request import RenderRequest
from twin_scanner.synthesis.pipeline import PipelineOptions, SyntheticPet, translate_ct

PRECISION = "float32"
PHANTOM_ONLY_NOTE = "The model was trained on phantoms only: this PET is a demonstration and says nothing of a patient."


@dataclass(frozen=True)
class _DicomObjects:
    """The DICOM objects of one render."""

    pet: WrittenSeries
    companions: tuple[WrittenObject, ...]


def render(request: RenderRequest, progress: Progress | None = None) -> RenderReport:
    """Translate ``source`` (a folder of one CT series, or a NIfTI file in HU) into the folder ``result``.

    Repeatable: where a report already stands, nothing is rendered again. Raises Rejected for a CT that cannot be
    translated, Misconfigured for a model or a segmenter that cannot be used, or one of phantoms only that the request
    does not accept.
    """
    if (request.result / REPORT).is_file():
        return read_report(request.result)
    begin = time.monotonic()
    package = _package(request.model, request.model_store)
    check_serves_patients(package.card, accept_phantom_only=request.accept_phantom_only)
    series, ct = _read(request)
    segmenter = make_segmenter(_segmenter_choice(request, series))
    read = time.monotonic()
    pet = translate_ct(ct, package, segmenter, _options(request), progress)
    translated = time.monotonic()
    with writing("The result", request.result):
        request.result.mkdir(parents=True, exist_ok=True)
    optional = write_optional_outputs(request, pet, package, progress)
    statistics = region_suv(pet.suv, pet.districts)
    names, phantom_only = pet.district_map.names, package.card.phantom_only
    scene = Scene(pet.ct, pet.districts, pet.suv, names, pet.missing_districts, phantom_only)
    objects = None if series is None else _write_dicom(request, series, pet, package, statistics, scene)
    write_nifti(request.result / "pet.nii.gz", pet.suv.array, pet.suv.geometry)
    write_nifti(request.result / "districts.nii.gz", pet.districts, pet.suv.geometry)
    write_preview(request.result / "preview.png", scene)
    seconds = {"read": read - begin, "translate": translated - read, "write": time.monotonic() - translated}
    rounded = {name: round(s, 2) for name, s in seconds.items()}
    report = replace(_report(request, package, series, pet, statistics, objects, rounded), **optional)
    write_report(request.result, report)
    return report


def software_version() -> str:
    """The installed version of this software."""
    return version("twin-scanner")


def _segmenter_choice(request: RenderRequest, series: CtSeries | None) -> SegmenterChoice:
    """The site's choice; of a folder of label maps, the one of this CT."""
    choice = request.segmenter
    if choice.name != "labelmap" or choice.labelmap is None or series is None:
        return choice
    header, labelmap = series.header, choice.labelmap
    if labelmap.is_dir():
        labelmap = find_labelmap(labelmap, str(header.SeriesInstanceUID), str(header.StudyInstanceUID))
    return replace(choice, labelmap=labelmap, frame_of_reference_uid=str(header.FrameOfReferenceUID))


def _options(request: RenderRequest) -> PipelineOptions:
    return PipelineOptions(request.allow_other_segmenter, request.missing_district)


def _package(reference: str, store: Path) -> ModelPackage:
    """The model to translate with; what is wrong with it is never the CT's fault."""
    try:
        return _loaded(ModelStore(store).resolve(reference))
    except Rejected as error:
        raise Misconfigured(str(error)) from error


@lru_cache(maxsize=2)
def _loaded(folder: Path) -> ModelPackage:
    """Packages are immutable, so one that was loaded stays valid: the worker keeps the champion resident."""
    return load_package(folder)


def _read(request: RenderRequest) -> tuple[CtSeries | None, Volume]:
    if request.source.name.endswith((".nii", ".nii.gz")):
        return None, read_nifti_ct(request.source)
    series = read_ct_series(request.source, accept_synthetic=request.accept_synthetic_ct)
    if request.needs_patient_id and not text(series.header, "PatientID").strip():
        raise Rejected("The CT has no PatientID (0010,0020), so its PET would belong to no twin: complete the CT.")
    return series, series.volume


def _write_dicom(
    request: RenderRequest,
    series: CtSeries,
    pet: SyntheticPet,
    package: ModelPackage,
    statistics: Mapping[int, RegionSuv],
    scene: Scene,
) -> _DicomObjects:
    """The PET series and the companions that the site wants."""
    synthesis = _synthesis(request, pet, package)
    written = write_pet_series(pet.suv, series, synthesis, request.result / "pet")
    companions = []
    wanted, districts = request.outputs, pet.district_map
    folders = {kind: request.result / name for kind, name in FOLDERS.items()}
    if wanted.segmentation != "none":
        segmentation = write_segmentation(
            districts.labels,
            districts.geometry,
            districts.names,
            series,
            written,
            synthesis,
            folders["segmentation"],
            wanted.segmentation,
            districts.codes,
        )
        companions.append(segmentation)
        if wanted.measurement_report:
            measured, folder = _measurements(pet, statistics), folders["measurement-report"]
            companions.append(
                write_measurement_report(measured, segmentation, series, written, synthesis, folder, districts.codes)
            )
    if wanted.key_image:
        pixels = key_image(scene, f"{package.name} {package.model_hash[:12]}")
        companions.append(write_key_image(pixels, series, written, synthesis, folders["key-image"]))
    return _DicomObjects(written, tuple(companions))


def _synthesis(request: RenderRequest, pet: SyntheticPet, package: ModelPackage) -> Synthesis:
    return Synthesis(
        model_name=package.name,
        model_hash=package.model_hash,
        plan_hash=package.plan.plan_hash,
        segmenter=pet.district_map.segmenter,
        segmenter_hash=pet.district_map.segmenter_hash,
        precision=PRECISION,
        software_version=software_version(),
        device_serial_number=request.device_serial_number,
        made_at=request.made_at,
        missing_districts=pet.missing_districts,
        revision=request.revision,
        phantom_only=package.card.phantom_only,
    )


def _measurements(pet: SyntheticPet, statistics: Mapping[int, RegionSuv]) -> list[DistrictMeasurement]:
    """One for every segment, in the segmentation's order; a district that was not synthesised has no SUV."""
    districts = pet.district_map
    volumes = districts.volumes_ml()
    measured = []
    for label, number in segment_numbers(districts.voxels).items():
        name = districts.name(label)
        suv = None if name in pet.missing_districts else statistics.get(label)
        measured.append(DistrictMeasurement(name, number, volumes[name], suv, _remark(name, districts.quality)))
    return measured


def _remark(district: str, quality: Sequence[PartQuality]) -> str:
    """What the segmenter says of a district's own parts; of the trunk, and of finer regions, all that borders on it."""
    own = [part for part in quality if part.district == district]
    return " ".join(part.sentence() for part in own or quality)


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
    statistics: Mapping[int, RegionSuv],
    objects: _DicomObjects | None,
    seconds: dict[str, float],
) -> RenderReport:
    dicom: dict[str, Any] = {}
    notes: tuple[str, ...] = ("A NIfTI file names no patient and no study: no DICOM series was written.",)
    if series is not None and objects is not None:
        written = objects.pet
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
            "companions": tuple(_companion(companion) for companion in objects.companions),
        }
    return RenderReport(
        software_version=software_version(),
        model_name=package.name,
        model_hash=package.model_hash,
        plan_hash=package.plan.plan_hash,
        segmenter=pet.district_map.segmenter,
        segmenter_hash=pet.district_map.segmenter_hash,
        missing_districts=pet.missing_districts,
        districts=_district_values(pet, statistics),
        segmentation_quality=tuple(part.sentence() for part in pet.district_map.quality),
        suv_max=round(float(pet.suv.array.max()), 3),
        notes=(*notes, *([PHANTOM_ONLY_NOTE] if package.card.phantom_only else [])),
        seconds=seconds,
        made_at=request.made_at.isoformat(),
        revision=request.revision,
        phantom_only=package.card.phantom_only,
        **dicom,
    )


def _district_values(pet: SyntheticPet, statistics: Mapping[int, RegionSuv]) -> dict[str, dict[str, float]]:
    """Volume on the CT's grid in ml and SUV of the synthetic PET in g/ml; none for what was not synthesised."""
    values = {}
    for district in _measurements(pet, statistics):
        values[district.name] = {"volume_ml": round(district.volume_ml, 1)}
        if district.suv is not None:
            suv = {"suv_mean": district.suv.mean, "suv_max": district.suv.maximum, "suv_peak": district.suv.peak}
            values[district.name] |= {name: round(value, 4) for name, value in suv.items() if value is not None}
    return values


def _companion(companion: WrittenObject) -> Companion:
    return Companion(
        modality=companion.modality,
        series_uid=companion.series_uid,
        sop_class_uid=companion.sop_class_uid,
        sop_instance_uid=companion.sop_instance_uid,
        file=f"{FOLDERS[companion.kind]}/{companion.file.name}",
        description=companion.description,
        number=companion.number,
        synthetic=companion.synthetic,
    )
