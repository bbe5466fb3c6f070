"""Data sets as bytes. Oracle: pydicom's own writer, byte for byte."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, RLELossless
from pydicom.valuerep import DSfloat

from twin_scanner.dicom.write.encoding import encoded, encoded_file, file_start, file_starts
from twin_scanner.dicom.write.pet_series import file_meta

UID = "1.2.826.0.1.3680043.9.1234"


def by_pydicom(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def whole(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = PositronEmissionTomographyImageStorage, UID
    dataset.file_meta = file_meta(dataset.SOPClassUID, UID, syntax)
    return dataset


def of(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def nested(*items: Dataset) -> Dataset:
    return of(PatientID="1", SourceImageSequence=list(items))


def undefined_lengths() -> Dataset:
    dataset = nested(of(ReferencedSOPInstanceUID="1.2.3"), of(ReferencedSOPInstanceUID="1.2"))
    dataset["SourceImageSequence"].is_undefined_length = True
    dataset.SourceImageSequence[1].is_undefined_length_sequence_item = True
    return dataset


def an_item_of_undefined_length() -> Dataset:
    dataset = nested(of(ReferencedSOPInstanceUID="1.2.3"))
    dataset.SourceImageSequence[0].is_undefined_length_sequence_item = True
    return dataset


def a_private_block() -> Dataset:
    dataset = of(PatientID="1")
    block = dataset.private_block(0x0011, "OURS", create=True)
    block.add_new(1, "UN", b"abc ")
    block.add_new(2, "LO", "private")
    return dataset


def encapsulated() -> Dataset:
    dataset = of(PixelData=b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x02\x00\x00\x00ab")
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    return dataset


def read_again() -> Dataset:
    """Its elements are raw until they are looked at; sequence and item have undefined lengths."""
    return dcmread(BytesIO(by_pydicom(whole(undefined_lengths()))))


def a_retired_group_length() -> Dataset:
    dataset = of(PatientID="1")
    dataset.add_new(0x00100000, "UL", 10)
    return dataset


MADE: dict[str, Callable[[], Dataset]] = {
    "texts": lambda: of(PatientID="odd", StudyID="even", SeriesDescription="", AccessionNumber=None, Modality="PT"),
    "names": lambda: of(PatientName="Šebek^Jiří=夏", ReferringPhysicianName=["A^B", "C"], OperatorsName=""),
    "texts that are not ASCII": lambda: of(SeriesDescription="Größe", ImageComments="µ", PatientID="Ω1"),
    "several values": lambda: of(ImageType=["DERIVED", "PRIMARY"], SoftwareVersions=["1", "2.3"], SeriesType=["", "A"]),
    "UIDs": lambda: of(StudyInstanceUID=UID, SeriesInstanceUID="1.2", RelatedGeneralSOPClassUID=["1.2", "1.3"]),
    "decimals": lambda: of(
        SliceThickness="3.0", PixelSpacing=[0.9765625, "1.10"], ImagePositionPatient=["-1", "2.5e-3", DSfloat(7)]
    ),
    "empty numbers": lambda: of(SliceThickness=None, WindowCenter="", Rows=None, DimensionIndexValues=[]),
    "integers": lambda: of(InstanceNumber="007", SeriesNumber=7, Rows=512, DimensionIndexValues=[1, 2]),
    "floats": lambda: of(RealWorldValueSlope=np.float64(0.1), ReferencePixelPhysicalValueX=-2, ExposureTimeInms=0.5),
    "dates": lambda: of(StudyDate="20240229", StudyTime="235959.123456", AcquisitionDateTime="20240229+0100"),
    "tags": lambda: of(DimensionIndexPointer=0x00200032, FrameIncrementPointer=[0x00200032, 0x00080018]),
    "pixels of two bytes": lambda: of(BitsAllocated=16, PixelRepresentation=1, PixelData=b"\x01\x02\x03\x04"),
    "pixels of one byte, an odd number": lambda: of(BitsAllocated=8, PixelRepresentation=0, PixelData=b"\x01\x02\x03"),
    "an ambiguous VR": lambda: of(PixelRepresentation=1, SmallestImagePixelValue=-5, LargestImagePixelValue=7),
    "an ambiguous VR whose meaning lies further out": lambda: of(
        PixelRepresentation=1, ModalityLUTSequence=[of(LUTDescriptor=[4, 0, 16], LUTData=b"\x01\x02\x03\x04")]
    ),
    "no item": lambda: nested(),
    "items in items": lambda: nested(
        of(PurposeOfReferenceCodeSequence=[of(CodeValue="1", CodeMeaning="µ", CodingSchemeDesignator="DCM")]), Dataset()
    ),
    "a character set of its own": lambda: nested(of(SpecificCharacterSet="ISO_IR 100", PatientName="Müller")),
    "undefined lengths": undefined_lengths,
    "an item of undefined length": an_item_of_undefined_length,
    "private elements": a_private_block,
    "a retired group length": a_retired_group_length,
    "read again": read_again,
    "a text that is too long for its VR": lambda: of(DerivationDescription="x" * 10, ImageComments="y" * 10_000),
    "a long text": lambda: of(TextValue="z" * 70_001, ReferencedSOPSequence=Sequence()),
}  # fmt: skip


@pytest.mark.parametrize("kind", MADE)
def test_the_bytes_are_pydicom_s(kind: str) -> None:
    assert encoded_file(whole(MADE[kind]())) == by_pydicom(whole(MADE[kind]()))


def test_encapsulated_pixels_are_pydicom_s_too() -> None:
    assert encoded_file(whole(encapsulated(), RLELossless)) == by_pydicom(whole(encapsulated(), RLELossless))


def test_a_data_set_is_encoded_in_the_order_of_its_tags_whatever_that_of_its_making() -> None:
    assert encoded(of(Rows=1, PatientID="1")) == encoded(of(PatientID="1", Rows=1))


@pytest.mark.parametrize("uid", ["1.2", "1.2.3", UID + ".12345678901234567890123"])
def test_the_start_of_each_file_is_that_of_its_own_meta_information(uid: str) -> None:
    starts = file_starts(file_meta(PositronEmissionTomographyImageStorage, UID))
    assert starts(uid) == file_start(file_meta(PositronEmissionTomographyImageStorage, uid))
