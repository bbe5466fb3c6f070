"""The thread of an association that we asked for. Oracle: how often it looks while nothing happens."""

import threading
from collections.abc import Iterator
from typing import Any

import pynetdicom
import pytest
from pynetdicom import AE, build_context, evt

from dicom_node.awake import keep_awake
from dicom_node.client import associated
from dicom_node.peers import Peer
from dicom_node.sop_classes import VERIFICATION
from tests.samples.loopback_node import SHORT

pytestmark = pytest.mark.node

IDLE_S = 0.3
MOST_LOOKS = 100
"""Of a thread that looks every 10 ms; one that looks every millisecond would have looked three times as often."""


@pytest.fixture
def verifying() -> Iterator[Peer]:
    application = AE(ae_title="PACS")
    application.add_supported_context(VERIFICATION)
    server = application.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_ECHO, lambda event: 0x0000)]
    )
    assert server is not None
    yield Peer("PACS", "127.0.0.1", server.server_address[1])
    server.shutdown()


def test_the_thread_waits_for_what_comes_and_serves_it(verifying: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    with associated(verifying, "TWINSCANNER", [build_context(VERIFICATION)], SHORT) as association:
        provider: Any = association.dul
        looks, look = list[bool](), provider._process_recv_primitive
        provider._process_recv_primitive = lambda: looks.append(True) or look()
        threading.Event().wait(IDLE_S)
        assert len(looks) < MOST_LOOKS
        assert association.send_c_echo().Status == 0x0000
        assert len(looks) > 1


def test_a_library_that_is_not_known_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynetdicom, "__version__", "4.0.0")
    untouched: Any = None
    assert keep_awake(untouched) == ()
