"""The DICOM objects of a render: the PET series and the companions that the site wants."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import dcmread

from twin_scanner.dicom.read.ct_series import CtSeries
from twin_scanner.dicom.read.patient import text
from twin_scanner.dicom.write.companions import PET_CLASS, WrittenObject
from twin_scanner.dicom.write.key_image import write_key_image
from twin_scanner.dicom.write.key_objects import OF_INTEREST, SelectedSeries, write_key_objects
from twin_scanner.dicom.write.measurement_report import write_measurement_report
from twin_scanner.dicom.write.pet_series import Synthesis, WrittenSeries, comment, titled, write_pet_series
from twin_scanner.dicom.write.segmentation import write_segmentation
from twin_scanner.imaging.suv import RegionSuv
from twin_scanner.models.package import ModelPackage
from twin_scanner.models.ranges import ct_facts, outside_of
from twin_scanner.render.measurements import measurements, shown_body_part
from twin_scanner.render.report import FOLDERS
from twin_scanner.render.request import RenderRequest
from twin_scanner.synthesis.pipeline import SyntheticPet


@dataclass(frozen=True)
class DicomObjects:
    """The DICOM objects of one render."""

    pet: WrittenSeries
    companions: tuple[WrittenObject, ...]


def software_version() -> str:
    """The installed version of this software."""
    return version("twin-scanner")


def write_dicom(
    request: RenderRequest,
    series: CtSeries,
    pet: SyntheticPet,
    package: ModelPackage,
    statistics: Mapping[int, RegionSuv],
    key_image: "Future[npt.NDArray[np.uint8]] | None",
) -> DicomObjects:
    """The PET series and the companions that the site wants; the key image's pixels, if any, are waited for last."""
    synthesis = _synthesis(request, series, pet, package)
    written = write_pet_series(pet.suv, series, synthesis, request.result / "pet")
    companions = []
    wanted, districts, measured = request.outputs, pet.district_map, measurements(pet, statistics)
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
            folder = folders["measurement-report"]
            companions.append(
                write_measurement_report(measured, segmentation, series, written, synthesis, folder, districts.codes)
            )
    if key_image is not None:
        companions.append(write_key_image(key_image.result(), series, written, synthesis, folders["key-image"]))
    if wanted.key_objects:
        companions.append(_write_selection(written, companions, synthesis, folders["key-objects"]))
    return DicomObjects(written, tuple(companions))


def _write_selection(
    pet: WrittenSeries, companions: Sequence[WrittenObject], synthesis: Synthesis, folder: Path
) -> WrittenObject:
    """The document that names every result of this synthesis."""
    results = [
        SelectedSeries(pet.series_uid, PET_CLASS, pet.sop_instance_uids),
        *(SelectedSeries(one.series_uid, one.sop_class_uid, (one.sop_instance_uid,)) for one in companions),
    ]
    return write_key_objects(
        "key-objects",
        OF_INTEREST,
        results,
        dcmread(pet.files[0], stop_before_pixels=True),
        synthesis.made_at,
        folder,
        series_description=titled("SYNTHETIC FDG-PET, all results, RESEARCH", synthesis),
        explanation=f"All results of one synthesis; {comment(synthesis)}",
    )


def _synthesis(request: RenderRequest, series: CtSeries, pet: SyntheticPet, package: ModelPackage) -> Synthesis:
    return Synthesis(
        model_name=package.name,
        model_hash=package.model_hash,
        plan_hash=package.plan.plan_hash,
        segmenter=pet.district_map.segmenter,
        segmenter_hash=pet.district_map.segmenter_hash,
        precision=package.computes_in,
        software_version=software_version(),
        device_serial_number=request.device_serial_number,
        made_at=request.made_at,
        missing_districts=pet.missing_districts,
        revision=request.revision,
        phantom_only=package.card.phantom_only,
        source_derivation=series.derivation,
        stitching=pet.stitching,
        zero_dose=request.zero_dose,
        body_part=shown_body_part(pet.district_map, text(series.header, "BodyPartExamined")),
        outside_training=outside_of(package.card.ranges, ct_facts(series.header, series.volume.geometry)),
    )
