"""What a PACS accepts. Oracles: Orthanc, our own listener and one that takes CT alone."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_node.associations import Timeouts
from dicom_node.client import accepted_offers
from dicom_node.peers import Peer
from dicom_node.sop_classes import CT_CLASSES
from tests.peers.orthanc import Orthanc
from tests.samples.examined import examined_settings, found
from tests.samples.examined_listener import receiver
from twin_scanner.doctor import Finding, findings_of
from twin_scanner.doctor.pacs import check_pacs
from twin_scanner.errors import Transient
from twin_scanner.settings import Settings

pytestmark = pytest.mark.node

PET = "1.2.840.10008.5.1.4.1.1.128"
EXPLICIT = "1.2.840.10008.1.2.1"


def look(settings: Settings) -> list[Finding]:
    return list(findings_of("PACS", check_pacs, settings))


def test_orthanc_answers_and_would_take_everything_we_send(
    tmp_path: Path, peer: Callable[[str], str], free_port: Callable[[], int], closed_port: int
) -> None:
    with Orthanc(tmp_path / "orthanc", free_port(), free_port(), program=peer("Orthanc")) as pacs:
        address = {"ae_title": pacs.ae_title, "port": pacs.dicom_port}
        findings = look(examined_settings(tmp_path, closed_port, pacs=address))
        assert found(findings, "PACS").state == "ok"
        assert found(findings, "PACS accepts").state == "ok"
        for name in ("Positron Emission", "Segmentation", "Comprehensive 3D SR", "Secondary Capture"):
            assert name in found(findings, "PACS accepts").sentence
        labelmap = look(examined_settings(tmp_path, closed_port, pacs=address, outputs={"segmentation": "labelmap"}))
        refused = found(labelmap, "PACS accepts")
        assert refused.state == "warning"
        assert "Label Map Segmentation Storage in RLE Lossless: allow it there, or set outputs.segm" in refused.sentence
        wrong_title = look(examined_settings(tmp_path, closed_port, pacs={**address, "ae_title": "NOBODY"}))
        assert "check both AE titles" in found(wrong_title, "PACS").sentence
        assert pacs.rest("/instances") == []


def test_a_pacs_that_takes_no_pet_is_a_fault_and_one_that_takes_nothing_beside_it_a_warning(
    tmp_path: Path, closed_port: int
) -> None:
    with receiver(tmp_path / "pacs") as pacs:
        classes = accepted_offers(
            Peer("PACS", "127.0.0.1", pacs.port), [(CT_CLASSES[0], EXPLICIT), ("1.2.3", EXPLICIT)], calling_ae="US"
        )
        assert classes == {(CT_CLASSES[0], EXPLICIT)}
    with _only_ct() as port:
        findings = look(examined_settings(tmp_path, closed_port, pacs={"port": port}))
        refused = [finding for finding in findings if finding.name == "PACS accepts"]
        assert [finding.state for finding in refused] == ["fault", *["warning"] * 4]
        assert "Positron Emission Tomography Image Storage in Explicit VR Little Endian" in refused[0].sentence
        assert "or no PET can be delivered" in refused[0].sentence
        assert "outputs.key_image" in refused[3].sentence
        assert "outputs.key_objects" in refused[4].sentence


@contextmanager
def _only_ct() -> Iterator[int]:
    """A PACS that takes CT images and answers C-ECHO, and nothing else."""
    from pynetdicom import AE

    application = AE("PACS")
    application.add_supported_context("1.2.840.10008.1.1")
    application.add_supported_context(CT_CLASSES[0])
    server = application.start_server(("127.0.0.1", 0), block=False)
    try:
        yield int(server.socket.getsockname()[1])
    finally:
        server.shutdown()


def test_a_peer_that_says_nothing_is_given_up_after_the_configured_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        peer = Peer("PACS", "127.0.0.1", silent.getsockname()[1])
        limits = Timeouts(connection_s=1.0, negotiation_s=1.0, response_s=1.0, idle_s=1.0)
        with pytest.raises(Transient, match="ended the association before accepting"):
            accepted_offers(peer, [(PET, EXPLICIT)], calling_ae="US", timeouts=limits)
