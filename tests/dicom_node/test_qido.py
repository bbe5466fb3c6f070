"""Whose a study is by QIDO-RS. Oracle: DICOM JSON as PS3.18 F.2 has it."""

from contextlib import closing
from typing import Any

import httpx
import pytest

from dicom_node.qido import study_owners_at
from dicom_node.stow import StowService
from dicom_node.study_owner import StudyOwner
from twin_scanner.errors import Unavailable

pytestmark = pytest.mark.node

JANE = {
    "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
    "00100020": {"vr": "LO", "Value": ["P1"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}]},
    "00100030": {"vr": "DA", "Value": ["19500101"]},
    "00100040": {"vr": "CS"},
}


def owners(answer: httpx.Response, asked: list[httpx.Request]) -> dict[str, list[StudyOwner]]:
    def server(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answer

    transport = httpx.MockTransport(server)
    with closing(StowService("cloud", "https://pacs.hospital/dicom-web", transport=transport)) as service:
        return dict(study_owners_at(service, ["1.2.3"]))


def test_a_server_says_whose_a_study_is_and_no_patient_is_in_the_address() -> None:
    asked: list[httpx.Request] = []
    stranger = {**JANE, "0020000D": {"vr": "UI", "Value": ["1.2.4"]}}
    found = owners(httpx.Response(200, json=[JANE, JANE, stranger]), asked)
    assert found == {"1.2.3": [StudyOwner("P1", "", "Yamada^Tarou=山田^太郎", "19500101", "")]}
    assert asked[0].url.params["StudyInstanceUID"] == "1.2.3"
    assert "P1" not in str(asked[0].url)


@pytest.mark.parametrize("status", [204, 404])
def test_a_study_that_a_server_does_not_know_is_nobodys(status: int) -> None:
    assert owners(httpx.Response(status), []) == {"1.2.3": []}


@pytest.mark.parametrize("status", [400, 401, 405, 500, 200])
@pytest.mark.parametrize("document", [{"no": "list"}])
def test_a_server_that_does_not_say_is_unavailable_and_holds_nothing(status: int, document: Any) -> None:
    with pytest.raises(Unavailable):
        owners(httpx.Response(status, json=document), [])
