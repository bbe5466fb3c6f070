"""A render of a small phantom's CT: what its files say, and what keeps it from starting."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest

from tests.fakes.full_disk import files_end_at
from tests.samples.saved_packages import saved_package
from training.phantom.files import write_ct_dicom
from training.phantom.phantom import make_phantom, sample_options
from twin_scanner.dicom.read.preference import Preference
from twin_scanner.districts.choice import SegmenterChoice
from twin_scanner.errors import Misconfigured, Rejected, Transient
from twin_scanner.models.plan import Plan
from twin_scanner.models.store import ModelStore
from twin_scanner.render.render import _dose_notes, _evidence_note, _scene, render
from twin_scanner.render.report import read_report, write_report
from twin_scanner.render.request import Outputs, RenderRequest

pytestmark = pytest.mark.unit

PLAN = Plan(spacing_mm=(20.0, 20.0, 20.0))
PHANTOMS = {"training_data": {"kind": "phantoms", "pairs": 1}}
PATIENTS = {"training_data": {"kind": "store", "pairs": 9, "phantoms": 1}}
SENTENCE = "model trained on phantoms only"
RequestFor = Callable[[dict[str, object]], RenderRequest]


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom's CT as DICOM, at 10 mm."""
    folder = tmp_path_factory.mktemp("ct")
    options = sample_options(3, spacing_mm=(10.0, 10.0, 10.0))
    write_ct_dicom(make_phantom(3, options).ct, folder, seed=3, options=options)
    return folder


@pytest.fixture
def request_for(ct: Path, tmp_path: Path) -> RequestFor:
    """A request for a model whose card says this."""

    def build(about: dict[str, object]) -> RenderRequest:
        store = ModelStore(tmp_path / "models")
        package = store.add(saved_package(tmp_path / "package", plan=PLAN, about=about))
        return RenderRequest(
            source=ct,
            result=tmp_path / "result",
            made_at=datetime(2026, 1, 1, tzinfo=UTC),
            model=package.name,
            model_store=store.folder,
            segmenter=SegmenterChoice("landmarks"),
            allow_other_segmenter=False,
            missing_district="reject",
            device_serial_number="TS-0001",
            accept_synthetic_ct=True,
        )

    return build


def test_a_model_of_phantoms_renders_nothing_unless_that_is_accepted(request_for: RequestFor) -> None:
    request = request_for(PHANTOMS)
    with pytest.raises(Misconfigured, match=r"'small' .* trained on phantoms only.*model\.accept_phantom_only"):
        render(request)
    assert not request.result.exists()


def test_whatever_a_model_of_phantoms_makes_says_so(request_for: RequestFor) -> None:
    request = replace(request_for(PHANTOMS), accept_phantom_only=True)
    report = render(request)
    assert report.phantom_only and read_report(request.result) == report
    assert [note for note in report.notes if "trained on phantoms only" in note]
    pet = [pydicom.dcmread(request.result / name) for name in report.pet_files]
    assert {image.SeriesDescription for image in pet} == {"SYNTHETIC FDG-PET, PHANTOM-ONLY MODEL"}
    assert all(SENTENCE in image.ImageComments for image in pet)
    files = ("sr/measurement-report.dcm", "key/key-image.dcm", "ko/key-objects.dcm")
    sr, key, selection = (pydicom.dcmread(request.result / file) for file in files)
    assert SENTENCE in str(sr) and sr.SeriesDescription.endswith("PHANTOM-ONLY MODEL")
    assert SENTENCE in key.ImageComments and key.SeriesDescription.endswith("PHANTOM-ONLY MODEL")
    assert SENTENCE in str(selection) and selection.SeriesDescription.endswith("PHANTOM-ONLY MODEL")


@pytest.mark.parametrize("phantom_only", [False, True])
def test_the_pictures_of_a_render_know_what_the_model_has_seen(phantom_only: bool) -> None:
    pet: Any = SimpleNamespace(
        ct=None, districts=None, suv=None, district_map=SimpleNamespace(names={}), missing_districts=()
    )
    package: Any = SimpleNamespace(card=SimpleNamespace(phantom_only=phantom_only))
    assert _scene(pet, package).phantom_only is phantom_only


def test_a_model_of_patients_needs_no_acceptance_and_nothing_speaks_of_phantoms(request_for: RequestFor) -> None:
    """Its card states ranges too, outside of one of which the CT is: what is delivered nevertheless says so."""
    ranges = {"age_years": [0, 1], "slice_spacing_mm": [1, 20]}
    request = replace(request_for({"training_data": {**PATIENTS["training_data"], "ranges": ranges}}), zero_dose=True)
    report = render(request)
    assert not report.phantom_only
    (outside,) = report.outside_training
    assert "age lies outside" in outside
    assert any(outside in note for note in report.notes)
    sr = pydicom.dcmread(request.result / "sr/measurement-report.dcm")
    said = {str(element.value) for element in sr.iterall() if element.keyword == "TextValue"}
    assert f"outside of the training data: {outside}" in said
    files = [request.result / name for name in (*report.pet_files, *(one.file for one in report.companions))]
    assert files and not any("PHANTOM-ONLY" in str(pydicom.dcmread(file)) for file in files)
    assert not any(SENTENCE in str(pydicom.dcmread(file)) for file in files)
    isotope = pydicom.dcmread(files[0]).RadiopharmaceuticalInformationSequence[0]
    assert isotope.RadionuclideTotalDose == 0
    *others, selection = report.companions
    assert named_by(request.result / selection.file) == {
        report.pet_series_uid: list(report.pet_instance_uids),
        **{one.series_uid: [one.sop_instance_uid] for one in others},
    }


def test_the_report_of_a_ct_that_was_not_complete_says_what_was_missing() -> None:
    assert _evidence_note("incomplete: 430 of 512") == ["The CT was not complete when it was translated (430 of 512)."]
    assert [note for evidence in ("C-FIND: 512 of 512", "quiet period", "") for note in _evidence_note(evidence)] == []


def named_by(key_objects: Path) -> dict[str, list[str]]:
    """The instances that a key object selection names, by series."""
    (study,) = pydicom.dcmread(key_objects).CurrentRequestedProcedureEvidenceSequence
    return {
        series.SeriesInstanceUID: [one.ReferencedSOPInstanceUID for one in series.ReferencedSOPSequence]
        for series in study.ReferencedSeriesSequence
    }


def test_a_stitching_that_the_site_chooses_makes_other_uids_and_is_reported(request_for: RequestFor) -> None:
    """The paper's average leaves its UIDs as they were: see the tests of the PET series."""
    request = replace(request_for(PATIENTS), outputs=Outputs("none", measurement_report=False, key_image=False))
    own = render(request)
    assert named_by(request.result / "ko/key-objects.dcm") == {own.pet_series_uid: list(own.pet_instance_uids)}
    alone = Outputs("none", measurement_report=False, key_image=False, key_objects=False)
    other = render(replace(request, result=request.result.with_name("other"), stitching="gaussian", outputs=alone))
    assert other.companions == () and not (request.result.with_name("other") / "ko").exists()
    assert (own.stitching, other.stitching) == ("uniform", "gaussian")
    assert own.model_hash == other.model_hash and own.pet_series_uid != other.pet_series_uid
    assert "Windows were stitched 'gaussian'; the model was made for 'uniform'." in other.notes
    assert not [note for note in own.notes if "stitched" in note]


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({}, "The CT has no PatientWeight and no time of acquisition: some viewers show no SUV"),
        ({"PatientWeight": "70", "AcquisitionDate": "20260102"}, "The CT has no time of acquisition: some viewers"),
        ({"PatientWeight": "70", "AcquisitionDate": "20260102", "AcquisitionTime": "0910"}, ""),
    ],
)
def test_what_a_ct_lacks_for_a_dose_of_zero_is_noted(attributes: dict[str, str], said: str) -> None:
    header = pydicom.Dataset()
    header.update(attributes)
    notes = _dose_notes(header)
    assert len(notes) == bool(said) and said in "".join(notes)


@pytest.mark.parametrize("limit_bytes", [400, 8_000, 60_000])
def test_a_full_disk_is_an_error_in_one_sentence_whatever_was_being_written(
    request_for: RequestFor, limit_bytes: int
) -> None:
    """Oracle: a limit on file sizes; by size it first meets a DICOM object, the NIfTI files or the pictures."""
    request = request_for(PATIENTS)
    with files_end_at(limit_bytes), pytest.raises(Transient, match="cannot be written to") as fault:
        render(request)
    assert "\n" not in str(fault.value)
    assert not (request.result / "report.json").exists(), "nobody takes half a result for a whole one"


def test_a_report_that_does_not_fit_on_the_disk_is_transient(request_for: RequestFor, tmp_path: Path) -> None:
    report = render(request_for(PATIENTS))
    (tmp_path / "other").mkdir()
    with files_end_at(100), pytest.raises(Transient, match=r"report\.json cannot be written to"):
        write_report(tmp_path / "other", report)


def copies(ct: Path, folder: Path, change: Callable[[pydicom.Dataset, float], None], name: str = "") -> list[Path]:
    """The CT's files with a change that knows the slice's height above the lowest one in mm."""
    folder.mkdir(exist_ok=True)
    images = [pydicom.dcmread(file) for file in sorted(ct.iterdir())]
    lowest = min(float(image.ImagePositionPatient[2]) for image in images)
    for number, image in enumerate(images):
        change(image, float(image.ImagePositionPatient[2]) - lowest)
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.save_as(folder / f"{name}{number:04d}.dcm")
    return sorted(folder.iterdir())


def test_a_tilted_ct_is_translated_on_request_and_every_result_names_the_resampling(
    request_for: RequestFor, ct: Path, tmp_path: Path
) -> None:
    def tilt(image: pydicom.Dataset, height_mm: float) -> None:
        image.ImagePositionPatient[1] += math.tan(math.radians(8.0)) * height_mm

    files = copies(ct, tmp_path / "tilted", tilt)
    request = replace(request_for(PATIENTS), source=tmp_path / "tilted")
    with pytest.raises(Rejected, match=r"sheared by 8\.0 degrees .*reading\.gantry_tilt"):
        render(request)
    report = render(replace(request, gantry_tilt="resample"))
    said = report.source_derivation
    assert said.startswith("The gantry was tilted by 8.0 degrees: the CT was resampled (linear) to an upright grid of ")
    assert said in report.notes and said in (request.result / "report.json").read_text("utf-8")
    sources = [pydicom.dcmread(file) for file in files]
    by_uid = {str(image.SOPInstanceUID): image for image in sources}
    assert set(report.source_instance_uids) == set(by_uid)
    for image in (pydicom.dcmread(request.result / name) for name in report.pet_files):
        assert said in image.DerivationDescription
        assert said in image.ContributingEquipmentSequence[0].ContributionDescription
        assert image.FrameOfReferenceUID == sources[0].FrameOfReferenceUID
        assert image.ImageOrientationPatient == sources[0].ImageOrientationPatient
        heights = [
            float(by_uid[one.ReferencedSOPInstanceUID].ImagePositionPatient[2]) for one in image.SourceImageSequence
        ]
        assert np.abs(np.array(heights) - float(image.ImagePositionPatient[2])).max() <= 15.0
        (series,) = image.ReferencedSeriesSequence
        assert {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence} <= set(by_uid)
    sr = pydicom.dcmread(request.result / "sr" / "measurement-report.dcm")
    texts = [str(element.value) for element in sr.iterall() if element.keyword == "TextValue"]
    assert texts.count(said) == len(report.districts)
    seg = pydicom.dcmread(request.result / "seg" / "segmentation.dcm")
    assert said in seg.ContributingEquipmentSequence[0].ContributionDescription


def test_of_two_phases_the_wanted_one_is_translated_and_the_report_counts_the_other(
    request_for: RequestFor, ct: Path, tmp_path: Path
) -> None:
    def plain(image: pydicom.Dataset, height_mm: float) -> None:
        image.AcquisitionNumber, image.ContrastBolusAgent = 1, ""

    def enhanced(image: pydicom.Dataset, height_mm: float) -> None:
        image.AcquisitionNumber, image.ContrastBolusAgent = 2, "Iomeprol"
        image.SOPInstanceUID += ".2"

    count = len(copies(ct, tmp_path / "phases", plain, "a"))
    copies(ct, tmp_path / "phases", enhanced, "b")
    request = replace(request_for(PATIENTS), source=tmp_path / "phases", preference=Preference(contrast="with"))
    report = render(request)
    assert all(uid.endswith(".2") for uid in report.source_instance_uids)
    assert len(report.source_instance_uids) == count
    chosen = (
        f"2 phases share the series, told apart by AcquisitionNumber: AcquisitionNumber 2 ({count} images) was read."
    )
    assert report.notes[0] == chosen
    assert report.notes[1].startswith(f"AcquisitionNumber 1 ({count} images) was left out, for ")
    pet = pydicom.dcmread(request.result / report.pet_files[0])
    assert all(one.ReferencedSOPInstanceUID.endswith(".2") for one in pet.SourceImageSequence)
