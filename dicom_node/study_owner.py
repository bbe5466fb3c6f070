"""C-FIND for whose a study is: the patient as a peer has it now (IHE PIR: patients are corrected after the images)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from dicom_node.associations import Timeouts
from dicom_node.peers import Peer
from dicom_node.query import QueryLimits, querying

_UTF_8: Final = "ISO_IR 192"
_READ: Final = ("ISO_IR 6", "ISO_IR 100", _UTF_8)
"""The character sets in which an answer's text is read; of another one only what is ASCII."""
_KEYS: Final = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex")


@dataclass(frozen=True)
class StudyOwner:
    """Whose a study is at a peer; DICOM's own values, empty where the peer does not say."""

    patient_id: str
    issuer_of_patient_id: str
    patient_name: str
    birth_date: str
    sex: str


def study_owners(
    peer: Peer,
    study_uids: Iterable[str],
    *,
    calling_ae: str,
    timeouts: Timeouts | None = None,
    limits: QueryLimits | None = None,
) -> Iterator[tuple[str, list[StudyOwner]]]:
    """Each study with whose it is at the peer, over one association: nobody's where the peer does not know it.

    Raises Transient where the peer does not say.
    """
    with querying(peer, calling_ae=calling_ae, timeouts=timeouts, limits=limits) as query:
        for study_uid in study_uids:
            keys = {"SpecificCharacterSet": _UTF_8, "StudyInstanceUID": study_uid, **dict.fromkeys(_KEYS, "")}
            answers = [one for one in query.find("STUDY", keys) if one["StudyInstanceUID"] == study_uid]
            yield study_uid, list(dict.fromkeys(map(_owner, answers)))


def _owner(answer: dict[str, str]) -> StudyOwner:
    is_read = answer["SpecificCharacterSet"] in _READ
    values = {key: answer[key] if is_read or answer[key].isascii() else "" for key in _KEYS}
    return StudyOwner(*values.values())
