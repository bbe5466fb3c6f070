"""A search that a server answers in pages is read to its end. Oracles: R4 http 3.1.0.1.11, a real server."""

from typing import Any

import pytest

from tests.peers.twin_rig import Rig
from twin_record.pages import MOST_PAGES, whole
from twin_record.search import read_all
from twin_scanner.errors import Transient

pytestmark = pytest.mark.record

Json = dict[str, Any]
ASKED = "List?subject=Patient/1"


def page(*ids: str, link: str | None = None) -> Json:
    links = [{"relation": "self", "url": "x"}] + ([] if link is None else [{"relation": "next", "url": link}])
    entries = [{"resource": {"resourceType": "List", "id": name}} for name in ids]
    found = {"resourceType": "Bundle", "type": "searchset", "link": links, "entry": entries}
    return {"response": {"status": "200"}, "resource": found}


class Server:
    """Answers each page by what is asked of it."""

    def __init__(self, pages: dict[str, Json]) -> None:
        self.pages, self.asked = pages, list[str]()

    def __call__(self, url: str) -> Json:
        self.asked.append(url)
        return self.pages[url]


def ids_in(answer: Json) -> list[str]:
    return [entry["resource"]["id"] for entry in answer["resource"]["entry"]]


@pytest.mark.parametrize(
    ("link", "asked"),
    [
        ("https://fhir.hospital/r4/List?subject=Patient%2F1&_offset=20", "List?subject=Patient%2F1&_offset=20"),
        ("List?_cursor=2", "List?_cursor=2"),
        ("https://fhir.hospital/r4?_getpages=3f2a", "?_getpages=3f2a"),
        ("https://fhir.hospital/r4/List/_search?_offset=20", "List?_offset=20"),
        ("http://internal:8080/fhir/List?_offset=20", "List?_offset=20"),
    ],
    ids=["as sekmet and Medplum have it", "relative", "as HAPI has it", "of a search by POST", "behind a proxy"],
)
def test_the_next_page_is_asked_of_the_server_itself(link: str, asked: str) -> None:
    server = Server({asked: page("2", "3")})
    assert ids_in(whole(ASKED, page("1", link=link), server)) == ["1", "2", "3"]
    assert server.asked == [asked]


def test_pages_that_lead_back_are_left() -> None:
    server = Server({"List?page=2": page("2", link="List?page=3"), "List?page=3": page("3", link="List?page=2")})
    with pytest.raises(Transient, match="without end"):
        whole(ASKED, page("1", link="List?page=2"), server)
    assert len(server.asked) == 2


def test_pages_without_end_are_left() -> None:
    server = Server({f"List?page={number}": page(link=f"List?page={number + 1}") for number in range(2 * MOST_PAGES)})
    with pytest.raises(Transient, match="without end"):
        whole(ASKED, page("1", link="List?page=0"), server)
    assert len(server.asked) == MOST_PAGES


def test_who_asks_for_one_match_is_given_no_second_page() -> None:
    assert ids_in(whole("List?_count=1", page("1", link="List?_count=1&_offset=1"), Server({}))) == ["1"]


@pytest.mark.long
def test_all_that_a_real_server_has_of_a_patient_is_read(sekmet_rig: Rig) -> None:
    """sekmet-fhir gives twenty at once, if it is asked for no number."""
    patient = sekmet_rig.create({"resourceType": "Patient"})
    code = {"text": "weight"}
    content = {"resourceType": "Observation", "status": "final", "code": code, "subject": {"reference": patient}}
    entries = [{"resource": content, "request": {"method": "POST", "url": "Observation"}}] * 130
    sekmet_rig.target.exchange({"resourceType": "Bundle", "type": "transaction", "entry": entries})
    (found,) = read_all(sekmet_rig.target, [f"Observation?subject={patient}"])
    assert len({one["id"] for one in found}) == 130
