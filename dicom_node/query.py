"""C-FIND at a peer (Study Root): which studies it has, their series, and how many instances; its answers are limited.

Whatever a peer answers, it costs no more than ``QueryLimits`` allows, and nothing of it is believed that was not asked
for: a peer that knows less of C-FIND than it says answers with all that it has.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.association import Association

from dicom_node.answer_limits import AnswerLimits, limited
from dicom_node.associations import PENDING, SUCCESS, Timeouts, rest_reactor
from dicom_node.client import associated
from dicom_node.peers import Peer
from dicom_node.sop_classes import STUDY_ROOT_FIND
from dicom_node.spool import is_file_name_uid
from twin_scanner.errors import Rejected, Transient

_CANCELLED: Final = 0xFE00
_UTF_8: Final = "ISO_IR 192"


@dataclass(frozen=True)
class QueryLimits:
    """What one association for C-FIND may cost."""

    answers: int = 20_000
    """Of one question; a CT series has a few thousand instances."""
    answer_bytes: int = 65_536
    """Of one answer: pydicom takes 2 KB of memory for every 8 bytes of a malicious one."""
    received_bytes: int = 16 * 2**20
    """Of all that is received, from the first question on."""
    seconds: float = 120.0
    """From the first question to the last answer."""


@dataclass(frozen=True)
class SeriesCount:
    """A series of a study as the peer has it; ``instances`` is what it counts."""

    series_uid: str
    modality: str
    description: str
    instances: int


@dataclass(frozen=True)
class FoundStudy:
    """A study that the peer has; what it did not say is empty, or None."""

    study_uid: str
    patient_id: str
    accession_number: str
    study_date: str
    modalities: tuple[str, ...]
    instances: int | None


class Query:
    """Questions over one association."""

    def __init__(self, association: Association, peer: Peer, limits: QueryLimits) -> None:
        self._association = association
        self._peer = peer
        self._limits = limits

    def find(self, level: str, keys: Mapping[str, str]) -> list[dict[str, str]]:
        """The texts of every answer by keyword, with the keys that were asked for and no others.

        An empty value asks for the attribute, any other must match (PS3.4 C.2.2.2). Raises Transient where the peer
        refuses, breaks off, or answers more than the limits allow.
        """
        identifier = Dataset()
        if not all(value.isascii() for value in keys.values()):
            identifier.SpecificCharacterSet = _UTF_8
        identifier.QueryRetrieveLevel = level
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
        answers: list[dict[str, str]] = []
        rest_reactor(self._association)
        for status, answer in self._association.send_c_find(identifier, STUDY_ROOT_FIND):
            code = status.get("Status")
            if code in PENDING and answer:
                answers.append({keyword: _text(answer, keyword) for keyword in keys})
                if len(answers) > self._limits.answers:
                    raise Transient(
                        f"{self._peer} gave more than {self._limits.answers} answers to C-FIND: ask for less."
                    )
            elif code == SUCCESS:
                return answers
            else:
                break
        raise Transient(_why_broken_off(self._peer, code))

    def series(self, study_uid: str) -> list[SeriesCount]:
        """The series of a study, sorted; none where the peer does not know it. Instances are counted where it does not.

        Raises Transient as ``find`` does.
        """
        keys = {"Modality": "", "SeriesDescription": "", "NumberOfSeriesRelatedInstances": ""}
        found: dict[str, SeriesCount] = {}
        for answer in self.find("SERIES", {"StudyInstanceUID": study_uid, "SeriesInstanceUID": "", **keys}):
            series_uid = answer["SeriesInstanceUID"]
            if not is_file_name_uid(series_uid) or answer["StudyInstanceUID"] not in ("", study_uid):
                continue
            count = _count(answer["NumberOfSeriesRelatedInstances"])
            if count is None:
                count = len(self.instances(study_uid, series_uid))
            found[series_uid] = SeriesCount(series_uid, answer["Modality"], answer["SeriesDescription"], count)
        return [found[series_uid] for series_uid in sorted(found)]

    def instances(self, study_uid: str, series_uid: str) -> frozenset[str]:
        """The SOP Instance UIDs of a series; raises Transient as ``find`` does."""
        wanted = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
        answers = self.find("IMAGE", {**wanted, "SOPInstanceUID": ""})
        meant = (answer for answer in answers if all(answer[key] in ("", uid) for key, uid in wanted.items()))
        return frozenset(answer["SOPInstanceUID"] for answer in meant if is_file_name_uid(answer["SOPInstanceUID"]))

    def studies(self, wanted: Mapping[str, str]) -> list[FoundStudy]:
        """The studies that match, sorted by date and UID; raises Transient as ``find`` does, Rejected for wildcards.

        ``wanted`` are PatientID, AccessionNumber, StudyInstanceUID, each as it is, or StudyDate, which may be a range.
        """
        for keyword, value in wanted.items():
            if any(sign in value for sign in "*?\\"):
                raise Rejected(f"{keyword} must be given in full, without *, ? or a backslash.")
        asked = ("StudyInstanceUID", "PatientID", "AccessionNumber", "StudyDate", "ModalitiesInStudy")
        keys = dict.fromkeys((*asked, "NumberOfStudyRelatedInstances"), "")
        found = {}
        for answer in self.find("STUDY", {**keys, **wanted}):
            exact = (key for key in wanted if key != "StudyDate")
            if is_file_name_uid(answer["StudyInstanceUID"]) and all(answer[key] == wanted[key] for key in exact):
                found[answer["StudyInstanceUID"]] = FoundStudy(
                    study_uid=answer["StudyInstanceUID"],
                    patient_id=answer["PatientID"],
                    accession_number=answer["AccessionNumber"],
                    study_date=answer["StudyDate"],
                    modalities=tuple(filter(None, answer["ModalitiesInStudy"].split("\\"))),
                    instances=_count(answer["NumberOfStudyRelatedInstances"]),
                )
        return sorted(found.values(), key=lambda study: (study.study_date, study.study_uid))


@contextmanager
def querying(
    peer: Peer, *, calling_ae: str, timeouts: Timeouts | None = None, limits: QueryLimits | None = None
) -> Iterator[Query]:
    """An association for questions; raises Transient where none comes about."""
    allowed = limits or QueryLimits()
    with associated(peer, calling_ae, [build_context(STUDY_ROOT_FIND)], timeouts or Timeouts()) as association:
        if not association.accepted_contexts:
            raise Transient(f"{peer} does not accept C-FIND: allow Study Root queries from '{calling_ae}' there.")
        bounds = AnswerLimits(allowed.answer_bytes, allowed.received_bytes, allowed.seconds)
        with limited(association, bounds):
            yield Query(association, peer, allowed)


def find_series_counts(
    peer: Peer,
    study_uid: str,
    *,
    calling_ae: str,
    timeouts: Timeouts | None = None,
    limits: QueryLimits | None = None,
) -> list[SeriesCount]:
    """The series of a study at the peer; none where it does not know it. Raises Transient where it does not say."""
    with querying(peer, calling_ae=calling_ae, timeouts=timeouts, limits=limits) as query:
        return query.series(study_uid)


def _why_broken_off(peer: Peer, status: Any) -> str:
    if not isinstance(status, int) or status in PENDING:
        return f"{peer} broke off C-FIND, or gave more than we take: check that it allows Study Root queries from us."
    if status == _CANCELLED:
        return f"{peer} cancelled C-FIND: check that DICOM service."
    return f"{peer} refused C-FIND with 0x{status:04X}: check that it allows Study Root queries from us."


def _text(answer: Dataset, keyword: str) -> str:
    """A value as it came: pydicom's remarks on a wrong one would bring it into a log."""
    is_utf_8 = _UTF_8.encode() in _raw(answer, "SpecificCharacterSet")
    return _raw(answer, keyword).decode("utf-8" if is_utf_8 else "latin-1", "replace").strip(" \0")


def _raw(answer: Dataset, keyword: str) -> bytes:
    tag = tag_for_keyword(keyword)
    element = answer.get_item(tag) if tag is not None and tag in answer else None
    value = element.value if isinstance(element, RawDataElement) else b""
    return value if isinstance(value, bytes) else b""


def _count(text: str) -> int | None:
    """A number of instances (VR IS); None where there is none that can be one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
