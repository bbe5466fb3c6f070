"""QIDO-RS for whose a study is (PS3.18 10.6): what ``study_owner`` asks a DICOM peer, asked of a DICOMweb server."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from dicom_node.stow import StowService
from dicom_node.study_owner import StudyOwner

_STUDY_INSTANCE_UID: Final = "0020000D"
_OWNER: Final = ("00100020", "00100021", "00100010", "00100030", "00100040")
"""The fields of a StudyOwner, in its order."""
_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")
"""The component groups of a person's name in DICOM JSON (PS3.18 F.2.2), in the order of PN."""
MOST_OWNERS: Final = 100
"""A study under more patients than this is nobody's."""


def study_owners_at(service: StowService, study_uids: Iterable[str]) -> Iterator[tuple[str, list[StudyOwner]]]:
    """Each study with whose it is at the server: nobody's where it does not know it. No patient is in an address.

    Raises Transient where the server does not say.
    """
    for study_uid in study_uids:
        asked = {"StudyInstanceUID": study_uid, "includefield": ",".join(_OWNER), "limit": str(MOST_OWNERS)}
        answers = [one for one in service.matches("studies", asked) if _text(one, _STUDY_INSTANCE_UID) == study_uid]
        owners = [StudyOwner(*(_text(one, tag) for tag in _OWNER)) for one in answers]
        yield study_uid, list(dict.fromkeys(owners))


def _text(answer: Any, tag: str) -> str:
    element = answer.get(tag) if isinstance(answer, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    value = values[0] if isinstance(values, list) and values else ""
    if isinstance(value, dict):
        return "=".join(str(value.get(group) or "") for group in _GROUPS).rstrip("=")
    return value if isinstance(value, str) else ""
