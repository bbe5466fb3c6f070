"""Hundreds of headers with one to three values of any kind: a sentence or a sound volume, and never much memory.

The draws are seeded, so that a failure comes again; the oracle is that every value of a volume is within its bounds.
"""

import logging
import random
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.filereader import data_element_generator

from dicom_node.instance_header import file_meta
from tests.samples import ct_files, instances, pet_files
from twin_scanner.dicom.read.ct_series import read_ct_series
from twin_scanner.dicom.read.pet_series import read_pet_series
from twin_scanner.dicom.read.preference import Preference
from twin_scanner.dicom.read.series_choice import choose_series
from twin_scanner.errors import Rejected
from twin_scanner.imaging.bounds import HOUNSFIELD_RANGE, LARGEST_SUV, LONGEST_MM
from twin_scanner.imaging.volume import Volume

pytestmark = pytest.mark.unit

MUTATIONS: Final = 60
"""Of each kind of series; hundreds more were tried when this was written."""
BOUND_MIB: Final = 100
"""Of all that reading 16 slices of 12 x 10 pixels may allocate, whatever their headers say."""
SECRET: Final = "Oberhuber"
TEXTS: Final = ("", " ", "\\", "1\\2", "nan", "inf", "-inf", "1e38", "-1e38", "1e308", "1e-320", "0", "-0", "-1", "1e3")
WORDS: Final = (
    SECRET,
    "\u00b2",
    "\u0661",
    "0x10",
    "1_000",
    "1,5",
    "None",
    "9" * 400,
    "A" * 70,
    "\x1b$B",
    "\xff",
    "^",
    "=",
)
NUMBERS: Final = (0, 1, -1, 2, 7, 8, 12, 16, 17, 31, 32, 255, 4096, 4097, 32767, 32768, 65535)
DECIMAL: Final = (
    *("RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
    *("SliceThickness", "InstanceNumber", "AcquisitionNumber", "NumberOfFrames", "SeriesNumber"),
    *("LossyImageCompressionRatio", "PatientWeight"),
)
COUNTS: Final = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
)
WORDED: Final = (
    *("ImageType", "Modality", "RescaleType", "PhotometricInterpretation", "ContrastBolusAgent", "SeriesNumber"),
    *("SyntheticData", "BurnedInAnnotation", "LossyImageCompression", "PatientID", "SpecificCharacterSet"),
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "SOPClassUID"),
)
MOMENTS: Final = (
    *("SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "TimezoneOffsetFromUTC", "Units", "SUVType"),
    *("DecayCorrection", "CorrectedImage", "CountsSource", "SeriesType", "Manufacturer"),
)
ISOTOPE_SEQUENCE: Final = 0x00540016
ISOTOPE: Final = ("RadionuclideTotalDose", "RadionuclideHalfLife", "RadiopharmaceuticalStartTime")


def mutated_value(draw: random.Random, keyword: str) -> bytes:
    """The bytes of a value, as a program that writes nonsense would leave them."""
    if keyword in COUNTS:
        number = draw.choice((*NUMBERS, draw.randrange(65536)))
        return struct.pack("<H", number % 65536) * draw.choice((1, 1, 1, 2))
    pieces = [
        draw.choice((*TEXTS, *WORDS, f"{draw.uniform(-1e5, 1e5):.6g}")) for _ in range(draw.choice((1, 1, 2, 3, 6)))
    ]
    value = "\\".join(pieces).encode("latin-1", "replace")
    return value + b" " * (len(value) % 2)


Elements = dict[int, tuple[str, bytes]]
"""VR and value's bytes by tag."""
EXPLICIT, IMPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
LONG_VRS: Final = ("OB", "OW", "SQ", "UN")


def elements_of(content: bytes) -> Elements:
    """The elements of an encoded data set or item, as pydicom's reader splits them."""
    found = data_element_generator(BytesIO(content), is_implicit_VR=False, is_little_endian=True)
    return {int(element.tag): (str(element.VR), bytes(element.value or b"")) for element in found}


def encoded(elements: Elements, syntax: str) -> bytes:
    """A data set as PS3.5 7.1 says, whatever its values are."""
    parts = []
    for tag, (vr, value) in sorted(elements.items()):
        start = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        if syntax == IMPLICIT:
            parts.append(start + struct.pack("<L", len(value)) + value)
        elif vr in LONG_VRS:
            parts.append(start + vr.encode() + struct.pack("<HL", 0, len(value)) + value)
        else:
            parts.append(start + vr.encode() + struct.pack("<H", len(value)) + value)
    return b"".join(parts)


def mutate(elements: Elements, draw: random.Random, keywords: tuple[str, ...]) -> None:
    """Put one to three values into a header, or take them away."""
    for keyword in draw.sample(keywords, draw.randrange(1, 4)):
        if keyword in ISOTOPE:
            item = elements_of(elements[ISOTOPE_SEQUENCE][1][8:])
            _mutate_one(item, draw, keyword)
            content = encoded(item, EXPLICIT)
            elements[ISOTOPE_SEQUENCE] = "SQ", b"\xfe\xff\x00\xe0" + struct.pack("<L", len(content)) + content
        else:
            _mutate_one(elements, draw, keyword)


def _mutate_one(elements: Elements, draw: random.Random, keyword: str) -> None:
    tag = tag_for_keyword(keyword) or 0
    if draw.random() < 0.1:
        elements.pop(tag, None)
    else:
        elements[tag] = dictionary_VR(tag).split(" ")[0], mutated_value(draw, keyword)


def write_mutated(
    folder: Path, draw: random.Random, sound: list[Elements], keywords: tuple[str, ...], syntaxes: tuple[str, ...]
) -> list[Path]:
    """Sixteen slices of which one, or all alike, have a mutated header."""
    folder.mkdir()
    syntax, place, seed = draw.choice(syntaxes), draw.choice((None, draw.randrange(16))), draw.random()
    files = []
    for index, elements in enumerate(sound):
        changed = dict(elements)
        if place in (None, index):
            mutate(changed, random.Random(seed), keywords)
        content = encoded(changed, syntax)
        if syntax == DEFLATED:
            packer = zlib.compressobj(wbits=-15)
            content = packer.compress(content) + packer.flush()
        files.append(folder / f"{index:02d}.dcm")
        files[-1].write_bytes(file_meta("1.2.840.10008.5.1.4.1.1.2", f"2.25.{index}", syntax) + content)
    return files


def outcome(read: Callable[[], Volume], low: float, high: float) -> str:
    """What reading ends with: "sound", or the sentence; anything else fails the test."""
    try:
        volume = read()
    except Rejected as error:
        sentence = str(error)
        assert sentence.endswith(".")
        assert SECRET not in sentence
        return sentence
    assert low <= volume.array.min() <= volume.array.max() <= high
    assert max(volume.geometry.extent_mm) <= LONGEST_MM
    assert np.isfinite(volume.geometry.affine).all()
    return "sound"


def fuzz(
    tmp_path: Path, name: str, keywords: tuple[str, ...], work: Callable[[list[Path]], str], seed: int
) -> list[str]:
    """Read many mutated series one after another; what each ended with."""
    draw = random.Random(seed)
    write, syntaxes = {
        "ct": (ct_files.write_series, (EXPLICIT, IMPLICIT, DEFLATED)),
        "pet": (pet_files.write_series, (EXPLICIT, DEFLATED)),
    }[name]
    sound = [elements_of(instances.data_set_bytes(file)) for file in write(tmp_path / "sound")]
    outcomes = []
    for number in range(MUTATIONS):
        files = write_mutated(tmp_path / str(number), draw, sound, keywords, syntaxes)
        before_mib = forget_peak_mib()
        outcomes.append(work(files))
        assert peak_mib() - before_mib < BOUND_MIB
    return outcomes


def forget_peak_mib() -> float:
    """The resident memory now, in MiB, from which the kernel counts the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


def peak_mib() -> float:
    """The peak of the resident memory in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def chosen(files: list[Path]) -> str:
    """What choosing ends with; no reason is longer than a paragraph or holds a patient's name."""
    choices = choose_series(files, Preference(minimum_coverage_mm=0.0))
    assert choices
    for choice in choices:
        assert all(len(reason) < 1000 and SECRET not in reason for _, reason in choice.skipped)
    return "sound" if any(choice.series_uid for choice in choices) else "skipped"


@pytest.fixture(autouse=True)
def no_word_from_pydicom(caplog: pytest.LogCaptureFixture) -> Any:
    """Its remarks hold the values of headers; warnings are errors in every test."""
    yield
    assert [record for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []


def test_a_ct_of_hostile_headers_is_a_sentence_or_a_sound_volume(tmp_path: Path) -> None:
    def work(files: list[Path]) -> str:
        return outcome(lambda: read_ct_series(files).volume, *HOUNSFIELD_RANGE)

    outcomes = fuzz(tmp_path, "ct", (*DECIMAL, *COUNTS, *WORDED), work, 11)
    assert 3 <= outcomes.count("sound") <= MUTATIONS - 20


def test_a_pet_of_hostile_headers_is_a_sentence_or_a_sound_volume(tmp_path: Path) -> None:
    def work(files: list[Path]) -> str:
        return outcome(lambda: read_pet_series(files).suv, -LARGEST_SUV, LARGEST_SUV)

    outcomes = fuzz(tmp_path, "pet", (*DECIMAL, *COUNTS, *WORDED, *MOMENTS, *ISOTOPE), work, 12)
    assert 3 <= outcomes.count("sound") <= MUTATIONS - 20


def test_choosing_among_hostile_headers_ends_in_choices_or_a_sentence(tmp_path: Path) -> None:
    def work(files: list[Path]) -> str:
        try:
            return chosen(files)
        except Rejected as error:
            assert SECRET not in str(error)
            return "rejected"

    outcomes = fuzz(tmp_path, "ct", (*DECIMAL, *COUNTS, *WORDED), work, 13)
    assert 3 <= outcomes.count("sound") <= MUTATIONS - 20
