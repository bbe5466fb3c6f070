"""An event as an audit message of DICOM PS3.15 A.5: which of its kinds it is, who took part, and which of our rows.

No message names a patient: the participating object is the row's key in our ledger, by which the ledger itself says
which study it was. PS3.15 A.5.3 wants study and patient there; a repository that is to hold them asks the ledger.
"""

import base64
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET

from twin_scanner.service.ledger import Event


@dataclass(frozen=True)
class Kind:
    """What an event is in PS3.16 CID 400 and 401."""

    code: str
    meaning: str
    action: str
    """Create, Read, Update, Delete or Execute, by its first letter."""
    type_code: str = ""
    type_meaning: str = ""
    outcome: str = "0"
    """0: success, 4: minor failure, 8: serious failure."""


AUTHENTICATION: Final = ("110114", "User Authentication", "E")
ALERT: Final = ("110113", "Security Alert", "E")
ACTIVITY: Final = ("110100", "Application Activity", "E")
ACCESSED: Final = ("110103", "DICOM Instances Accessed")
TRANSFERRED: Final = ("110104", "DICOM Instances Transferred")
DELETED: Final = ("110105", "DICOM Study Deleted", "D")
RECORD: Final = ("110110", "Patient Record")

BY_WHAT: Final = {
    ("logins", "logged in"): Kind(*AUTHENTICATION, "110122", "Login"),
    ("logins", "logged out"): Kind(*AUTHENTICATION, "110123", "Logout"),
    ("logins", "login refused"): Kind(*AUTHENTICATION, "110122", "Login", outcome="4"),
    ("users", "added"): Kind(*ALERT, "110137", "User Security Attributes Changed"),
    ("users", "removed"): Kind(*ALERT, "110137", "User Security Attributes Changed"),
    ("studies", "cleared"): Kind(*DELETED),
    ("jobs", "cleared"): Kind(*DELETED),
    ("jobs", "seen"): Kind(*ACCESSED, "R"),
    ("jobs", "images seen"): Kind(*ACCESSED, "R"),
    ("jobs", "opened"): Kind(*TRANSFERRED, "C"),
    ("jobs", "rendered"): Kind(*ACCESSED, "C"),
    ("jobs", "failed"): Kind(*ACCESSED, "C", outcome="8"),
    ("jobs", "rejected"): Kind(*ACCESSED, "C", outcome="4"),
}
BY_TABLE: Final = {
    "studies": Kind(*TRANSFERRED, "C"),
    "jobs": Kind(*ACCESSED, "U"),
    "deliveries": Kind(*TRANSFERRED, "R"),
    "twin": Kind(*RECORD, "R"),
    "fhir": Kind(*RECORD, "R"),
}
"""What an event is by the table of its row; every other one is an activity of the application."""
OTHER: Final = Kind(*ACTIVITY)


def kind_of(event: Event) -> Kind:
    """What the event is in the standard's words."""
    if event.what == "erased":
        return Kind(*RECORD, "D")
    return BY_WHAT.get((event.of_table, event.what)) or BY_TABLE.get(event.of_table, OTHER)


def audit_message(event: Event) -> bytes:
    """The message, as PS3.15 A.5.1's schema has it, in UTF-8."""
    kind = kind_of(event)
    message = ET.Element("AuditMessage")
    identification = ET.SubElement(
        message,
        "EventIdentification",
        EventActionCode=kind.action,
        EventDateTime=event.at.isoformat(),
        EventOutcomeIndicator=kind.outcome,
    )
    _code(identification, "EventID", kind.code, kind.meaning)
    if kind.type_code:
        _code(identification, "EventTypeCode", kind.type_code, kind.type_meaning)
    _participant(message, event.who, is_requestor=True)
    if event.of_table == "logins" and event.row_id != event.who:
        _participant(message, event.row_id, is_requestor=False)
    source = ET.SubElement(message, "AuditSourceIdentification", AuditSourceID=event.node)
    ET.SubElement(source, "AuditSourceTypeCode", {"csd-code": "4"})
    _object(message, event)
    return b'<?xml version="1.0" encoding="UTF-8"?>' + ET.tostring(message, encoding="utf-8", xml_declaration=False)


def _participant(message: ET.Element, user: str, *, is_requestor: bool) -> None:
    ET.SubElement(message, "ActiveParticipant", UserID=user, UserIsRequestor=str(is_requestor).lower())


def _object(message: ET.Element, event: Event) -> None:
    """The row that the event is about: a system object (2), a report (3)."""
    row = ET.SubElement(
        message,
        "ParticipantObjectIdentification",
        ParticipantObjectID=f"{event.of_table}/{event.row_id}",
        ParticipantObjectTypeCode="2",
        ParticipantObjectTypeCodeRole="3",
    )
    kind = ET.SubElement(row, "ParticipantObjectIDTypeCode", {"csd-code": "12", "codeSystemName": "RFC-3881"})
    kind.set("originalText", "URI")
    ET.SubElement(row, "ParticipantObjectName").text = f"{event.of_table} {event.what}"
    for name, value in (("event", str(event.event_id)), ("what", event.what), ("hash", event.hash)):
        ET.SubElement(row, "ParticipantObjectDetail", type=name, value=_base64(value))


def _base64(text: str) -> str:
    """ValuePair's value is xsd:base64Binary."""
    return base64.b64encode(text.encode()).decode()


def _code(parent: ET.Element, name: str, code: str, meaning: str) -> None:
    ET.SubElement(parent, name, {"csd-code": code, "codeSystemName": "DCM", "originalText": meaning})
