"""One CT to files: the PET series, NIfTI, preview and report; the command line and the worker process share it."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pydicom import dcmread
from pydicom.dataset import Dataset

from twin_scanner.dicom.read.ct_series import CtSeries, read_ct_series
from twin_scanner.dicom.read.patient import text
from twin_scanner.dicom.write.companions import WrittenObject
from twin_scanner.dicom.write.pet_series import WrittenSeries, acquisition_moment
from twin_scanner.districts.choice import SegmenterChoice, make_segmenter
from twin_scanner.districts.district_map import Segmenter
from twin_scanner.districts.labelmap import find_labelmap
from twin_scanner.errors import Misconfigured, Rejected
from twin_scanner.files.durable_file import writing
from twin_scanner.imaging.suv import RegionSuv, region_suv
from twin_scanner.imaging.volume import Volume, read_nifti_ct, write_nifti
from twin_scanner.models.card import check_serves_patients
from twin_scanner.models.compute import PROCESSOR, Compute
from twin_scanner.models.device import placed
from twin_scanner.models.package import ModelPackage, load_package
from twin_scanner.models.ranges import ct_facts, outside_of
from twin_scanner.models.store import ModelStore
from twin_scanner.pictures.preview import Scene, key_image, write_preview
from twin_scanner.progress import Progress
from twin_scanner.render.dicom_objects import DicomObjects, software_version, write_dicom
from twin_scanner.render.measurements import district_values, measurements, shown_body_part
from twin_scanner.render.optional_outputs import write_optional_outputs
from twin_scanner.render.read_ahead import READ_AHEAD
from twin_scanner.render.report import FOLDERS, REPORT, Companion, RenderReport, read_report, write_report
from twin_scanner.render.request import RenderRequest
from twin_scanner.synthesis.pipeline import PipelineOptions, SyntheticPet, translate_ct

PHANTOM_ONLY_NOTE: Final = (
    "The model was trained on phantoms only: this PET is a demonstration and says nothing of a patient."
)


def render(request: RenderRequest, progress: Progress | None = None) -> RenderReport:
    """Translate ``source`` (a folder of one CT series, or a NIfTI file in HU) into the folder ``result``.

    Repeatable: where a report already stands, nothing is rendered again. Raises Rejected for a CT that cannot be
    translated, Misconfigured for a model or a segmenter that cannot be used, or one of phantoms only that the request
    does not accept.
    """
    # 1. A result that is whole is not rendered again.
    if (request.result / REPORT).is_file():
        return read_report(request.result)
    begin = time.monotonic()
    # 2. The model, if it may serve this CT.
    package = load_model(request.model, request.model_store, request.compute)
    check_serves_patients(package.card, accept_phantom_only=request.accept_phantom_only)
    # 3. The CT and the segmenter of its districts.
    series, ct, segmenter = _read(request)
    read = time.monotonic()
    # 4. The synthesis.
    pet = translate_ct(ct, package, segmenter, _options(request), progress)
    del ct
    series = None if series is None else series.without_voxels()
    translated = time.monotonic()
    # 5. The folder of the result.
    with writing("The result", request.result):
        request.result.mkdir(parents=True, exist_ok=True)
    # 6. What was asked for besides: uncertainty, explanation.
    optional = write_optional_outputs(request, pet, package, progress)
    # 7. The SUV of each district.
    statistics = region_suv(pet.suv, pet.districts)
    # 8. Pictures and NIfTI files, in a thread beside the DICOM objects: they leave Python's lock for much of the time.
    scene = _scene(pet, package)
    with ThreadPoolExecutor(1, "pictures") as beside:
        picture = None
        if series is not None and request.outputs.key_image:
            model = f"{package.name} {package.model_hash[:12]}"
            picture = beside.submit(key_image, scene, model, measurements(pet, statistics))
        others = beside.submit(_write_others, request, pet, scene)
        # 9. The DICOM objects; a NIfTI file has no patient and no study to write them for.
        objects = None if series is None else write_dicom(request, series, pet, package, statistics, picture)
        others.result()
    # 10. The report, last: where it is, all the rest is there.
    seconds = {"read": read - begin, "translate": translated - read, "write": time.monotonic() - translated}
    seconds["networks"] = pet.networks_s
    rounded = {name: round(s, 2) for name, s in seconds.items()}
    report = replace(_report(request, package, series, pet, statistics, objects, rounded), **optional)
    write_report(request.result, report)
    return report


def _write_others(request: RenderRequest, pet: SyntheticPet, scene: Scene) -> None:
    """What is no DICOM: NIfTI files and preview."""
    write_nifti(request.result / "pet.nii.gz", pet.suv.array, pet.suv.geometry)
    write_nifti(request.result / "districts.nii.gz", pet.districts, pet.suv.geometry)
    write_preview(request.result / "preview.png", scene)


def _scene(pet: SyntheticPet, package: ModelPackage) -> Scene:
    names, phantom_only = pet.district_map.names, package.card.phantom_only
    return Scene(pet.ct, pet.districts, pet.suv, names, pet.missing_districts, phantom_only)


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
    return PipelineOptions(request.allow_other_segmenter, request.missing_district, request.stitching)


def load_model(reference: str, store: Path, compute: Compute = PROCESSOR) -> ModelPackage:
    """The model to translate with, on its device; what is wrong with it is never the CT's fault."""
    try:
        return _loaded(ModelStore(store).resolve(reference), compute)
    except Rejected as error:
        raise Misconfigured(str(error)) from error


@lru_cache(maxsize=2)
def _loaded(folder: Path, compute: Compute) -> ModelPackage:
    """Packages are immutable, so one that was loaded stays valid: the worker keeps the champion resident."""
    return placed(load_package(folder), compute)


def _read(request: RenderRequest) -> tuple[CtSeries | None, Volume, Segmenter]:
    if request.source.name.endswith((".nii", ".nii.gz")):
        return None, read_nifti_ct(request.source), make_segmenter(_segmenter_choice(request, None))
    ahead = READ_AHEAD.take(request)
    series = (
        ahead.series
        if ahead
        else read_ct_series(
            request.source,
            preference=request.preference,
            accept_synthetic=request.accept_synthetic_ct,
            gantry_tilt=request.gantry_tilt,
        )
    )
    if request.needs_patient_id and not text(series.header, "PatientID").strip():
        raise Rejected("The CT has no PatientID (0010,0020), so its PET would belong to no twin: complete the CT.")
    segmenter = ahead.segmenter if ahead else None
    return series, series.volume, segmenter or make_segmenter(_segmenter_choice(request, series))


def _number(value: str) -> int | None:
    """An IS; scanners that write something else there are not worth losing a PET for."""
    try:
        return int(value)
    except ValueError:
        return None


def _evidence_note(evidence: str) -> list[str]:
    """What the service knew to be missing when it went on without it."""
    kind, _, detail = evidence.partition(": ")
    return [f"The CT was not complete when it was translated ({detail})."] if kind == "incomplete" else []


def _report(
    request: RenderRequest,
    package: ModelPackage,
    series: CtSeries | None,
    pet: SyntheticPet,
    statistics: Mapping[int, RegionSuv],
    objects: DicomObjects | None,
    seconds: dict[str, float],
) -> RenderReport:
    dicom: dict[str, Any] = {}
    outside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ("A NIfTI file names no patient and no study: no DICOM series was written.",)
    if series is not None and objects is not None:
        written = objects.pet
        notes = series.set_aside
        outside = outside_of(package.card.ranges, ct_facts(series.header, series.volume.geometry))
        dicom = {
            "study_uid": str(series.header.StudyInstanceUID),
            "source_series_uid": str(series.header.SeriesInstanceUID),
            "source_description": text(series.header, "SeriesDescription"),
            "source_number": _number(text(series.header, "SeriesNumber")),
            "source_body_part": text(series.header, "BodyPartExamined"),
            "source_sop_class_uid": series.sop_class_uid,
            "source_derivation": series.derivation,
            "source_instance_uids": series.sop_instance_uids,
            "source_instance_numbers": series.instance_numbers,
            "pet_series_uid": written.series_uid,
            "pet_instance_uids": written.sop_instance_uids,
            **_pet_series(written, pet, text(series.header, "BodyPartExamined")),
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
        districts=district_values(pet, statistics),
        district_remarks={one.name: one.remark for one in measurements(pet, statistics) if one.remark},
        district_codes={
            name: {"value": code.value, "scheme": code.scheme_designator, "meaning": code.meaning}
            for name, code in pet.district_map.codes.items()
        },
        segmentation_quality=tuple(part.sentence() for part in pet.district_map.quality),
        suv_max=round(float(pet.suv.array.max()), 3),
        source_evidence=request.source_evidence,
        notes=(
            *notes,
            *_evidence_note(request.source_evidence),
            *_stitching_note(pet, package),
            *(_dose_notes(series.header) if series is not None and request.zero_dose else []),
            *(f"The CT is outside of the training data: {clause}." for clause in outside),
            *([PHANTOM_ONLY_NOTE] if package.card.phantom_only else []),
        ),
        seconds=seconds,
        made_at=request.made_at.isoformat(),
        revision=request.revision,
        stitching=pet.stitching,
        phantom_only=package.card.phantom_only,
        outside_training=outside,
        **dicom,
    )


def _pet_series(written: WrittenSeries, pet: SyntheticPet, source_body_part: str) -> dict[str, Any]:
    """What its own headers say of the PET, and what the CT shows."""
    header = dcmread(written.files[0], stop_before_pixels=True)
    return {
        "pet_instance_numbers": tuple(range(1, len(written.files) + 1)),
        "pet_description": str(header.SeriesDescription),
        "pet_number": int(header.SeriesNumber),
        "pet_body_part": shown_body_part(pet.district_map, source_body_part),
    }


def _stitching_note(pet: SyntheticPet, package: ModelPackage) -> list[str]:
    own = package.card.stitching
    return [] if pet.stitching == own else [f"Windows were stitched '{pet.stitching}'; the model was made for '{own}'."]


def _dose_notes(header: Dataset) -> list[str]:
    """What a CT lacks for SUV in a viewer that wants a dose, though the PET states one of 0."""
    needed = {"PatientWeight": text(header, "PatientWeight"), "time of acquisition": acquisition_moment(header)}
    lacking = " and no ".join(what for what, value in needed.items() if not value)
    return [f"The CT has no {lacking}: some viewers show no SUV in spite of pet.zero_dose."] if lacking else []


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
