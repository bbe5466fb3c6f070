"""Attributes found by stepping over tags and lengths. Oracle: pydicom's own reader of the same bytes."""

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.elements import texts_of
from dicom_node.instance_header import DECIDING_TAGS
from tests.samples import instances

pytestmark = pytest.mark.unit

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


def encoded(dataset: Dataset, syntax: UID) -> bytes:
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = syntax.is_implicit_VR, syntax.is_little_endian
    write_dataset(stream, dataset)
    return stream.getvalue()


def with_sequences(*, undefined: bool) -> Dataset:
    """Sequences in sequences before, between and behind the UIDs, whose items have UIDs of the same tags."""
    inner = Dataset()
    inner.SOPInstanceUID = "9.9.9"
    inner.StudyInstanceUID = "8.8.8"
    outer = Dataset()
    outer.ReferencedSOPClassUID = "7.7"
    outer.ReferencedImageSequence = Items([inner, Dataset(), inner])
    dataset = instances.instance(
        ReferencedStudySequence=Items([outer, inner]), DeidentificationMethodCodeSequence=Items([outer])
    )
    for one in (dataset, outer):
        for element in one:
            if element.VR == "SQ":
                element.is_undefined_length = undefined
                for item in element.value:
                    item.is_undefined_length_sequence_item = undefined
    return dataset


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [True, False])
def test_the_attributes_of_the_top_level_are_found_behind_nested_sequences(syntax: UID, undefined: bool) -> None:
    dataset = with_sequences(undefined=undefined)
    texts, is_beyond = texts_of(encoded(dataset, syntax), syntax, DECIDING_TAGS)
    expected = {tag: str(dataset[tag].value) for tag in DECIDING_TAGS if tag in dataset}
    assert (texts, is_beyond) == (expected, True)
    assert texts[0x00080018] == "1.2.3.1.1" and texts[0x0020000D] == "1.2.3"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_beginning_that_ends_anywhere_gives_what_it_has_and_says_that_more_may_follow(syntax: UID) -> None:
    whole = encoded(with_sequences(undefined=True), syntax)
    complete, _ = texts_of(whole, syntax, DECIDING_TAGS)
    behind = max(whole.index(b"1.2.3.1") + 20, 0)
    for end in range(0, behind, 7):
        texts, is_beyond = texts_of(whole[:end], syntax, DECIDING_TAGS)
        assert is_beyond or all(text in ("", complete[tag]) for tag, text in texts.items())


def test_a_sequence_of_unknown_vr_and_undefined_length_is_stepped_over() -> None:
    """Its content is implicit VR little endian whatever the data set is (PS3.5 6.2.2 note 2)."""
    inner = encoded(instances.instance(), ImplicitVRLittleEndian)
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + inner + b"\xfe\xff\x0d\xe0\0\0\0\0"
    unknown = b"\x09\x00\x10\x10UN\0\0\xff\xff\xff\xff" + item + b"\xfe\xff\xdd\xe0\0\0\0\0"
    study = b"\x20\x00\x0d\x00UI\x06\x001.2.3\0" + b"\x20\x00\x10\x00SH\x00\x00"
    texts, is_beyond = texts_of(unknown + study, ExplicitVRLittleEndian, (0x00080018, 0x0020000D))
    assert (texts, is_beyond) == ({0x0020000D: "1.2.3"}, True)


def test_sequences_that_lie_too_deep_are_no_data_set() -> None:
    level = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    with pytest.raises(ValueError, match="too deep"):
        texts_of(level * 1000, ExplicitVRLittleEndian, DECIDING_TAGS)


def test_a_real_ct_has_the_attributes_that_pydicom_reads(shared_data: Path) -> None:
    for file in sorted((shared_data / "thorax_petct" / "ct").iterdir())[:5]:
        dataset = dcmread(file)
        content = instances.data_set_bytes(file)
        texts, _ = texts_of(content[:65536], UID(dataset.file_meta.TransferSyntaxUID), DECIDING_TAGS)
        assert texts == {tag: str(dataset[tag].value or "") for tag in DECIDING_TAGS if tag in dataset}
