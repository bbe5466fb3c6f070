"""Oracles: PS3.5 9.1 and B.2 for UIDs, Python's uuid module, the file system for names, a recomputation by hashlib."""

import hashlib
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import UID

from twin_scanner.dicom.equipment import MANUFACTURER, derive_uid, implementation_class_uid, is_our_own, valid_uid

pytestmark = pytest.mark.unit


def _header(**attributes: str) -> Dataset:
    header = Dataset()
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    return header


def test_a_derived_uid_is_a_uuid_from_sha256_and_always_the_same() -> None:
    digest = bytearray(hashlib.sha256(b'["pet-series", "P1", "model"]').digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    assert derive_uid("pet-series", "P1", "model") == f"2.25.{int.from_bytes(digest, 'big')}"


@given(st.text(), st.lists(st.text(), max_size=4))
def test_every_derived_uid_is_a_uid_of_a_version_8_uuid(kind: str, parts: list[str]) -> None:
    derived = derive_uid(kind, *parts)
    value = uuid.UUID(int=int(derived.removeprefix("2.25.")))
    assert UID(derived).is_valid
    assert valid_uid(derived)
    assert (value.version, value.variant) == (8, uuid.RFC_4122)


@given(st.lists(st.text(max_size=3), max_size=3), st.lists(st.text(max_size=3), max_size=3))
def test_other_parts_give_another_uid_however_they_are_cut(first: list[str], second: list[str]) -> None:
    assert (derive_uid("kind", *first) == derive_uid("kind", *second)) == (first == second)


@given(st.text() | st.from_regex(r"[0-9./\\]{1,70}") | st.from_regex(r"[0-9.]{1,64}\s?"))
def test_what_passes_as_a_uid_names_a_file_in_its_own_folder(text: str) -> None:
    if not valid_uid(text):
        return
    folder = Path("/spool/job")
    assert (folder / text).parent == folder
    assert (folder / text).name == text
    assert not text.startswith(".")
    assert set(text) <= set("0123456789.")
    assert len(text.encode()) <= 64


@pytest.mark.parametrize("text", ["1.2", "1.2.840.10008.5.1.4.1.1.128", "2.25." + "9" * 59, "1.2.03.4"])
def test_uids_as_scanners_write_them_pass(text: str) -> None:
    assert valid_uid(text)


@pytest.mark.parametrize(
    "text",
    ["", "1", ".", "..", "1..2", ".1.2", "1.2.", "../1.2", "1.2/3", "1.2\\3", "/1.2", "1.2\n", "1.2\x00", " 1.2",
     "1.2 ", "1.٢", "1.²", "1.2a", "-1.2", "1.2:3", "~1.2", "2.25." + "9" * 60],
)  # fmt: skip
def test_path_tricks_and_what_is_no_uid_are_refused(text: str) -> None:
    assert not valid_uid(text)


def test_the_implementation_class_is_one_valid_uid() -> None:
    assert implementation_class_uid() == implementation_class_uid()
    assert UID(implementation_class_uid()).is_valid


def test_the_loop_guard_knows_our_pet_by_manufacturer_and_serial_number() -> None:
    ours = _header(Modality="PT", Manufacturer=MANUFACTURER, DeviceSerialNumber="TS-1")
    assert is_our_own(ours, "TS-1")
    assert is_our_own(_header(Modality="SEG", Manufacturer=MANUFACTURER + " ", DeviceSerialNumber="TS-1"), " TS-1")


@pytest.mark.parametrize(
    "attributes",
    [
        {"Modality": "CT", "Manufacturer": MANUFACTURER, "DeviceSerialNumber": "TS-1"},
        {"Modality": "PT", "Manufacturer": MANUFACTURER, "DeviceSerialNumber": "TS-2"},
        {"Modality": "PT", "Manufacturer": "GE MEDICAL SYSTEMS", "DeviceSerialNumber": "TS-1"},
        {"Modality": "PT", "Manufacturer": MANUFACTURER},
        {"Modality": "PT"},
        {},
    ],
    ids=["a phantom's CT", "another node's", "a scanner's", "no serial number", "no manufacturer", "nothing"],
)
def test_the_loop_guard_lets_everything_else_pass(attributes: dict[str, str]) -> None:
    assert not is_our_own(_header(**attributes), "TS-1")
