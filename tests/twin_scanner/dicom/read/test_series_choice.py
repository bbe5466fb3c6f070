"""One CT series a study and frame of reference: which is chosen, and what is said of the others."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.samples.ct_files import FRAME_OF_REFERENCE_UID, STUDY_UID, ct_image, save, write_series
from twin_scanner.dicom.read.preference import Kernel, Preference, kernel_of
from twin_scanner.dicom.read.series_choice import Choice, choose_series
from twin_scanner.errors import Rejected

pytestmark = pytest.mark.unit

DEFAULT = Preference(minimum_coverage_mm=40.0)


def series(folder: Path, series_uid: str, count: int = 16, **attributes: Any) -> list[Path]:
    """Write one series of a study."""
    return write_series(folder, count, name=series_uid, SeriesInstanceUID=series_uid, **attributes)


def choose(folder: Path, preference: Preference = DEFAULT) -> Choice:
    """The only choice that a folder's files lead to, whatever their order."""
    files = sorted(folder.iterdir())
    (choice,) = choose_series(files, preference)
    random.Random(7).shuffle(files)
    assert choose_series(files, preference) == [choice]
    return choice


@pytest.mark.parametrize("name", ["thorax_petct"])
def test_of_a_real_study_the_axial_ct_is_chosen_and_scout_and_pet_are_skipped(shared_data: Path, name: str) -> None:
    files = list((shared_data / name).rglob("*.dcm"))
    (choice,) = choose_series(files, Preference())
    header = pydicom.dcmread(sorted((shared_data / name / "ct").iterdir())[0])
    assert (choice.study_uid, choice.series_uid) == (header.StudyInstanceUID, header.SeriesInstanceUID)
    assert choice.frame_of_reference_uid == header.FrameOfReferenceUID
    assert {file.parent.name for file in choice.files} == {"ct"}
    assert len(choice.files) == 135
    reasons = sorted(reason for _, reason in choice.skipped)
    assert [re.sub(r"Series \d+ \([\d.]+\): ", "", reason).split("(")[0] for reason in reasons] == [
        "The series holds only scouts ",
        "The series holds no CT images but Positron Emission Tomography Image Storage ",
    ]


def test_coverage_comes_before_the_kernel(tmp_path: Path) -> None:
    series(tmp_path, "2.25.10", 40, ConvolutionKernel="LUNG")
    series(tmp_path, "2.25.20", 20, ConvolutionKernel="STANDARD")
    choice = choose(tmp_path)
    assert choice.series_uid == "2.25.10"
    assert choice.skipped == (("2.25.20", "Series 2.25.10 was preferred: it covers 120 mm, this one 60 mm."),)


def test_a_few_slices_more_do_not_make_a_lung_kernel_better(tmp_path: Path) -> None:
    series(tmp_path, "2.25.10", 21, ConvolutionKernel="B70f")
    series(tmp_path, "2.25.20", 20, ConvolutionKernel="B30f")
    choice = choose(tmp_path)
    assert choice.series_uid == "2.25.20"
    assert choice.skipped == (("2.25.10", "Series 2.25.20 was preferred: its kernel is B30f, this one's B70f."),)


def test_the_kernel_comes_before_the_thickness_and_the_nearest_thickness_wins(tmp_path: Path) -> None:
    series(tmp_path, "2.25.10", SliceThickness="1.0")
    series(tmp_path, "2.25.20", SliceThickness="2.5")
    series(tmp_path, "2.25.30", SliceThickness="5.0")
    series(tmp_path, "2.25.40", SliceThickness="3.0", ConvolutionKernel="BONEPLUS")
    choice = choose(tmp_path)
    assert choice.series_uid == "2.25.20"
    assert [reason for _, reason in choice.skipped] == [
        "Series 2.25.20 was preferred: its slices are 2.5 mm thick, this one's 1 mm.",
        "Series 2.25.20 was preferred: its slices are 2.5 mm thick, this one's 5 mm.",
        "Series 2.25.20 was preferred: its kernel is STANDARD, this one's BONEPLUS.",
    ]
    assert choose(tmp_path, Preference(40.0, target_thickness_mm=1.25)).series_uid == "2.25.10"


@pytest.mark.parametrize(("contrast", "chosen"), [("with", "2.25.20"), ("without", "2.25.30"), ("any", "2.25.20")])
def test_contrast_is_chosen_as_configured(tmp_path: Path, contrast: Any, chosen: str) -> None:
    series(tmp_path, "2.25.20", ContrastBolusAgent="OMNIPAQUE")
    series(tmp_path, "2.25.30")
    choice = choose(tmp_path, Preference(40.0, contrast=contrast))
    assert choice.series_uid == chosen
    ((_, reason),) = choice.skipped
    assert (
        reason
        == {
            "with": "Series 2.25.20 was preferred: it is with contrast medium, this one is not.",
            "without": "Series 2.25.30 was preferred: it is without contrast medium, this one is not.",
            "any": "Series 2.25.20 was preferred: both are alike, and its UID comes first.",
        }[contrast]
    )


def test_a_series_below_the_minimum_coverage_is_never_chosen(tmp_path: Path) -> None:
    series(tmp_path, "2.25.10", 20)
    choice = choose(tmp_path, Preference(minimum_coverage_mm=100.0))
    assert (choice.series_uid, choice.files) == (None, ())
    assert choice.skipped == (("2.25.10", "Series 2.25.10 covers 60 mm, less than the minimum of 100 mm."),)


def _gap(image: Dataset, index: int) -> None:
    if index >= 10:
        x, y, z = image.ImagePositionPatient
        image.ImagePositionPatient = [x, y, float(z) + 3.0]


def _one_other_orientation(image: Dataset, index: int) -> None:
    if index == 11:
        image.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]


@pytest.mark.parametrize(
    ("change", "reason"), [(_gap, "The stack has a gap"), (_one_other_orientation, "ImageOrientationPatient of ")]
)
def test_every_header_of_a_series_is_judged_and_not_one_of_them(
    tmp_path: Path, change: Callable[[Dataset, int], None], reason: str
) -> None:
    """mercure decides on one arbitrary file of a series (app/routing/route_series.py)."""
    series(tmp_path, "2.25.10", 30, change=change)
    series(tmp_path, "2.25.20", 16, ConvolutionKernel="LUNG")
    choice = choose(tmp_path)
    assert choice.series_uid == "2.25.20"
    ((series_uid, sentence),) = choice.skipped
    assert series_uid == "2.25.10"
    assert sentence.startswith(f"Series (2.25.10): {reason}")


def test_a_scout_in_the_series_does_not_spoil_it_and_goes_with_its_files(tmp_path: Path) -> None:
    files = series(tmp_path, "2.25.10")
    scout = ct_image(50, SeriesInstanceUID="2.25.10", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    files.append(save(scout, tmp_path / "scout.dcm"))
    choice = choose(tmp_path)
    assert choice.series_uid == "2.25.10"
    assert sorted(choice.files) == sorted(files)


def test_without_an_acceptable_series_the_choice_says_why_of_each(tmp_path: Path) -> None:
    series(tmp_path, "2.25.10", change=_gap)
    series(tmp_path, "2.25.20", SyntheticData="YES")
    choice = choose(tmp_path)
    assert (choice.study_uid, choice.frame_of_reference_uid) == (STUDY_UID, FRAME_OF_REFERENCE_UID)
    assert (choice.series_uid, choice.files) == (None, ())
    assert [uid for uid, _ in choice.skipped] == ["2.25.10", "2.25.20"]
    assert "SyntheticData" in choice.skipped[1][1]
    (accepted,) = choose_series(sorted(tmp_path.iterdir()), DEFAULT, accept_synthetic=True)
    assert accepted.series_uid == "2.25.20"


def test_each_study_and_frame_of_reference_has_its_own_choice(tmp_path: Path) -> None:
    series(tmp_path, "2.25.10")
    series(tmp_path, "2.25.20", FrameOfReferenceUID="2.25.4")
    series(tmp_path, "2.25.30", FrameOfReferenceUID="2.25.4", change=_gap)
    series(tmp_path, "2.25.40", StudyInstanceUID="2.25.99")
    choices = choose_series(sorted(tmp_path.iterdir()), DEFAULT)
    assert [(c.study_uid, c.frame_of_reference_uid, c.series_uid) for c in choices] == [
        (STUDY_UID, FRAME_OF_REFERENCE_UID, "2.25.10"),
        (STUDY_UID, "2.25.4", "2.25.20"),
        ("2.25.99", FRAME_OF_REFERENCE_UID, "2.25.40"),
    ]
    assert [uid for uid, _ in choices[1].skipped] == ["2.25.30"]


def test_a_broken_stack_in_a_frame_of_its_own_is_told_and_not_lost(tmp_path: Path) -> None:
    series(tmp_path, "2.25.10")
    series(tmp_path, "2.25.20", FrameOfReferenceUID="2.25.4", change=_gap)
    choices = choose_series(sorted(tmp_path.iterdir()), DEFAULT)
    assert [(c.frame_of_reference_uid, c.series_uid) for c in choices] == [
        (FRAME_OF_REFERENCE_UID, "2.25.10"),
        ("2.25.4", None),
    ]


@pytest.mark.parametrize("uid", ["1.2." + "3" * 70, "1.2.x"])
def test_a_frame_of_reference_uid_that_is_none_rejects_its_series_and_goes_no_further(tmp_path: Path, uid: str) -> None:
    """The text itself used to go into a column of 64 characters: PostgreSQL refused it, and the study was held."""
    series(tmp_path, "2.25.10", FrameOfReferenceUID=uid)
    choice = choose(tmp_path)
    assert (choice.frame_of_reference_uid, choice.series_uid) == ("", None)
    ((series_uid, reason),) = choice.skipped
    assert series_uid == "2.25.10"
    assert re.search("FrameOfReferenceUID of .* is no UID: correct the sender", reason)


def test_scouts_monitoring_slices_and_reports_open_no_choice_of_their_own(tmp_path: Path) -> None:
    series(tmp_path, "2.25.10")
    series(tmp_path, "2.25.20", 2, FrameOfReferenceUID="2.25.4", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    series(tmp_path, "2.25.30", 10, FrameOfReferenceUID="2.25.5", step_mm=0.0)
    series(tmp_path, "2.25.40", 1, FrameOfReferenceUID=None, Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.67")
    choice = choose(tmp_path)
    assert choice.series_uid == "2.25.10"
    reasons = dict(choice.skipped)
    assert "only scouts" in reasons["2.25.20"]
    assert "is the same" in reasons["2.25.30"]
    assert "X-Ray Radiation Dose SR Storage (Modality SR)" in reasons["2.25.40"]


def test_a_study_of_scouts_alone_has_one_choice_that_says_so(tmp_path: Path) -> None:
    series(tmp_path, "2.25.20", 2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    choice = choose(tmp_path)
    assert choice.series_uid is None
    assert "only scouts" in choice.skipped[0][1]


def test_a_damaged_file_stops_the_choice_by_name(tmp_path: Path) -> None:
    files = series(tmp_path, "2.25.10")
    files[4].write_bytes(files[4].read_bytes()[:300])
    with pytest.raises(Rejected, match=files[4].name):
        choose_series(files, DEFAULT)


def test_no_files_lead_to_no_choice() -> None:
    assert choose_series([], DEFAULT) == []


def test_no_pixel_is_decoded_to_choose(tmp_path: Path) -> None:
    files = series(tmp_path, "2.25.10", PixelData=b"\x00\x01")
    assert choose_series(files, DEFAULT)[0].series_uid == "2.25.10"


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("STANDARD", Kernel.SOFT),
        ("SOFT", Kernel.SOFT),
        ("STD+", Kernel.SOFT),
        ("B30f", Kernel.SOFT),
        ("Br40d\\3", Kernel.SOFT),
        ("I31f\\2", Kernel.SOFT),
        ("FC08", Kernel.SOFT),
        ("B", Kernel.SOFT),
        ("LUNG", Kernel.SHARP),
        ("BONEPLUS", Kernel.SHARP),
        ("B70f", Kernel.SHARP),
        ("Bl57d", Kernel.SHARP),
        ("FC52", Kernel.SHARP),
        ("YC", Kernel.SHARP),
        ("DETAIL", Kernel.UNKNOWN),
        ("11", Kernel.UNKNOWN),
        ("", Kernel.UNKNOWN),
    ],
)
def test_kernels_of_all_makers_are_told_apart(name: str, kernel: Kernel) -> None:
    assert kernel_of(name) is kernel
