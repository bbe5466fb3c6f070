"""First scans, late slices, repeats and outages in any order leave the same record, but for its versions."""

import json
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.samples.twin_situations import another_frame_of_reference, first_scan, with_late_slices
from tests.samples.twin_updates import SITE, another_study
from twin_record.embedded import EmbeddedStore
from twin_record.endpoint import BundleEndpoint
from twin_record.remote import FhirClient
from twin_record.target import TwinReceipt
from twin_record.transaction import record_update
from twin_record.update import TwinUpdate
from twin_scanner.errors import Transient

pytestmark = pytest.mark.record

Json = dict[str, Any]


def updates() -> tuple[TwinUpdate, ...]:
    """Two studies of one patient, the late slices of each, and a second PET of the first study."""
    first = first_scan()
    second = another_study(first)
    return first, second, with_late_slices(first), with_late_slices(second), another_frame_of_reference(first)


UPDATES = updates()
MOST_REPEATS = 3
IN_ORDER = [(number, "none") for number in range(len(UPDATES))]
OUTAGES = ("none", "before the write", "after the write")


class Failing:
    """A target that fails at the first write: before it, or after it so that nobody hears of it."""

    def __init__(self, target: BundleEndpoint, outage: str) -> None:
        self.target, self.outage = target, outage

    def exchange(self, bundle: Json) -> Json:
        if bundle["type"] != "transaction" or self.outage == "none":
            return self.target.exchange(bundle)
        if self.outage == "after the write":
            self.target.exchange(bundle)
        raise Transient("The connection broke.")


def record(update: TwinUpdate, endpoint: BundleEndpoint) -> TwinReceipt:
    return record_update(update, SITE, endpoint, 5, lambda _seconds: None)


def content_after(
    deliveries: Sequence[tuple[int, str]], target: EmbeddedStore | FhirClient, updates: Sequence[TwinUpdate] = UPDATES
) -> Any:
    """The record after updates, each with its outage; what was lost is done again at the end, in the same order."""
    again = []
    for number, outage in deliveries:
        try:
            record(updates[number], Failing(target, outage))
        except Transient:
            again.append(number)
    for number in again:
        record(updates[number], target)
    replayed = [record(update, target).written for update in updates]
    assert replayed == [()] * len(updates), "what is recorded is replayed without a version more"
    entries = [one["resource"] for one in target.patient_record(updates[0].patient_id, None)["entry"]]
    names = {f"{one['resourceType']}/{one['id']}": f"{one['resourceType']}/{key(one)}" for one in entries}
    return comparable([{**one, "id": "", "meta": one.get("meta", {}).get("security")} for one in entries], names)


def content_in_a_store(
    deliveries: Sequence[tuple[int, str]], file: Path, updates: Sequence[TwinUpdate] = UPDATES
) -> Any:
    with closing(EmbeddedStore(file, SITE)) as store:
        return content_after(deliveries, store, updates)


def key(resource: Json) -> str:
    """What names a resource whatever id a server gave it."""
    identifiers = resource.get("identifier", [])
    identifiers = identifiers if isinstance(identifiers, list) else [identifiers]
    return str(identifiers[0]["value"]) if identifiers else str(resource["id"])


def comparable(value: Any, names: dict[str, str]) -> Any:
    """A value in which order means nothing and references name what they mean."""
    if isinstance(value, dict):
        return {name: comparable(part, names) for name, part in value.items()}
    if isinstance(value, list):
        return sorted((comparable(part, names) for part in value), key=lambda part: json.dumps(part, sort_keys=True))
    return names.get(value, value) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any-order")


@pytest.fixture(scope="module")
def expected(folder: Path) -> Any:
    """As it happens where nothing fails and nothing comes twice."""
    return content_in_a_store(IN_ORDER, folder / "expected.db")


SITUATIONS = {
    "order": st.permutations(range(len(UPDATES))),
    "repeats": st.lists(st.sampled_from(range(len(UPDATES))), max_size=MOST_REPEATS),
    "outages": st.lists(st.sampled_from(OUTAGES), min_size=len(UPDATES) + MOST_REPEATS),
}
SAME_EACH_TIME = settings(
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@given(**SITUATIONS)
@settings(SAME_EACH_TIME, max_examples=10)
def test_any_order_with_repeats_and_outages_gives_the_same_content(
    order: list[int], repeats: list[int], outages: list[str], expected: Any, folder: Path
) -> None:
    deliveries = list(zip((*order, *repeats), outages, strict=False))
    assert content_in_a_store(deliveries, folder / f"{uuid.uuid4().hex}.db") == expected


@pytest.mark.long
@given(**SITUATIONS)
@settings(SAME_EACH_TIME, max_examples=4)
def test_any_order_gives_the_same_content_on_a_server(
    order: list[int], repeats: list[int], outages: list[str], r4_url: str, folder: Path
) -> None:
    """Each time another patient's; what the embedded store says after the same in order is the oracle."""
    theirs = updates()
    deliveries = list(zip((*order, *repeats), outages, strict=False))
    with closing(FhirClient(r4_url, SITE)) as server:
        content = content_after(deliveries, server, theirs)
    assert content == content_in_a_store(IN_ORDER, folder / f"{uuid.uuid4().hex}.db", theirs)
