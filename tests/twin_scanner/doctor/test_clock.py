"""The clock. Oracles: a difference that a test chooses, and a FHIR server's own Date header."""

from datetime import UTC, datetime

import httpx
import pytest

from twin_record.remote import FhirClient
from twin_record.update import TwinSite
from twin_scanner.doctor.clock import difference, is_synchronised

pytestmark = pytest.mark.unit


def test_a_server_whose_clock_differs_is_a_warning_that_says_by_how_much() -> None:
    assert difference(-20.0).state == difference(20.0).state == "ok"
    assert "90 s behind this machine's" in difference(90.0).sentence
    assert "90 s ahead of this machine's" in difference(-90.0).sentence
    assert difference(90.0).state == "warning"


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"Date": "Sun, 01 Mar 2026 12:00:00 GMT"}, datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ({"Date": "now"}, None),
        ({}, None),
    ],
)
def test_the_time_at_the_server_is_its_date_header(headers: dict[str, str], said: datetime | None) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, json={}))
    client = FhirClient("http://127.0.0.1/fhir", TwinSite("urn:oid:2.999.1"), transport=transport)
    assert client.server_time() == said
    client.close()


def test_the_kernel_is_asked_and_not_changed() -> None:
    assert is_synchronised() in (True, False, None)
