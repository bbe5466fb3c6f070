"""Associations that we ask for. Oracles: Orthanc, and sockets that say nothing or are not there."""

import socket
from collections.abc import Callable

import pytest

from dicom_node.associations import Timeouts
from dicom_node.client import echo
from dicom_node.peers import Peer
from tests.peers.orthanc import Orthanc
from tests.samples.loopback_node import SHORT
from twin_scanner.errors import Transient

pytestmark = pytest.mark.node


def test_echo_reaches_orthanc_and_says_what_is_wrong_otherwise(orthanc: Orthanc) -> None:
    echo(Peer(orthanc.ae_title, "127.0.0.1", orthanc.dicom_port), "TWINSCANNER")
    with pytest.raises(Transient, match=r"OTHER at 127\.0\.0\.1:[0-9]+ rejected the association from 'TWINSCANNER'"):
        echo(Peer("OTHER", "127.0.0.1", orthanc.dicom_port), "TWINSCANNER")


def test_a_peer_that_accepts_a_connection_and_says_nothing_ends_at_the_negotiation_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = Peer("PACS", "127.0.0.1", silent.getsockname()[1])
        with pytest.raises(Transient, match="ended the association before accepting it"):
            echo(target, "TWINSCANNER", Timeouts(negotiation_s=0.3))


def test_a_peer_that_is_not_there_is_said_in_a_sentence(free_port: Callable[[], int]) -> None:
    with pytest.raises(Transient, match=r"PACS at 127\.0\.0\.1:[0-9]+ cannot be reached: check"):
        echo(Peer("PACS", "127.0.0.1", free_port()), "TWINSCANNER", SHORT)
    with pytest.raises(Transient, match="cannot be found"):
        echo(Peer("PACS", "no-such-host.invalid", 104), "TWINSCANNER", SHORT)
