"""Multi-frame CT: the same volume as the single frames it was made of, or one sentence that names the frame."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from tests.samples.ct_files import ct_image, stored_values, write_series
from twin_scanner.dicom.read.ct_series import read_ct_series
from twin_scanner.dicom.read.enhanced_ct import frame_headers
from twin_scanner.errors import Rejected

pytestmark = pytest.mark.unit

MULTI_FRAME_UID = "2.25.500"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
LEGACY_CONVERTED = "1.2.840.10008.5.1.4.1.1.2.2"


def multi_frame(
    images: list[Dataset], file: Path, syntax: pydicom.uid.UID = ExplicitVRLittleEndian, uid: str = MULTI_FRAME_UID
) -> Path:
    """One object of single frames, by highdicom's legacy converter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = LegacyConvertedEnhancedCTImage(images, "2.25.400", 4, uid, 1, transfer_syntax_uid=syntax)
        converted.save_as(file)
    return file


def test_a_real_scan_made_multi_frame_is_the_same_volume(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "thorax_petct" / "ct"
    images = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    multi_frame(images, tmp_path / "ct.dcm", images[0].file_meta.TransferSyntaxUID)
    expected, series = read_ct_series(folder), read_ct_series(tmp_path)
    np.testing.assert_array_equal(series.volume.array, expected.volume.array)
    assert series.volume.geometry == expected.volume.geometry
    assert series.sop_instance_uids == (MULTI_FRAME_UID,)
    assert series.sop_class_uid == LEGACY_CONVERTED
    assert series.set_aside == ()
    assert series.header.StudyInstanceUID == expected.header.StudyInstanceUID
    assert series.header.PatientID == expected.header.PatientID
    assert "PixelData" not in series.header
    assert "PerFrameFunctionalGroupsSequence" not in series.header


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_each_frame_has_its_own_place_and_rescale_and_the_padding_of_all(
    tmp_path: Path, syntax: pydicom.uid.UID
) -> None:
    """Oracle: the same slices read one file each; frames in a scrambled order, unequal spacings, slopes a slice."""

    def change(image: Dataset, index: int) -> None:
        image.RescaleSlope = 1 + 0.5 * (index % 3)
        pixels = stored_values(index)
        pixels[0] = -2000
        image.PixelData = pixels.tobytes()
        image.PixelPaddingValue = -2000

    files = write_series(tmp_path / "single", 18, change)
    images = [pydicom.dcmread(file) for file in files]
    order = np.random.default_rng(0).permutation(18)
    multi_frame([images[index] for index in order], tmp_path / "multi.dcm", syntax)
    expected, series = read_ct_series(files), read_ct_series([tmp_path / "multi.dcm"])
    np.testing.assert_array_equal(series.volume.array, expected.volume.array)
    assert (series.volume.array[:, 0] == -1024).all()
    assert series.volume.geometry == expected.volume.geometry


def enhanced(file: Path, change: Callable[[Dataset], None] | None = None, count: int = 16) -> Path:
    """A written Enhanced CT (PS3.3 A.38) with the geometry shared and the positions and rescale a frame."""
    image = ct_image(0)
    image.SOPClassUID = ENHANCED_CT
    image.NumberOfFrames = count
    image.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    image.PixelData = b"".join(stored_values(index).tobytes() for index in range(count))
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient, measures.PixelSpacing = image.ImageOrientationPatient, image.PixelSpacing
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    image.SharedFunctionalGroupsSequence = [shared]
    image.PerFrameFunctionalGroupsSequence = []
    for index in range(count):
        source, groups = ct_image(index), Dataset()
        position, values, kind = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = source.ImagePositionPatient
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, index, "HU"
        kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        groups.PlanePositionSequence, groups.PixelValueTransformationSequence = [position], [values]
        groups.CTImageFrameTypeSequence = [kind]
        image.PerFrameFunctionalGroupsSequence.append(groups)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(image, keyword)
    del image.RescaleIntercept, image.RescaleType
    if change is not None:
        change(image)
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = ENHANCED_CT
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.save_as(file, enforce_file_format=True)
    return file


def test_an_enhanced_ct_is_read_frame_by_frame(tmp_path: Path) -> None:
    series = read_ct_series([enhanced(tmp_path / "ct.dcm")])
    for index in range(16):
        np.testing.assert_array_equal(series.volume.array[index], stored_values(index) + np.float32(index))
    assert series.volume.geometry.spacing_mm == pytest.approx((3.0, 1.1, 0.9), abs=1e-9)
    assert series.sop_class_uid == ENHANCED_CT


@pytest.mark.parametrize("parts", [(16,), (8, 8), (15, 1), (1,) * 16], ids=str)
def test_a_stack_spread_over_several_objects_is_refused_unless_each_slice_is_one(
    tmp_path: Path, parts: tuple[int, ...]
) -> None:
    """What is written names the CT's images by their slice, or one image by its frames (PS3.3 C.7.6.16.2.2.4)."""
    images = [pydicom.dcmread(file) for file in write_series(tmp_path / "single")]
    ends = np.cumsum(parts)
    for number, (start, end) in enumerate(zip(ends - parts, ends, strict=True)):
        (tmp_path / "multi").mkdir(exist_ok=True)
        multi_frame(images[start:end], tmp_path / "multi" / f"{number}.dcm", uid=f"{MULTI_FRAME_UID}.{number}")
    if 1 < len(parts) < 16:
        with pytest.raises(
            Rejected, match=r"16 slices of the stack are frames of 2 multi-frame objects.*as one object"
        ):
            read_ct_series(tmp_path / "multi")
        return
    series = read_ct_series(tmp_path / "multi")
    assert series.sop_instance_uids == tuple(f"{MULTI_FRAME_UID}.{number}" for number in range(len(parts)))


def _frame(image: Dataset, number: int) -> Dataset:
    return image.PerFrameFunctionalGroupsSequence[number - 1]


def _without_position(image: Dataset) -> None:
    del _frame(image, 3).PlanePositionSequence


def _without_rescale(image: Dataset) -> None:
    del _frame(image, 3).PixelValueTransformationSequence[0].RescaleSlope


def _without_groups(image: Dataset) -> None:
    del image.PerFrameFunctionalGroupsSequence


def _too_many_frames(image: Dataset) -> None:
    image.NumberOfFrames = 17


def _without_number(image: Dataset) -> None:
    del image.NumberOfFrames


def _a_map(image: Dataset) -> None:
    _frame(image, 5).PixelValueTransformationSequence[0].RescaleType = "Z_EFF"


def _two_phases(image: Dataset) -> None:
    for number in range(1, 17):
        position = _frame(image, (number + 1) // 2).PlanePositionSequence
        _frame(image, 17 - number).PlanePositionSequence = copy.deepcopy(position)


def _a_gap(image: Dataset) -> None:
    position = _frame(image, 16).PlanePositionSequence[0]
    x, y, z = position.ImagePositionPatient
    position.ImagePositionPatient = [x, y, float(z) + 3.0]


def _pixels_short(image: Dataset) -> None:
    image.PixelData = image.PixelData[:-20]


FAULTS = {
    "position": (_without_position, "ImagePositionPatient of frame 3 is missing"),
    "rescale": (_without_rescale, "RescaleSlope of frame 3 is missing"),
    "groups": (_without_groups, "PerFrameFunctionalGroupsSequence has 0 items for 16 frames"),
    "too many": (_too_many_frames, "PerFrameFunctionalGroupsSequence has 16 items for 17 frames"),
    "number": (_without_number, "NumberOfFrames of .* is missing"),
    "map": (_a_map, "RescaleType of frame 5 is Z_EFF, not HU"),
    "phases": (_two_phases, r"ImagePositionPatient of frame \d+ and of frame \d+ is the same .*two phases"),
    "gap": (_a_gap, r"gap, 1 slice missing: 6\.00 mm from frame 15 .*to frame 16"),
    "short": (_pixels_short, "pixels of frame 1 cannot be decoded"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_multi_frame_ct_is_named_by_its_frame(tmp_path: Path, fault: str) -> None:
    change, expected = FAULTS[fault]
    with pytest.raises(Rejected, match=expected):
        read_ct_series([enhanced(tmp_path / "ct.dcm", change)])


def test_a_scout_frame_is_set_aside(tmp_path: Path) -> None:
    def change(image: Dataset) -> None:
        _frame(image, 1).CTImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]

    series = read_ct_series([enhanced(tmp_path / "ct.dcm", change, 17)])
    assert series.set_aside == ("1 scout in the series set aside (ImageType LOCALIZER): frame 1.",)
    np.testing.assert_array_equal(series.volume.array[0], stored_values(1) + np.float32(1))


def test_a_truncated_multi_frame_file_is_rejected(tmp_path: Path) -> None:
    file = enhanced(tmp_path / "ct.dcm")
    content = file.read_bytes()
    for length in range(0, len(content), 97):
        file.write_bytes(content[:length])
        with pytest.raises(Rejected):
            read_ct_series([file])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_functional_groups_end_in_a_sentence_or_a_volume(tmp_path: Path, data: st.DataObject) -> None:
    """Any few bytes before the pixels may be anything: an unknown VR, a sequence that is none, an item cut short."""
    file, original = tmp_path / "ct.dcm", tmp_path / "original"
    if not original.exists():
        original.write_bytes(enhanced(file).read_bytes())
    content = bytearray(original.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, 5000))
        noise = data.draw(st.binary(min_size=1, max_size=6))
        content[place : place + len(noise)] = noise
    file.write_bytes(bytes(content))
    try:
        series = read_ct_series([file])
    except Rejected as error:
        assert str(error).endswith(".")
    else:
        assert np.isfinite(series.volume.array).all()


def test_the_frames_own_attributes_win_over_the_shared_and_identity_is_never_replaced() -> None:
    top, shared, own = Dataset(), Dataset(), Dataset()
    top.SOPInstanceUID, top.NumberOfFrames = "2.25.1", 1
    unassigned, measures = Dataset(), Dataset()
    unassigned.SOPInstanceUID, unassigned.PixelSpacing, unassigned.ConvolutionKernel = "2.25.9", [9, 9], "B30f"
    measures.PixelSpacing = [2, 3]
    shared.UnassignedSharedConvertedAttributesSequence, own.PixelMeasuresSequence = [unassigned], [measures]
    top.SharedFunctionalGroupsSequence, top.PerFrameFunctionalGroupsSequence = [shared], [own]
    (frame,) = frame_headers(top)
    assert (frame.SOPInstanceUID, frame.ConvolutionKernel, frame.ReferencedFrameNumber) == ("2.25.1", "B30f", 1)
    assert list(frame.PixelSpacing) == [2, 3]
