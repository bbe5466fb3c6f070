"""Two phases in one series: which is read, what is said of the other, and when neither can be."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.samples import ct_files
from tests.samples.ct_files import write_series
from twin_scanner.dicom.read.ct_series import CtSeries, read_ct_series
from twin_scanner.dicom.read.preference import Preference
from twin_scanner.dicom.read.series_choice import choose_series
from twin_scanner.errors import Rejected

pytestmark = pytest.mark.unit

SECRET = "Oberhuber Kreszentia"
"""A name in every free text of the headers."""


def phase(folder: Path, number: int, count: int = 16, first: int = 0, **attributes: Any) -> list[Path]:
    """Slices of one phase; phases share the series, the places and the rest of the header, but not their pixels.

    An attribute may be a function of the slice's index.
    """

    def change(image: Dataset, index: int) -> None:
        place = first + index
        image.SOPInstanceUID = f"{ct_files.SERIES_UID}.{number}.{place + 1}"
        image.InstanceNumber = 100 * number + place + 1
        image.ImagePositionPatient = [-100.0, -120.0, 50.0 + 3.0 * place]
        image.SeriesDescription = image.ContrastBolusAgent = f"{SECRET} phase {number}"
        image.PixelData = (ct_files.stored_values(place) + 100 * number).astype(np.int16).tobytes()
        for keyword, value in attributes.items():
            made = value(place) if callable(value) else value
            if made is None:
                delattr(image, keyword)
            else:
                setattr(image, keyword, made)

    return write_series(folder, count, change, name=f"phase-{number}")


def read(folder: Path, **options: Any) -> CtSeries:
    """The series, whatever the order of its files; nothing that is said holds a text of the header."""
    files = sorted(folder.iterdir())
    series = read_ct_series(files, **options)
    random.Random(3).shuffle(files)
    again = read_ct_series(files, **options)
    assert (again.sop_instance_uids, again.set_aside) == (series.sop_instance_uids, series.set_aside)
    assert SECRET not in " ".join(series.set_aside)
    return series


def number_of(series: CtSeries) -> int:
    """The number of the phase that was read, by its pixels and by its instances."""
    (by_instance,) = {int(uid.split(".")[3]) for uid in series.sop_instance_uids}
    first = ct_files.stored_values(0)
    assert (series.volume.array[0] - first == 100 * by_instance).all()
    return by_instance


def rejection(folder: Path) -> str:
    """The sentence that reading ends with; it holds no text of the header."""
    with pytest.raises(Rejected) as caught:
        read_ct_series(folder)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def clock(start_s: float, step_s: float) -> Callable[[int], str]:
    """AcquisitionTime of each slice from ``start_s`` after ten o'clock on, downwards through the stack."""

    def at(place: int) -> str:
        seconds = start_s + (20 - place) * step_s
        return f"10{int(seconds // 60):02d}{seconds % 60:09.6f}"

    return at


def moment(start_s: float, step_s: float) -> Callable[[int], str]:
    """The same as AcquisitionDateTime with a zone."""
    return lambda place: f"20260301{clock(start_s, step_s)(place)}+0100"


KEYS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "acquisition numbers": ({"AcquisitionNumber": 9}, {"AcquisitionNumber": 10}, "AcquisitionNumber", "9"),
    "temporal positions": (
        {"TemporalPositionIdentifier": 1},
        {"TemporalPositionIdentifier": 2},
        "TemporalPositionIdentifier",
        "1",
    ),
    "one time a phase": ({"AcquisitionTime": "101500"}, {"AcquisitionTime": "101540.25"}, "AcquisitionTime", ""),
    "a time a slice": (
        {"AcquisitionTime": clock(0, 0.4)},
        {"AcquisitionTime": clock(35, 0.4)},
        "AcquisitionTime",
        "",
    ),
    "a date and time a slice": (
        {"AcquisitionDateTime": moment(0, 0.4)},
        {"AcquisitionDateTime": moment(35, 0.4)},
        "AcquisitionDateTime",
        "",
    ),
    "step and shoot": (
        {"AcquisitionNumber": lambda place: 1 + place // 4, "AcquisitionTime": clock(0, 2.0)},
        {"AcquisitionNumber": lambda place: 11 + place // 4, "AcquisitionTime": clock(90, 2.0)},
        "AcquisitionTime",
        "",
    ),
    "step and shoot with the same numbers": (
        {"AcquisitionNumber": lambda place: 1 + place // 4, "AcquisitionTime": clock(0, 2.0)},
        {"AcquisitionNumber": lambda place: 1 + place // 4, "AcquisitionTime": clock(90, 2.0)},
        "AcquisitionTime",
        "",
    ),
}


@pytest.mark.parametrize("key", KEYS)
def test_phases_are_told_apart_and_of_equal_ones_the_first_is_read(tmp_path: Path, key: str) -> None:
    first, second, keyword, value = KEYS[key]
    phase(tmp_path, 2, **second)
    phase(tmp_path, 1, **first)
    series = read(tmp_path)
    assert number_of(series) == 1
    assert series.volume.geometry.shape[0] == 16
    name, other = (f"{keyword} {value}", "") if value else (f"number 1 by {keyword}", f"number 2 by {keyword}")
    assert series.set_aside[0] == f"2 phases share the series, told apart by {keyword}: {name} (16 images) was read."
    why = rf"for {name} was preferred: both are alike, and {name} comes first\."
    left_out = rf"{other or keyword}.* \(16 images\) was left out, {why}"
    assert re.fullmatch(left_out, series.set_aside[1])
    assert len(series.set_aside) == 2


@pytest.mark.parametrize("key", KEYS)
def test_the_phase_that_shows_more_is_read_whichever_came_first(tmp_path: Path, key: str) -> None:
    first, second, keyword, _ = KEYS[key]
    phase(tmp_path, 1, **first)
    phase(tmp_path, 2, 21, **second)
    series = read(tmp_path)
    assert number_of(series) == 2
    assert f"told apart by {keyword}" in series.set_aside[0]
    assert "(16 images) was left out" in series.set_aside[1]
    assert "it covers 63 mm, this one 48 mm" in series.set_aside[1]


def test_the_preference_for_contrast_decides_between_phases_as_between_series(tmp_path: Path) -> None:
    phase(tmp_path, 1, AcquisitionNumber=1)
    phase(tmp_path, 2, AcquisitionNumber=2, ContrastBolusAgent="")
    assert number_of(read(tmp_path)) == 1
    assert number_of(read(tmp_path, preference=Preference(contrast="with"))) == 1
    plain = read(tmp_path, preference=Preference(contrast="without"))
    assert number_of(plain) == 2
    assert "it is without contrast medium" in plain.set_aside[1]


def test_two_reconstructions_of_one_acquisition_are_told_apart_by_their_kernel(tmp_path: Path) -> None:
    phase(tmp_path, 1, ConvolutionKernel="B70f")
    phase(tmp_path, 2, ConvolutionKernel="B30f")
    series = read(tmp_path)
    assert number_of(series) == 2
    assert "told apart by ConvolutionKernel" in series.set_aside[0]


def test_of_three_phases_all_but_one_are_named_with_the_images_they_have(tmp_path: Path) -> None:
    phase(tmp_path, 1, AcquisitionNumber=1)
    phase(tmp_path, 2, 18, AcquisitionNumber=2)
    phase(tmp_path, 3, 30, AcquisitionNumber=3)
    series = read(tmp_path)
    assert number_of(series) == 3
    assert series.set_aside[0].startswith("3 phases share the series")
    assert [re.match(r"\w+ \d \(\d+ images\)", line)[0] for line in series.set_aside[1:]] == [  # type: ignore[index]
        "AcquisitionNumber 1 (16 images)",
        "AcquisitionNumber 2 (18 images)",
    ]


def test_a_phase_with_a_gap_is_left_out_and_the_reason_is_said(tmp_path: Path) -> None:
    files = phase(tmp_path, 1, 24, AcquisitionNumber=1)
    files[10].unlink()
    phase(tmp_path, 2, 20, AcquisitionNumber=2)
    series = read(tmp_path)
    assert number_of(series) == 2
    assert re.match(
        r"AcquisitionNumber 1 \(23 images\) was left out, for it cannot be read\. .*gap, 1 slice", series.set_aside[1]
    )


def test_where_no_phase_is_whole_the_series_is_rejected_with_the_first_ones_reason(tmp_path: Path) -> None:
    for number in (1, 2):
        phase(tmp_path, number, 24, AcquisitionNumber=number)[10].unlink()
    sentence = r"2 phases share .*, but none can be read; AcquisitionNumber 1 \(23 images\): .*gap, 1 slice missing"
    assert re.search(sentence, rejection(tmp_path))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {}),
        ({"AcquisitionNumber": None}, {"AcquisitionNumber": None}),
        ({"AcquisitionNumber": lambda place: place + 1}, {"AcquisitionNumber": lambda place: place + 2}),
        ({"AcquisitionTime": clock(0, 2.0)}, {"AcquisitionTime": clock(1, 2.0)}),
        ({"AcquisitionTime": clock(0, 2.0)}, {"AcquisitionTime": "no time"}),
        ({"AcquisitionTime": "101500"}, {"AcquisitionTime": lambda place: "101500" if place == 3 else "101540"}),
    ],
)
def test_what_nothing_tells_apart_is_rejected_and_the_sentence_says_what_to_send(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    phase(tmp_path, 1, **first)
    phase(tmp_path, 2, **second)
    sentence = (
        r"ImagePositionPatient of .*InstanceNumber \d+ and of .*InstanceNumber \d+ is the same"
        r".* and none of TemporalPositionIdentifier, AcquisitionNumber, .* tells them apart: send each as a series of"
    )
    assert re.search(sentence, rejection(tmp_path))


def test_the_phases_of_two_patients_are_no_phases(tmp_path: Path) -> None:
    phase(tmp_path, 1, AcquisitionNumber=1)
    phase(tmp_path, 2, AcquisitionNumber=2, PatientID="PAT-9")
    assert re.search(r"PatientID of .* is not that of", rejection(tmp_path))


def test_a_phase_that_came_twice_is_still_one_phase(tmp_path: Path) -> None:
    files = phase(tmp_path, 1, AcquisitionNumber=1)
    phase(tmp_path, 2, AcquisitionNumber=2)
    (tmp_path / "again.dcm").write_bytes(files[4].read_bytes())
    series = read_ct_series(tmp_path)
    assert number_of(series) == 1
    assert series.volume.geometry.shape[0] == 16


def test_a_series_with_two_phases_is_weighed_by_the_one_that_would_be_read(tmp_path: Path) -> None:
    phase(tmp_path, 1, 18, AcquisitionNumber=1)
    phase(tmp_path, 2, 40, AcquisitionNumber=2)
    write_series(tmp_path, 20, name="other", SeriesInstanceUID="2.25.7")
    (choice,) = choose_series(sorted(tmp_path.iterdir()), Preference(minimum_coverage_mm=100.0))
    assert choice.series_uid == ct_files.SERIES_UID
    assert len(choice.files) == 58, "the other phase goes with it, so that whoever reads it says what was left out"


def test_of_a_real_series_with_two_phases_one_is_read_and_the_other_named(shared_data: Path) -> None:
    """Oracle: the files of the first acquisition alone."""
    folder = shared_data / "liver_two_phases_one_series"
    series = read_ct_series(folder)
    first = [file for file in folder.iterdir() if pydicom.dcmread(file, stop_before_pixels=True).AcquisitionNumber == 1]
    alone = read_ct_series(first)
    assert len(first) == 20
    assert series.sop_instance_uids == alone.sop_instance_uids
    assert (series.volume.array == alone.volume.array).all()
    assert series.set_aside[:2] == (
        "2 phases share the series, told apart by AcquisitionNumber: AcquisitionNumber 1 (20 images) was read.",
        "AcquisitionNumber 3 (20 images) was left out, for AcquisitionNumber 1 was preferred: "
        "both are alike, and AcquisitionNumber 1 comes first.",
    )
