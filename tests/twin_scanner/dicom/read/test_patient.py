"""Oracles: the names of NEMA WG-04's sample files as PS3.5 Annexes H to J and their descriptions print them; dcmtk."""

import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from twin_scanner.dicom.read.patient import patient_and_study, reencoded_item, required_uid, text
from twin_scanner.errors import Rejected

pytestmark = pytest.mark.unit

NAMES = {
    "chrArab": "قباني^لنزار",
    "chrFren": "Buc^Jérôme",
    "chrFrenMulti": "Buc^Jérôme",
    "chrGerm": "Äneas^Rüdiger",
    "chrGreek": "Διονυσιος",
    "chrH31": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "chrH32": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    "chrHbrw": "שרון^דבורה",
    "chrI2": "Hong^Gildong=洪^吉洞=홍^길동",
    "chrJapMulti": "やまだ^たろう",
    "chrJapMultiExplicitIR6": "やまだ^たろう",
    "chrKoreanMulti": "김희중",
    "chrRuss": "Люкceмбypг",
    "chrSQEncoding": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    "chrSQEncoding1": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    "chrX1": "Wang^XiaoDong=王^小東",
    "chrX2": "Wang^XiaoDong=王^小东",
}
"""In chrRuss the letters c, e, m, y, p are Latin in the file itself: WG-04 drew them so."""
IN_A_SEQUENCE = {"chrSQEncoding", "chrSQEncoding1"}
BEYOND_ICONV = {name for name in NAMES if name.startswith(("chrH3", "chrJap", "chrSQ"))}
"""dcmtk with glibc's iconv does not know ISO 2022 IR 87."""


def _header(file: Path) -> Dataset:
    header = pydicom.dcmread(file, stop_before_pixels=True)
    header.StudyInstanceUID = "1.2.3"
    return header


def _raw(header: Dataset, keyword: str, value: bytes) -> None:
    """Put an attribute in as pydicom finds it in a file."""
    tag = Tag(keyword)
    header[tag] = RawDataElement(tag, pydicom.datadict.dictionary_VR(tag), len(value), value, 0, False, True, True)


def _ct(terms: str | list[str] | None = None, **raw: bytes) -> Dataset:
    header = Dataset()
    header.StudyInstanceUID = "1.2.3"
    if terms is not None:
        header.SpecificCharacterSet = terms
    for keyword, value in raw.items():
        _raw(header, keyword, value)
    return header


def _written(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def _identity(name: str, header: Dataset) -> Dataset:
    if name not in IN_A_SEQUENCE:
        return patient_and_study(header)
    inherited = header.get("SpecificCharacterSet", "")
    terms = [inherited] if isinstance(inherited, str) else list(inherited)
    item = reencoded_item(header.RequestedProcedureCodeSequence[0], terms)
    item.SpecificCharacterSet = "ISO_IR 192"
    return item


def test_the_table_names_every_sample(shared_data: Path) -> None:
    assert {file.stem for file in (shared_data / "odd_files/charset").iterdir()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_right_in_every_character_set_and_is_written_as_utf8(name: str, shared_data: Path) -> None:
    result = _identity(name, _header(shared_data / "odd_files/charset" / f"{name}.dcm"))
    assert result.SpecificCharacterSet == "ISO_IR 192"
    assert str(result.PatientName) == NAMES[name]
    encoded = _written(result)
    assert NAMES[name].encode() in encoded
    assert b"\x1b" not in encoded
    assert str(pydicom.dcmread(BytesIO(encoded), force=True).PatientName) == NAMES[name]


@pytest.mark.parametrize("name", sorted(set(NAMES) - BEYOND_ICONV))
def test_dcmtk_reads_the_same_name(name: str, shared_data: Path, peer: Callable[[str], str]) -> None:
    file = shared_data / "odd_files/charset" / f"{name}.dcm"
    dump = subprocess.run([peer("dcmdump"), "+U8", "+P", "PatientName", file], capture_output=True, check=True)
    assert f"[{NAMES[name]}" in dump.stdout.decode()


@pytest.mark.parametrize("name", sorted(set(NAMES) - IN_A_SEQUENCE))
def test_a_name_that_pydicom_has_already_decoded_comes_out_the_same(name: str, shared_data: Path) -> None:
    header = _header(shared_data / "odd_files/charset" / f"{name}.dcm")
    header.decode()
    assert str(patient_and_study(header).PatientName) == NAMES[name]


def test_several_names_and_identifiers_survive_as_several(shared_data: Path) -> None:
    result = patient_and_study(_header(shared_data / "odd_files/charset/chrFrenMulti.dcm"))
    assert [str(name) for name in result.OtherPatientNames] == ["Buc^Jérôme", "Buc^Jérôme"]
    assert list(result.OtherPatientIDs) == ["eggs", "spam"]
    japanese = patient_and_study(_header(shared_data / "odd_files/charset/chrJapMulti.dcm"))
    assert [str(name) for name in japanese.OtherPatientNames] == ["やまだ^たろう", "やまだ^たろう"]


def test_identity_attributes_are_copied_and_everything_else_is_not() -> None:
    header = _ct("ISO_IR 100", PatientName=b"M\xfcller^Anna ", PatientID=b"4711 ", IssuerOfPatientID=b"Universit\xe4t ")
    header.AccessionNumber, header.StudyID, header.PatientBirthDate = "A-1", "S-1", "19600116"
    header.PatientSex, header.PatientAge, header.PatientWeight = "F", "066Y", "71.5"
    header.ReferringPhysicianName, header.TimezoneOffsetFromUTC = "Roe^Jo", "+0100"
    header.Manufacturer, header.SeriesDescription, header.KVP = "Scanners Inc", "THORAX", "120"
    header.add_new(0x00091001, "LO", "private")
    issuer = Dataset()
    issuer.UniversalEntityID, issuer.UniversalEntityIDType = "1.2.276.0.1", "ISO"
    header.IssuerOfPatientIDQualifiersSequence = [issuer]
    result = patient_and_study(header)
    assert str(result.PatientName) == "Müller^Anna"
    assert (result.PatientID, result.IssuerOfPatientID) == ("4711", "Universität")
    assert result.IssuerOfPatientIDQualifiersSequence[0] == issuer
    assert (result.AccessionNumber, result.StudyID, result.PatientBirthDate) == ("A-1", "S-1", "19600116")
    assert (result.PatientSex, result.PatientAge, result.PatientWeight) == ("F", "066Y", 71.5)
    assert (str(result.ReferringPhysicianName), result.TimezoneOffsetFromUTC) == ("Roe^Jo", "+0100")
    assert not {"Manufacturer", "SeriesDescription", "KVP"} & {element.keyword for element in result}
    assert not any(element.tag.is_private for element in result)


def test_what_the_ct_lacks_stays_empty_and_is_never_invented() -> None:
    header = _ct(PatientAge=b"", IssuerOfPatientID=b"")
    header.OtherPatientIDsSequence = []
    result = patient_and_study(header)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
                    "AccessionNumber", "ReferringPhysicianName"):  # fmt: skip
        assert result[keyword].is_empty
    assert {element.keyword for element in result} == {
        *("SpecificCharacterSet", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName"),
        *("PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID"),
    }


def test_items_of_a_sequence_follow_their_own_or_their_parents_character_set() -> None:
    own, inherited = Dataset(), Dataset()
    own.SpecificCharacterSet = "ISO_IR 144"
    _raw(own, "PatientID", "Ж1".encode("iso8859_5"))
    _raw(inherited, "PatientID", "É2".encode("latin-1"))
    header = _ct("ISO_IR 100")
    header.OtherPatientIDsSequence = [own, inherited]
    items = patient_and_study(header).OtherPatientIDsSequence
    assert [item.PatientID for item in items] == ["Ж1", "É2"]
    assert not any("SpecificCharacterSet" in item for item in items)


@pytest.mark.parametrize("terms", [None, "", "ISO_IR 6", "ISO_IR 192", "NOT A SET", ["ISO_IR 6", "ISO 2022 IR 87"]])
def test_a_name_outside_the_declared_set_is_rejected_by_keyword_without_its_value(
    terms: str | list[str] | None,
) -> None:
    with pytest.raises(Rejected, match="PatientName") as caught:
        patient_and_study(_ct(terms, PatientName=b"Buc^J\xe9r\xf4me"))
    assert "Buc" not in str(caught.value)


def test_a_name_that_pydicom_decoded_by_guessing_is_rejected_too() -> None:
    guessed, replaced = _ct(None, PatientName=b"J\xe9r\xf4me"), _ct("ISO_IR 192", PatientName=b"J\xe9r\xf4me")
    assert str(guessed.PatientName) == "Jérôme"
    with pytest.warns(UserWarning, match="replacement"):
        assert "\ufffd" in str(replaced.PatientName)
    for header in (guessed, replaced):
        with pytest.raises(Rejected, match="PatientName"):
            patient_and_study(header)


def test_an_odd_date_or_sex_is_copied_as_it_stands() -> None:
    header = _ct(PatientBirthDate=b"19600230", PatientSex=b"weiblich", StudyTime=b"25:61")
    result = patient_and_study(header)
    assert (result.PatientBirthDate, result.PatientSex, result.StudyTime) == ("19600230", "weiblich", "25:61")


def test_a_weight_that_is_no_number_is_left_out_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    result = patient_and_study(_ct(PatientWeight=b"70,5 kg", PatientSize=b"1.71"))
    assert "PatientWeight" not in result
    assert result.PatientSize == 1.71
    assert "PatientWeight" in caplog.text
    assert "70,5" not in caplog.text


@pytest.mark.parametrize("uid", [b"", b"..", b"1.2/3", b"1.2.x"])
def test_a_study_without_a_valid_uid_is_rejected(uid: bytes) -> None:
    with pytest.raises(Rejected, match="StudyInstanceUID"):
        patient_and_study(_ct(StudyInstanceUID=uid))


def test_one_attribute_is_read_by_the_same_rules() -> None:
    header = _ct("ISO_IR 100", PatientName=b"Buc^J\xe9r\xf4me ", StudyInstanceUID=b"1.2.3\x00")
    assert text(header, "PatientName") == "Buc^Jérôme"
    assert text(header, "PatientID") == ""
    assert required_uid(header, "StudyInstanceUID") == "1.2.3"
