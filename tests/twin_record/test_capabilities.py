"""What a server says of itself decides how it is written. Oracle: R4's CapabilityStatement, as real servers fill it."""

from typing import Any

import pytest

from twin_record.capabilities import RECORDED, WritePlan, plan_for, resource_id

pytestmark = pytest.mark.unit


def statement(*resources: dict[str, Any], interactions: tuple[str, ...] = ("transaction", "batch")) -> dict[str, Any]:
    rest = {"mode": "server", "resource": list(resources), "interaction": [{"code": code} for code in interactions]}
    return {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": [rest]}


def declared(kind: str, **said: Any) -> dict[str, Any]:
    return {"type": kind, "searchParam": [{"name": "identifier", "type": "token"}], **said}


def test_a_server_that_lets_us_choose_ids_is_written_by_ids_of_ours_but_for_its_patients() -> None:
    plan = plan_for(statement(*(declared(kind, updateCreate=True) for kind in RECORDED)))
    assert plan == WritePlan(our_ids=frozenset(RECORDED) - {"Patient"})


@pytest.mark.parametrize("said", [{}, {"updateCreate": False}])
def test_a_server_that_does_not_is_searched_and_posted_to(said: dict[str, Any]) -> None:
    """Medplum's own server refuses a PUT that creates, and Google's does unless it is switched on."""
    assert plan_for(statement(*(declared(kind, **said) for kind in RECORDED))).our_ids == frozenset()


def test_a_server_that_forgets_the_list_is_reached_there_by_our_id() -> None:
    """sekmet-fhir takes a List, finds none by identifier, and does not speak of it."""
    spoken = [declared(kind, updateCreate=True) for kind in RECORDED if kind != "List"]
    plan = plan_for(statement(*spoken))
    assert plan.unsearchable == {"List"}
    assert "List" in plan.our_ids


def test_a_type_whose_parameters_lack_the_identifier_is_not_searched_for_by_it() -> None:
    listed = declared("List", searchParam=[{"name": "subject", "type": "reference"}])
    spoken = [declared(kind) for kind in RECORDED if kind != "List"]
    assert plan_for(statement(*spoken, listed)).unsearchable == {"List"}


def test_only_a_server_that_says_so_gets_creates_without_a_condition() -> None:
    said = [declared(kind) for kind in RECORDED if kind != "Device"]
    plan = plan_for(statement(*said, declared("Device", conditionalCreate=False)))
    assert plan.plain_creates == {"Device"}


@pytest.mark.parametrize(
    ("interactions", "transactions", "batches"),
    [((), True, True), (("transaction",), True, True), (("batch",), False, True), (("history-system",), False, False)],
    ids=["silent", "HAPI names no batch", "batches alone", "neither"],
)
def test_bundles_are_sent_where_they_are_taken(
    interactions: tuple[str, ...], transactions: bool, batches: bool
) -> None:
    plan = plan_for(statement(declared("Patient"), interactions=interactions))
    assert (plan.transactions, plan.batches) == (transactions, batches)


@pytest.mark.parametrize(
    "document", [{}, {"rest": "x"}, {"rest": [1]}, {"rest": [{"resource": [{"type": 3}, 4], "interaction": {}}]}]
)
def test_a_statement_that_says_nothing_leaves_the_default(document: dict[str, Any]) -> None:
    assert plan_for(document) == WritePlan()


def test_whoever_searches_alike_arrives_at_the_same_id() -> None:
    assert resource_id("List", "identifier=a%7Cb") == resource_id("List", "identifier=a%7Cb")
    assert resource_id("List", "identifier=a%7Cb") != resource_id("Device", "identifier=a%7Cb")
