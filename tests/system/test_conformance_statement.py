"""docs/conformance.md says what the code does. Oracles: the constants, the settings, and the files as written."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import pydicom
import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_node import commitment, places, refusal, retrieve, store_scp, store_scu, stow
from dicom_node.admission import Admission
from dicom_node.associations import MAXIMUM_PDU_BYTES, SUCCESS, Timeouts
from dicom_node.listener import Listener
from dicom_node.messages import MAXIMUM_COMMAND_BYTES
from dicom_node.pdu_limits import MAXIMUM_REQUEST_BYTES
from dicom_node.places import AssociationLimits, Rejection
from dicom_node.query import QueryLimits
from dicom_node.sop_classes import (
    CT_CLASSES,
    OWN_CLASSES,
    STORAGE_COMMITMENT,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    TRANSFER_SYNTAXES,
    VERIFICATION,
)
from dicom_node.store_scu import InstanceStatus, instance_of
from tests.twin_scanner.dicom.write.test_companions import make_all
from tests.twin_scanner.dicom.write.test_pet_series import _ct
from twin_scanner.dicom.district_measurements import CATEGORY, DISTRICT_CODES, SUV_BW, SUV_UNIT
from twin_scanner.dicom.equipment import IMPLEMENTATION_VERSION_NAME, implementation_class_uid
from twin_scanner.dicom.read import dicom_files, enhanced_ct, slice_headers
from twin_scanner.dicom.read.ct_headers import HEADER_KEYWORDS
from twin_scanner.dicom.read.ct_series import CtSeries
from twin_scanner.dicom.read.patient import COPIED_WHERE_PRESENT, NEVER_ABSENT
from twin_scanner.dicom.write.key_objects import OF_INTEREST, REJECTED_FOR_QUALITY
from twin_scanner.imaging import bounds
from twin_scanner.settings import Settings

pytestmark = pytest.mark.unit

Row = dict[str, str]
SECTIONS = ("node", "peers", "pacs", "tls", "destinations", "selection", "reading", "scanner", "pet", "outputs")
"""The sections of the configuration that decide what the network and the objects are like."""
OBJECTS = {
    "PET": "pet",
    "Districts": "segmentation",
    "Structured report": "measurement-report",
    "Key image": "key-image",
    "Key object selection and rejection note": "key-objects",
}


@pytest.fixture(scope="module")
def statement(project: Path) -> str:
    return (project / "docs" / "conformance.md").read_text("utf-8")


def tables(statement: str, heading: str) -> list[list[Row]]:
    """The tables below a heading, until the next one; every row by the names of its columns."""
    chapters = re.split(r"^#+ (?:[0-9.]+ )?(.*)$", statement, flags=re.MULTILINE)
    (body,) = [text for title, text in zip(chapters[1::2], chapters[2::2], strict=True) if title == heading]
    found = []
    for table in re.findall(r"(?:^\|.*\n?)+", body, re.MULTILINE):
        head, _, *rows = (
            [cell.strip() for cell in line.strip()[1:-1].split("|")] for line in table.strip().split("\n")
        )
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def table(statement: str, heading: str, number: int = 0) -> list[Row]:
    return tables(statement, heading)[number]


def column(rows: list[Row], name: str) -> list[str]:
    return [row[name] for row in rows]


def statuses(module: Any) -> set[str]:
    """Every status that a module names."""
    return {
        f"0x{value:04X}" for name, value in vars(module).items() if name.isupper() and name != "COMMENT_LENGTH"
        if isinstance(value, int) and value >= 0x0100
    }  # fmt: skip


def test_the_overview_names_every_sop_class_with_its_roles(statement: str) -> None:
    rows = {row["UID"]: row for row in table(statement, "Network services")}
    as_scp = dict.fromkeys(retrieve.RETRIEVED_CLASSES, "by C-GET")
    as_scp |= {VERIFICATION: "yes", **dict.fromkeys(CT_CLASSES, "yes"), **dict.fromkeys(OWN_CLASSES, "returned")}
    assert {uid: row["provider (SCP)"] for uid, row in rows.items() if row["provider (SCP)"] != "no"} == as_scp
    sent = {row["SOP class UID"] for row in table(statement, "Transfer syntaxes", 1)}
    as_scu = sent | {VERIFICATION, STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET, STORAGE_COMMITMENT}
    assert {uid for uid, row in rows.items() if row["user (SCU)"] != "no"} == as_scu
    known = {uid: row["SOP class"] for uid, row in rows.items() if UID(uid).name != uid}
    assert known == {uid: UID(uid).name.removesuffix(" SOP Class") for uid in known}
    assert len(known) >= len(rows) - 1, "supplement 243 is not in pydicom's list everywhere"


def test_the_port_negotiates_what_the_statement_says(statement: str) -> None:
    listener = Listener(
        host="127.0.0.1",
        port=0,
        store=None,  # type: ignore[arg-type]
        reports=commitment.CommitmentReports(lambda report: True),
        admission=Admission("TWINSCANNER"),
    )
    contexts = {str(one.abstract_syntax): one for one in listener._application.supported_contexts}
    documented = column(table(statement, "Transfer syntaxes"), "UID")
    assert documented == list(TRANSFER_SYNTAXES)
    rows = table(statement, "Network services")
    providers = {row["UID"] for row in rows if row["provider (SCP)"] in ("yes", "returned")}
    assert set(contexts) == providers | {STORAGE_COMMITMENT}
    for uid in providers - {VERIFICATION}:
        assert [str(syntax) for syntax in contexts[uid].transfer_syntax] == documented
    reports = contexts[STORAGE_COMMITMENT]
    assert (reports.scu_role, reports.scp_role) == (False, True)


def test_the_transfer_syntaxes_have_their_names(statement: str) -> None:
    rows = table(statement, "Transfer syntaxes")
    assert column(rows, "transfer syntax") == [UID(uid).name for uid in column(rows, "UID")]


def test_what_is_sent_is_proposed_as_the_statement_says(statement: str, written: Mapping[str, Any]) -> None:
    documented = {
        (row["SOP class UID"], row["transfer syntax UID"]) for row in table(statement, "Transfer syntaxes", 1)
    }
    files = [*written["rich"].values(), written["label map"]]
    assert {instance_of(file).offer for file in files} == documented
    assert all(instance_of(written["rich"][kind]).offer[1] == ExplicitVRLittleEndian for kind in written["rich"])


def test_the_limits_of_associations_are_the_codes_own(statement: str) -> None:
    limits, node = AssociationLimits(), Settings().node
    assert {row["policy"]: row["value"] for row in table(statement, "Association policies")} == {
        "longest P-DATA PDU that we take": str(MAXIMUM_PDU_BYTES),
        "longest A-ASSOCIATE-RQ that we take": str(MAXIMUM_REQUEST_BYTES),
        "largest command set, bytes": str(MAXIMUM_COMMAND_BYTES),
        "associations at once as SCP": str(node.maximum_associations),
        "of these from one address": str(node.associations_per_address),
        "share of them that callers without a peer may have": str(places.GUEST_SHARE),
        "connections of peers without an association yet": str(limits.waiting),
        "connections of others without an association yet": str(limits.waiting_strangers),
        "asynchronous operations": "1",
        "implementation class UID": implementation_class_uid(),
        "implementation version name": IMPLEMENTATION_VERSION_NAME,
    }
    times = Timeouts()
    wanted = [times.connection_s, times.negotiation_s, times.read_s, times.idle_s, times.response_s]
    assert [float(row["seconds"]) for row in table(statement, "Association policies", 1)] == wanted
    query = QueryLimits()
    rows = {row["limit of a query"]: float(row["value"]) for row in table(statement, "Association initiation", 2)}
    assert list(rows.values()) == [query.answers, query.answer_bytes, query.received_bytes, query.seconds]


def test_what_is_retrieved_is_proposed_and_answered_as_the_statement_says(statement: str) -> None:
    classes, answers = tables(statement, "Association initiation")[3:]
    assert column(classes, "SOP class UID") == list(retrieve.RETRIEVED_CLASSES)
    codes = {retrieve.DOES_NOT_MATCH, retrieve.CANNOT_UNDERSTAND, retrieve.OUT_OF_RESOURCES, SUCCESS}
    assert {int(row["status of a C-STORE during C-GET"], 16) for row in answers} == codes
    proposed = {(str(one.abstract_syntax), str(one.transfer_syntax[0])) for one in retrieve._storage_contexts()}
    syntaxes = column(table(statement, "Transfer syntaxes"), "UID")
    assert proposed == {(uid, syntax) for uid in column(classes, "SOP class UID") for syntax in syntaxes}


def test_the_limits_of_dicomweb_are_the_codes_own(statement: str) -> None:
    limits = [stow.MOST_INSTANCES, stow.MOST_BYTES, stow.LARGEST_ANSWER_BYTES, stow.PAGE]
    assert [int(row["value"]) for row in table(statement, "DICOMweb")] == limits


def test_the_attributes_that_are_read_are_those_of_the_reader(statement: str) -> None:
    rows = table(statement, "Attributes used of received objects")
    named = [keyword for row in rows for keyword in row["attributes"].split(", ")]
    assert sorted(named) == sorted(HEADER_KEYWORDS)


def test_the_bounds_of_a_scan_are_the_readers_own(statement: str) -> None:
    assert {row["what"]: row["bound"] for row in table(statement, "What no scan of a person has")} == {
        "PixelSpacing": "{:g} to {:g} mm".format(*slice_headers.PIXEL_SPACING_MM),
        "distance of the slices (ImagePositionPatient)": "{:g} to {:g} mm".format(*bounds.SPACING_MM),
        "length of the stack, size of a slice": f"{bounds.LONGEST_MM:g} mm, {bounds.WIDEST_MM:g} mm",
        "ImagePositionPatient from the origin of its frame of reference": f"{slice_headers.FARTHEST_MM / 1000:g} m",
        "Rows, Columns, and voxels in all": f"{slice_headers.MAXIMUM_MATRIX} each, {bounds.MAXIMUM_VOXELS}",
        "RescaleSlope, RescaleIntercept": "{:g} to {:g}, {:g} to {:g}".format(
            *slice_headers.SLOPE, *slice_headers.INTERCEPT
        ).replace("e+", "e"),
        "frames of a multi-frame object": str(enhanced_ct.MAXIMUM_FRAMES),
        "a value of an attribute that is read, but for sequences": f"{dicom_files.VALUE_BYTES} bytes",
    }


def test_each_status_of_a_peer_means_to_us_what_the_statement_says(statement: str) -> None:
    for row in table(statement, "Association initiation"):
        status = int(row["status"], 16)
        answer = InstanceStatus("1.2", status)
        assert answer.stored is row["what we do"].startswith("stored"), row
        assert answer.warning is ("warnings" in row["name"]), row
        assert (status in store_scu.OUT_OF_RESOURCES) is row["what we do"].startswith("nothing more"), row


def test_the_statuses_that_we_answer_are_the_codes_own(statement: str) -> None:
    storage, reports = tables(statement, "Association acceptance")[1:3]
    success = f"0x{SUCCESS:04X}"
    own = {f"0x{store_scp.KEPT_APART:04X}"}
    assert set(column(storage, "status")) == statuses(refusal) | own | {success}
    assert set(column(reports, "status")) == statuses(commitment) | {success}
    assert set(re.findall(r"^0x[0-9A-F]{4}", store_scp.__doc__ or "", re.MULTILINE)) == set(column(storage, "status"))


def test_the_rejections_are_the_codes_own(statement: str) -> None:
    rows = table(statement, "Association acceptance")
    documented = [tuple(int(row[name]) for name in ("result", "source", "reason")) for row in rows]
    known = [
        Rejection.of_caller(""),
        Rejection.of_called(""),
        Rejection.for_now(""),
        Rejection.for_now("", is_congestion=True),
    ]
    assert documented == [(one.result, one.source, one.reason) for one in known]


def test_every_key_of_the_configuration_is_there_with_its_default(statement: str) -> None:
    documented = {row["key"]: row["default"] for row in table(statement, "Configuration")}
    assert documented == dict(defaults())


def defaults() -> Iterator[tuple[str, str]]:
    for name in SECTIONS:
        annotation = Settings.model_fields[name].annotation
        section, prefix = (get_args(annotation)[0], f"[[{name}]]") if get_args(annotation) else (annotation, name)
        for key, field in section.model_fields.items():
            yield f"{prefix}.{key}", "required" if field.is_required() else shown(field.default)


def shown(value: Any) -> str:
    """A default as TOML writes it."""
    if value is None:
        return "none"
    plain = value.value if isinstance(value, Enum) else value
    if isinstance(plain, bool):
        return str(plain).lower()
    if isinstance(plain, (list, tuple)):
        return "[" + ", ".join(shown(one) for one in plain) + "]"
    if isinstance(plain, str):
        return f'"{plain}"'
    return f"{plain:g}" if isinstance(plain, float) else str(plain)


def rich_ct() -> CtSeries:
    """A CT with a value in everything that is copied."""
    samples = {"DA": "20260102", "TM": "101500", "AS": "040Y", "DS": "70", "CS": "YES", "PN": "Doe^Jane"}
    attributes: dict[str, object] = {}
    for keyword in (*NEVER_ABSENT, *COPIED_WHERE_PRESENT):
        item = Dataset()
        item.LocalNamespaceEntityID = "X"
        vr = dictionary_VR(keyword)
        attributes[keyword] = [item] if vr == "SQ" else samples.get(vr, "text")
    attributes |= {"TimezoneOffsetFromUTC": "+0100", "PatientSex": "F", "PositionReferenceIndicator": "XY"}
    attributes |= {"LossyImageCompression": "01", "LossyImageCompressionRatio": "8", "SyntheticData": "YES"}
    return _ct(**attributes, LossyImageCompressionMethod="ISO_10918_1", BodyPartExamined="CHEST")


def poor_ct() -> CtSeries:
    """A CT with nothing but what it must have."""
    ct, header = _ct(), Dataset()
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        header[keyword] = ct.header[keyword]
    return replace(ct, header=header)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A file of each kind, of a CT with everything and of a CT with nothing; and a label map."""
    found: dict[str, Any] = {}
    for name, ct in (("rich", rich_ct()), ("poor", poor_ct())):
        pet, companions = make_all(tmp_path_factory.mktemp(name), ct)
        found[name] = {"pet": pet.files[3], **{one.kind: one.file for one in companions}}
    _, (label_map, *_) = make_all(tmp_path_factory.mktemp("map"), kind="labelmap")
    return found | {"label map": label_map.file}


@pytest.mark.parametrize("heading", OBJECTS)
def test_every_attribute_that_is_written_is_there_and_no_other(
    heading: str, statement: str, written: Mapping[str, Any]
) -> None:
    common, own = (table(statement, one) for one in ("Attributes of every object", heading))
    rich, poor = (pydicom.dcmread(written[name][OBJECTS[heading]]) for name in ("rich", "poor"))
    rows = {row["attribute"]: row for row in (*common, *own)}
    assert len(rows) == len(common) + len(own)
    assert set(rows) == {element.keyword for element in (*rich, *poor)}
    for keyword, row in rows.items():
        tag = tag_for_keyword(keyword) or 0
        assert row["tag"] == f"({tag >> 16:04X},{tag & 0xFFFF:04X})", keyword
        assert row["presence"] == presence(rich, poor, keyword), keyword
        literal = re.fullmatch(r"`(.*)`", row["value"])
        if literal and row["source"] == "AUTO":
            assert {text(one, keyword) for one in (rich, poor)} == {literal[1]}, keyword


def presence(rich: Dataset, poor: Dataset, keyword: str) -> str:
    """As PS3.2 abbreviates it, by what a CT with everything and one with nothing give."""
    if keyword not in rich or keyword not in poor:
        return "ANAP"
    if poor[keyword].is_empty:
        return "EMPTY" if rich[keyword].is_empty else "VNAP"
    return "ALWAYS"


def text(dataset: Dataset, keyword: str) -> str:
    value = dataset[keyword].value
    return "\\".join(str(one) for one in value) if isinstance(value, pydicom.multival.MultiValue) else str(value)


def test_what_is_copied_from_the_ct_is_what_the_reader_copies(statement: str) -> None:
    rows = table(statement, "Attributes of every object")
    copied = {row["attribute"] for row in rows if row["source"] == "CT"}
    assert copied == {*NEVER_ABSENT, *COPIED_WHERE_PRESENT, "StudyInstanceUID"}


def test_the_codes_and_templates_are_the_codes_own(statement: str) -> None:
    documents, measurements, districts = tables(statement, "Coded terminology and templates")
    titles = [code(row["title"]) for row in documents]
    assert titles[1:] == [OF_INTEREST, REJECTED_FOR_QUALITY]
    suv = [row for row in measurements if row["measurement"].startswith("SUV")]
    assert {code(row["concept"]) for row in suv} == {SUV_BW}
    assert {row["unit"] for row in suv} == {f"({SUV_UNIT.value}, UCUM)"}
    found = {row["district"]: code(row["concept"]) for row in districts}
    assert found.popitem()[1] == CATEGORY
    assert found == dict(DISTRICT_CODES)


def test_the_report_holds_the_measurements_that_the_statement_names(statement: str, written: Mapping[str, Any]) -> None:
    (documents, measurements, _) = tables(statement, "Coded terminology and templates")
    report = pydicom.dcmread(written["rich"]["measurement-report"])
    assert code_of(report.ConceptNameCodeSequence[0]) == code(documents[0]["title"])
    derivations, concepts = set(), set()
    for element in report.iterall():
        if element.keyword == "ContentSequence":
            for item in element.value:
                if item.ValueType == "NUM":
                    concepts.add(code_of(item.ConceptNameCodeSequence[0]))
                if item.ValueType == "CODE" and item.ConceptNameCodeSequence[0].CodeMeaning == "Derivation":
                    derivations.add(code_of(item.ConceptCodeSequence[0]))
    assert concepts == {code(row["concept"]) for row in measurements}
    assert derivations == {code(row["derivation"]) for row in measurements if row["derivation"]}


def code(cell: str) -> Code:
    """(value, scheme, meaning) as a table writes it."""
    value, scheme, meaning = cell.strip("()").split(", ")
    return Code(value, scheme, meaning)


def code_of(item: Dataset) -> Code:
    return Code(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)
