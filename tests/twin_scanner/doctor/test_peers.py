"""Whether each peer answers, and what it accepts. Oracles: Orthanc, our own listener and one that takes CT alone."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_node.associations import Timeouts
from dicom_node.client import accepted_offers
from dicom_node.peers import Peer
from dicom_node.sop_classes import CT_CLASSES
from dicom_node.tls import ServerTls
from tests.peers.orthanc import Orthanc
from tests.samples.authority import Authority
from tests.samples.examined import examined_settings, found
from tests.samples.examined_listener import receiver
from twin_scanner.doctor import Finding, findings_of
from twin_scanner.doctor.peers import check_peers
from twin_scanner.errors import Transient
from twin_scanner.settings import Settings

pytestmark = pytest.mark.node

PET = "1.2.840.10008.5.1.4.1.1.128"
EXPLICIT = "1.2.840.10008.1.2.1"


def look(settings: Settings) -> list[Finding]:
    return list(findings_of("peers", check_peers, settings))


def test_orthanc_answers_and_would_take_everything_we_send(
    tmp_path: Path, peer: Callable[[str], str], free_port: Callable[[], int], closed_port: int
) -> None:
    with Orthanc(tmp_path / "orthanc", free_port(), free_port(), program=peer("Orthanc")) as pacs:
        address = {"ae_title": pacs.ae_title, "port": pacs.dicom_port}
        findings = look(examined_settings(tmp_path, closed_port, pacs=address))
        assert found(findings, "peer pacs").state == "ok"
        assert found(findings, "peer pacs accepts").state == "ok"
        for name in ("Positron Emission", "Segmentation", "Comprehensive 3D SR", "Secondary Capture"):
            assert name in found(findings, "peer pacs accepts").sentence
        labelmap = look(examined_settings(tmp_path, closed_port, pacs=address, outputs={"segmentation": "labelmap"}))
        refused = found(labelmap, "peer pacs accepts")
        assert refused.state == "warning"
        assert "Label Map Segmentation Storage in RLE Lossless: allow it there, or set outputs.segm" in refused.sentence
        wrong_title = look(examined_settings(tmp_path, closed_port, pacs={**address, "ae_title": "NOBODY"}))
        assert "check both AE titles" in found(wrong_title, "peer pacs").sentence
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
        refused = [finding for finding in findings if finding.name == "peer pacs accepts"]
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


def test_each_peer_is_asked_and_one_that_is_not_well_hides_no_other(tmp_path: Path, closed_port: int) -> None:
    with receiver(tmp_path / "ct") as ct:
        here, port = {"host": "127.0.0.1", "timeout_s": 5.0}, ct.port
        peers = [
            {**here, "name": "gone", "ae_title": "GONE", "port": closed_port},
            {**here, "name": "unnamed", "ae_title": "X", "host": "no-such-host.invalid"},
            {**here, "name": "ct", "ae_title": "PACS", "port": port, "roles": ["send_ct"]},
            {"name": "caller", "ae_title": "CALLER", "addresses": ["10.1.0.0/16", "no-such-host.invalid"]},
            {**here, "name": "other", "ae_title": "WRONG", "port": port},
        ]
        settings = examined_settings(tmp_path, closed_port)
        findings = look(Settings.model_validate({**settings.model_dump(exclude_unset=True), "peers": peers}))
    assert "cannot be reached: check that it runs" in found(findings, "peer gone").sentence
    assert "no-such-host.invalid:104 cannot be found" in found(findings, "peer unnamed").sentence
    assert found(findings, "peer ct").sentence == f"PACS at 127.0.0.1:{port} answers C-ECHO."
    assert [finding.state for finding in findings if finding.name == "peer caller"] == ["fault", "ok"]
    assert "The host name no-such-host.invalid in the addresses of the peer 'caller' cannot be res" in str(findings)
    assert "CALLER is never called and may call from 10.1.0.0/16, no-such-host.invalid." in str(findings)
    assert "check both AE titles there" in found(findings, "peer other").sentence
    assert not [finding for finding in findings if finding.name.endswith("accepts")]


def test_a_peer_s_certificate_that_ends_soon_is_a_warning(
    tmp_path: Path, closed_port: int, peer: Callable[[str], str]
) -> None:
    authority = Authority(tmp_path / "authority", peer("openssl"))
    ours, theirs = authority.sign("scanner"), authority.sign("pacs.hospital", days=20)
    section = {"certificate": ours.certificate, "key": ours.key, "ca_file": ours.ca_file}
    with receiver(tmp_path / "pacs", tls=ServerTls(theirs)) as pacs:
        values = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port, "roles": ["query"]}
        settings = examined_settings(tmp_path, closed_port).model_dump(exclude={"pacs"})
        peers = [{**values, "tls": True, "certificate_name": "pacs.hospital"}]
        elsewhere = [{"name": "archive", "url": "https://archive.example/dicom-web"}]
        findings = look(
            Settings.model_validate({**settings, "peers": peers, "tls": section, "destinations": elsewhere})
        )
    assert [finding.state for finding in findings] == ["ok", "warning"]
    assert findings[1].sentence.startswith(f"The certificate of PACS at 127.0.0.1:{values['port']} is valid until ")
    assert "19 days more" in findings[1].sentence


def test_a_peer_that_says_nothing_is_given_up_after_the_configured_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        peer = Peer("PACS", "127.0.0.1", silent.getsockname()[1])
        limits = Timeouts(connection_s=1.0, negotiation_s=1.0, response_s=1.0, idle_s=1.0)
        with pytest.raises(Transient, match="ended the association before accepting"):
            accepted_offers(peer, [(PET, EXPLICIT)], calling_ae="US", timeouts=limits)
