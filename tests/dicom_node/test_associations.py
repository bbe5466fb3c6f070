"""What every association has: here, the rest of pynetdicom's reactor between requests, over real associations."""

import threading
from collections.abc import Iterator
from typing import Any

import pynetdicom
import pytest
from pynetdicom import AE, build_context, evt

from dicom_node import associations
from dicom_node.associations import resting_reactor
from dicom_node.client import associated
from dicom_node.peers import Peer
from dicom_node.sop_classes import VERIFICATION
from tests.samples.loopback_node import DEADLINE_S, SHORT, eventually

pytestmark = pytest.mark.node


@pytest.fixture
def theirs() -> list[Any]:
    """The peer's side of each association."""
    return []


@pytest.fixture
def verifying(theirs: list[Any]) -> Iterator[Peer]:
    application = AE(ae_title="PACS")
    application.add_supported_context(VERIFICATION)
    handlers = [(evt.EVT_C_ECHO, lambda event: 0x0000), (evt.EVT_ESTABLISHED, lambda event: theirs.append(event.assoc))]
    server = application.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    yield Peer("PACS", "127.0.0.1", server.server_address[1])
    server.shutdown()


def test_the_reactor_rests_over_several_requests_and_goes_on_after_them(verifying: Peer) -> None:
    with associated(verifying, "TWINSCANNER", [build_context(VERIFICATION)], SHORT) as association:
        own = association._reactor_checkpoint
        with resting_reactor(association) as reactor:
            for _ in range(3):
                reactor.rest()
                assert association.send_c_echo().Status == 0x0000
                assert not own.is_set()
        assert own.is_set()
        assert association._reactor_checkpoint is own


def test_a_reactor_that_is_not_known_has_its_turn_between_two_requests(
    verifying: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pynetdicom, "__version__", "9.0.0")
    with associated(verifying, "TWINSCANNER", [build_context(VERIFICATION)], SHORT) as association:
        own = association._reactor_checkpoint
        with resting_reactor(association) as reactor:
            for _ in range(2):
                reactor.rest()
                assert association.send_c_echo().Status == 0x0000
                assert association._reactor_checkpoint is own and own.is_set()


def test_a_reactor_that_does_not_come_to_rest_is_not_left_behind_where_nobody_wakes_it(
    verifying: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that stood still for seconds, such as a virtual one of which a snapshot is taken."""
    monkeypatch.setattr(associations, "_REST_S", 0.0)
    with associated(verifying, "TWINSCANNER", [build_context(VERIFICATION)], SHORT) as association:
        own = association._reactor_checkpoint
        with resting_reactor(association) as reactor:
            reactor.rest()
            assert association._reactor_checkpoint is own
            assert association.send_c_echo().Status == 0x0000
            reactor.rest()
    assert eventually(lambda: not association.is_alive())


def test_a_release_by_the_peer_is_answered_before_the_next_request(verifying: Peer, theirs: list[Any]) -> None:
    with associated(verifying, "TWINSCANNER", [build_context(VERIFICATION)], SHORT) as association:
        with resting_reactor(association) as reactor:
            reactor.rest()
            assert association.send_c_echo().Status == 0x0000
            releasing = threading.Thread(target=theirs[0].release)
            releasing.start()
            assert eventually(lambda: not association.dul.to_user_queue.empty())
            reactor.rest()
            assert not association.is_established
        releasing.join(DEADLINE_S)
        assert theirs[0].is_released
