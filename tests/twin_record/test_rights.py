"""What a server says against our writing. Oracles: R4's CapabilityStatement, SMART App Launch's scopes."""

from dataclasses import replace
from typing import Any

import pytest

from tests.samples.twin_updates import SITE
from twin_record.capabilities import RECORDED
from twin_record.rights import lacking_rights

pytestmark = pytest.mark.unit

Json = dict[str, Any]
HELD = replace(SITE, unknown_patient="hold")


def statement(**of_kinds: Json) -> Json:
    """All types with create and update, but for these."""
    both = {"interaction": [{"code": "read"}, {"code": "create"}, {"code": "update"}]}
    resources = [{"type": kind, **of_kinds.get(kind, both)} for kind in RECORDED]
    return {"resourceType": "CapabilityStatement", "rest": [{"mode": "server", "resource": resources}]}


def listing(*codes: str, **said: Any) -> Json:
    return {"interaction": [{"code": code} for code in codes], **said}


@pytest.mark.parametrize(
    ("said", "lacks"),
    [
        (statement(), None),
        (
            statement(ImagingStudy=listing("read", "search-type")),
            "create ImagingStudy resources and to update ImagingStudy resources",
        ),
        (statement(List=listing("read", "create")), "to update List resources,"),
        (statement(Device=listing("read", "update", updateCreate=True)), None),
        (statement(Observation={}), None),
        (statement(Patient=listing("read")), None),
        ({"resourceType": "CapabilityStatement"}, None),
    ],
    ids=[
        "all",
        "reads alone",
        "no change",
        "a PUT that creates",
        "lists nothing",
        "patients are theirs",
        "says nothing",
    ],
)
def test_a_statement_that_allows_no_writing_is_named(said: Json, lacks: str | None) -> None:
    """Rights were checked by a read alone, so a server for reading was found out at the first record."""
    found = lacking_rights(said, None, HELD)
    assert (lacks is None) == (found == ())
    assert lacks is None or lacks in found[0]


def test_who_creates_patients_needs_the_right_to() -> None:
    (found,) = lacking_rights(statement(Patient=listing("read")), None, replace(SITE, unknown_patient="create"))
    assert "create Patient" in found


@pytest.mark.parametrize(
    ("scope", "lacks"),
    [
        ("system/*.crus", None),
        ("system/*.*", None),
        ("system/*.read system/*.write", None),
        ("system/*.rs", "update List"),
        ("system/*.read", "create Provenance"),
        (
            "system/*.rs system/List.cu system/ImagingStudy.cu system/Device.c system/Observation.cu",
            "create Provenance",
        ),
        ("openid", None),
        ("", None),
    ],
)
def test_a_scope_that_allows_no_writing_is_named(scope: str, lacks: str | None) -> None:
    found = lacking_rights(statement(), scope, HELD)
    assert (lacks is None) == (found == ())
    assert lacks is None or lacks in found[0]
