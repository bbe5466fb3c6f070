"""Answers that are damaged at any one place: each is one of our errors, or does no harm."""

import copy
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.scripted_fhir import Json, Sent, everything_created, scripted_fhir
from tests.samples.twin_updates import SITE, a_series, an_update
from twin_record.embedded import EmbeddedStore
from twin_record.remote import FhirClient
from twin_record.transaction import record_update
from twin_scanner.errors import Defect, Held, Rejected, TwinScannerError

pytestmark = pytest.mark.record

Place = tuple[str | int, ...]

BEFORE = an_update(missing_districts=("legs",))
AFTER = replace(BEFORE, pet_series=a_series("PT"), replaces_series_uids=(BEFORE.pet_series.series_uid,))


NOTHING: Json = {"resourceType": "Bundle", "type": "batch-response", "entry": [{"response": {"status": "404"}}]}
"""The answer to the question that a foreign subject raises: there is no such Patient."""


class Conversation:
    """A server that holds the record of ``BEFORE``: it answers reads as the store did once, and takes everything."""

    def __init__(self, folder: Path) -> None:
        self.answers: list[Json] = []
        with closing(EmbeddedStore(folder / "twin.sqlite", SITE)) as store:
            store.record(BEFORE)
            self._store = store
            record_update(AFTER, SITE, self, 1, lambda _seconds: None)

    def exchange(self, bundle: Json) -> Json:
        answer = self._store.exchange(bundle)
        if bundle["type"] == "batch":
            self.answers.append(answer)
        return answer


class Damaged:
    """The same conversation with one damaged answer."""

    def __init__(self, answers: list[Json]) -> None:
        self._answers = iter(answers)

    def exchange(self, bundle: Json) -> Json:
        if bundle["type"] == "batch":
            return next(self._answers, NOTHING)
        return everything_created(bundle)


def places(value: Any, here: Place = ()) -> Iterator[Place]:
    """Every place in a JSON document; of a list the first item stands for all."""
    if here:
        yield here
    items = value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
    for name, part in items:
        yield from places(part, (*here, name))


def damaged(answer: Json, place: Place, junk: Any) -> Json:
    """The answer with ``junk`` at one place; Ellipsis: with nothing there."""
    document = copy.deepcopy(answer)
    target: Any = document
    for name in place[:-1]:
        target = target[name]
    if junk is ...:
        del target[place[-1]]
    else:
        target[place[-1]] = junk
    return document


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[Json]:
    return Conversation(tmp_path_factory.mktemp("twin")).answers


@pytest.mark.parametrize("junk", [..., 0, [], [{"x": 1}]], ids=["gone", "0", "[]", "[{x: 1}]"])
def test_one_damaged_place_is_one_of_our_errors_or_does_no_harm(answers: list[Json], junk: Any) -> None:
    ended: dict[str, int] = {}
    for number, answer in enumerate(answers):
        entries = range(len(answer["entry"]))
        found = [(("entry", entry, *place)) for entry in entries for place in places(answer["entry"][entry])]
        for place in [("entry",), *found]:
            said = [damaged(one, place, junk) if which == number else one for which, one in enumerate(answers)]
            try:
                record_update(AFTER, SITE, Damaged(said), 1, lambda _seconds: None)
                outcome = "recorded"
            except TwinScannerError as error:
                assert not isinstance(error, Rejected | Defect), place
                outcome = type(error).__name__
            ended[outcome] = ended.get(outcome, 0) + 1
    assert {"recorded", "Held", "Transient"} <= set(ended), ended


def test_what_is_null_is_not_there(answers: list[Json]) -> None:
    """FHIR's JSON has no null members; a server that writes them means nothing by it."""
    said = iter(answers)

    def script(sent: Sent) -> tuple[int, str]:
        answer = next(said) if sent.body["type"] == "batch" else everything_created(sent.body)
        for entry in answer["entry"]:
            entry.get("resource", {}).update({"identifierr": None, "text": None})
        return 200, json.dumps(answer)

    with scripted_fhir(script) as (url, seen), closing(FhirClient(url, SITE)) as client:
        client.record(AFTER)
    assert "null" not in json.dumps(seen[-1].body)


def test_a_resource_that_is_no_valid_r4_is_held_with_the_place_and_without_its_value(answers: list[Json]) -> None:
    search = next(i for i, entry in enumerate(answers[0]["entry"]) if "series" in json.dumps(entry))
    place = ("entry", search, "resource", "entry", 0, "resource", "series", 0, "uid")
    said = [damaged(answers[0], place, {"x": "Müller"}), *answers[1:]]
    with pytest.raises(Held, match=r"holds a ImagingStudy that is no valid R4; correct its series\.0\.uid") as error:
        record_update(AFTER, SITE, Damaged(said), 1, lambda _seconds: None)
    assert "Müller" not in str(error.value)
