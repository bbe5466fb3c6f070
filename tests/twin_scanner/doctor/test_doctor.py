"""What the doctor finds. Oracles: Orthanc, the R4 server and our own receiver, running, refusing and absent."""

import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
import torch

from dicom_node.associations import Timeouts
from dicom_node.client import Peer, accepted_offers
from dicom_node.listener import Listener
from dicom_node.sop_classes import CT_CLASSES
from dicom_node.spool import Spool
from dicom_node.store_scp import StoreScp
from tests.peers.fhir_server import running_server
from tests.peers.orthanc import Orthanc
from twin_scanner import app
from twin_scanner.districts.external import moose
from twin_scanner.doctor import Finding, examine
from twin_scanner.errors import Transient
from twin_scanner.models.card import Architecture
from twin_scanner.models.package import build_network, save_package
from twin_scanner.models.partition import DISTRICTS
from twin_scanner.models.plan import Plan
from twin_scanner.models.store import ModelStore
from twin_scanner.settings import Settings

pytestmark = pytest.mark.node

PET = "1.2.840.10008.5.1.4.1.1.128"
EXPLICIT = "1.2.840.10008.1.2.1"
SECRET = "s3cret-token-4711"


@pytest.fixture
def closed_port(free_port: Callable[[], int]) -> int:
    """A port on which nothing listens."""
    return free_port()


def settings(folder: Path, closed_port: int, **sections: dict[str, Any]) -> Settings:
    """A scanner in ``folder`` whose PACS is not there, unless a section says otherwise."""
    values: dict[str, dict[str, Any]] = {
        "node": {"port": 0, "minimum_free_mb": 0},
        "pacs": {"port": closed_port, "timeout_s": 5.0},
        "storage": {"folder": folder / "data"},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return Settings.model_validate(values)


def found(findings: list[Finding], name: str) -> Finding:
    (one,) = [finding for finding in findings if finding.name == name]
    return one


@contextmanager
def receiver(folder: Path, **options: Any) -> Iterator[Listener]:
    store = StoreScp(spool=Spool(folder), on_stored=lambda _: None, is_own=lambda _: False)
    title = options.pop("ae_title", "PACS")
    with Listener(ae_title=title, host="127.0.0.1", port=0, store=store, **options).listening() as running:
        yield running


def own_package(folder: Path, segmenter: str = "landmarks") -> str:
    """A small package of our own in a store; its hash."""
    torch.manual_seed(0)
    architecture = Architecture("unet", 1)
    model_hash = save_package(
        folder / "package",
        name="ours",
        plan=Plan(),
        partition=DISTRICTS,
        architecture=architecture,
        networks={name: build_network(architecture) for name in DISTRICTS.networks},
        segmenter=segmenter,
        about={},
    )
    ModelStore(folder / "models").add(folder / "package")
    return model_hash


def test_a_fresh_machine_with_nothing_around_it_is_told_what_to_do(tmp_path: Path, closed_port: int) -> None:
    told: list[Finding] = []
    findings = examine(settings(tmp_path, closed_port), told.append)
    assert told == findings
    assert {finding.name for finding in findings} == {
        "storage folder",
        "free space",
        "ledger",
        "model",
        "model's segmenter",
        "segmenter landmarks",
        "segmenter labelmap",
        "segmenter moose",
        "segmenter totalsegmentator",
        "PACS",
        "listening port",
        "twin record",
    }
    assert [finding.name for finding in findings if finding.state == "fault"] == ["model", "PACS"]
    assert found(findings, "PACS").sentence == (
        f"PACS at 127.0.0.1:{closed_port} cannot be reached: check that it runs and that no firewall lies between."
    )
    assert "phantoms only" in found(findings, "model").sentence
    accepted = examine(settings(tmp_path, closed_port, model={"accept_phantom_only": True}))
    assert found(accepted, "model").state == "warning"
    for finding in findings:
        assert "\n" not in finding.sentence
        assert finding.sentence.endswith(".")
    assert not (tmp_path / "data").exists(), "looking changes nothing"


def test_orthanc_answers_and_would_take_everything_we_send(
    tmp_path: Path, peer: Callable[[str], str], free_port: Callable[[], int], closed_port: int
) -> None:
    with Orthanc(tmp_path / "orthanc", free_port(), free_port(), program=peer("Orthanc")) as pacs:
        address = {"ae_title": pacs.ae_title, "port": pacs.dicom_port}
        findings = examine(settings(tmp_path, closed_port, pacs=address))
        assert found(findings, "PACS").state == "ok"
        assert found(findings, "PACS accepts").state == "ok"
        for name in ("Positron Emission", "Segmentation", "Comprehensive 3D SR", "Secondary Capture"):
            assert name in found(findings, "PACS accepts").sentence
        labelmap = examine(settings(tmp_path, closed_port, pacs=address, outputs={"segmentation": "labelmap"}))
        refused = found(labelmap, "PACS accepts")
        assert refused.state == "warning"
        assert "Label Map Segmentation Storage in RLE Lossless: allow it there, or set outputs.segm" in refused.sentence
        wrong_title = examine(settings(tmp_path, closed_port, pacs={**address, "ae_title": "NOBODY"}))
        assert "check both AE titles" in found(wrong_title, "PACS").sentence
        assert pacs.rest("/instances") == []


def test_a_pacs_that_takes_no_pet_is_a_fault_and_one_that_takes_no_key_image_a_warning(
    tmp_path: Path, closed_port: int
) -> None:
    with receiver(tmp_path / "pacs") as pacs:
        classes = accepted_offers(
            Peer("PACS", "127.0.0.1", pacs.port), [(CT_CLASSES[0], EXPLICIT), ("1.2.3", EXPLICIT)], calling_ae="US"
        )
        assert classes == {(CT_CLASSES[0], EXPLICIT)}
    with _only_ct() as port:
        findings = examine(settings(tmp_path, closed_port, pacs={"port": port}))
        refused = [finding for finding in findings if finding.name == "PACS accepts"]
        assert [finding.state for finding in refused] == ["fault", "warning", "warning", "warning"]
        assert "Positron Emission Tomography Image Storage in Explicit VR Little Endian" in refused[0].sentence
        assert "or no PET can be delivered" in refused[0].sentence
        assert "outputs.key_image" in refused[3].sentence


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


def test_the_port_is_free_ours_or_someone_elses(tmp_path: Path, free_port: Callable[[], int], closed_port: int) -> None:
    def look(port: int, **node: Any) -> Finding:
        one = settings(tmp_path, closed_port, node={"port": port, **node})
        return found(examine(one), "listening port")

    port = free_port()
    assert look(port).sentence == f"127.0.0.1:{port} is free for the scanner."
    with receiver(tmp_path / "ours", ae_title="TWINSCANNER", allowed_calling_ae=frozenset({"ROUTER"})) as node:
        assert look(node.port, allowed_calling_ae=("ROUTER",)).state == "ok"
        assert look(node.port, allowed_calling_ae=("ROUTER",), host="0.0.0.0").state == "ok"
        other = look(node.port, ae_title="SOMEONE")
        assert other.state == "fault"
        assert "does not answer as SOMEONE" in other.sentence
    assert look(port, host="192.0.2.1").state == "fault"
    assert look(port, host="no.such.host.invalid").state == "fault"
    assert look(0).state == "warning"


def test_a_running_scanner_is_well(tmp_path: Path, closed_port: int) -> None:
    one = settings(tmp_path, closed_port, node={"port": 0})
    with app.Scanner(one).running() as scanner:
        findings = examine(settings(tmp_path, closed_port, node={"port": scanner.receiver.port}))
    assert found(findings, "listening port").state == "ok"
    assert "at migration" in found(findings, "ledger").sentence
    assert found(findings, "ledger").state == "ok"
    assert found(findings, "twin record").sentence == "The embedded twin store opens."


def test_a_ledger_of_a_newer_version_is_left_as_it_is(tmp_path: Path, closed_port: int) -> None:
    revision = "9999"
    one = settings(tmp_path, closed_port)
    app.open_ledger(one).close()
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'data' / 'ledger.sqlite'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = ?", (revision,))
    finding = found(examine(one), "ledger")
    assert finding.state == "fault"
    assert "install the newer twin-scanner" in finding.sentence
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == revision
    engine.dispose()


def test_a_ledger_that_cannot_be_opened_is_said_without_its_password(tmp_path: Path, closed_port: int) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ledger.sqlite").write_bytes(
        b"this is no database, and it is long enough to be read as one" * 9
    )
    assert found(examine(settings(tmp_path, closed_port)), "ledger").state == "fault"
    for url in (f"postgresql+psycopg://scanner:{SECRET}@127.0.0.1:{closed_port}/x", f"nonsense://{SECRET}", SECRET):
        finding = found(examine(settings(tmp_path, closed_port, ledger={"url": url})), "ledger")
        assert finding.state == "fault"
        assert SECRET not in finding.sentence


def test_the_model_is_loaded_and_its_segmenter_compared(tmp_path: Path, closed_port: int) -> None:
    model_hash = own_package(tmp_path, segmenter="moose")
    model = {"name": "ours", "store": tmp_path / "models"}
    findings = examine(settings(tmp_path, closed_port, model=model))
    assert found(findings, "model") == Finding("model", "ok", f"Model 'ours' ({model_hash[:12]}) is whole.")
    assert found(findings, "model's segmenter").state == "fault"
    assert "set districts.segmenter to 'moose'" in found(findings, "model's segmenter").sentence
    allowed = examine(settings(tmp_path, closed_port, model={**model, "allow_other_segmenter": True}))
    assert found(allowed, "model's segmenter").state == "warning"
    weights = tmp_path / "models" / model_hash / "head.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    damaged = found(examine(settings(tmp_path, closed_port, model=model)), "model")
    assert damaged.state == "fault"
    assert "damaged or changed head.safetensors" in damaged.sentence
    absent = found(examine(settings(tmp_path, closed_port, model={"name": "nobody"})), "model")
    assert (absent.state, "There is no model 'nobody'" in absent.sentence) == ("fault", True)


def test_the_configured_segmenter_must_be_ready_and_the_others_only_say_what_they_would_need(
    tmp_path: Path, closed_port: int
) -> None:
    districts = {"segmenter": "labelmap", "labelmap": tmp_path / "missing.nii.gz"}
    findings = examine(settings(tmp_path, closed_port, districts=districts))
    assert found(findings, "segmenter labelmap").state == "fault"
    assert found(findings, "segmenter landmarks") == Finding(
        "segmenter landmarks", "ok", "'landmarks' is ready, not in use."
    )
    names = [finding.name for finding in findings if finding.name.startswith("segmenter ")]
    assert names[0] == "segmenter labelmap", "the one in use comes first"
    moose = found(findings, "segmenter moose")
    assert moose.state == "ok"
    assert moose.sentence.startswith("Not in use; the segmenter 'moose' needs")


def test_weights_that_are_not_the_vouched_ones_are_told_with_their_full_hash(tmp_path: Path, closed_port: int) -> None:
    """The sentence of the segmenter itself shows the first digits alone; the configuration needs them all."""
    if moose.package_missing():
        pytest.skip("nnU-Net is not installed")
    folder = tmp_path / "Dataset001_body" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (folder / "fold_all").mkdir(parents=True)
    labels = {"background": 0, "Legs": 1, "Body": 2, "Head": 3, "Arms": 4}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    (folder / "plans.json").write_text("{}")
    (folder / "fold_all" / "checkpoint_final.pth").write_bytes(b"weights")
    vouched = moose.weights_sha256(tmp_path / "Dataset001_body")
    districts = {"segmenter": "moose", "moose_weights": tmp_path / "Dataset001_body"}
    for sha256 in ("", "0" * 64):
        finding = found(
            examine(settings(tmp_path, closed_port, districts={**districts, "moose_sha256": sha256})), "segmenter moose"
        )
        assert finding.state == "fault"
        assert vouched in finding.sentence
    one = settings(tmp_path, closed_port, districts={**districts, "moose_sha256": vouched})
    assert found(examine(one), "segmenter moose").state == "ok"


def test_little_room_and_open_folders_are_told(tmp_path: Path, closed_port: int) -> None:
    full = found(examine(settings(tmp_path, closed_port, node={"minimum_free_mb": 10**9})), "free space")
    assert full.state == "fault"
    assert "every image is refused" in full.sentence
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o755)
    assert "chmod o-rwx" in found(examine(settings(tmp_path, closed_port)), "storage folder").sentence
    (tmp_path / "data").chmod(0o700)
    assert found(examine(settings(tmp_path, closed_port)), "storage folder").state == "ok"
    (tmp_path / "file").write_text("no folder")
    findings = examine(settings(tmp_path, closed_port, storage={"folder": tmp_path / "file" / "data"}))
    assert found(findings, "storage folder").state == "fault"


def test_a_real_r4_server_is_well_and_an_absent_one_is_not(
    tmp_path: Path, closed_port: int, peer: Callable[[str], str]
) -> None:
    peer("node")
    with running_server() as url:
        finding = found(examine(settings(tmp_path, closed_port, twin={"url": url})), "twin record")
        assert finding.state != "fault"
        assert "takes our requests" in finding.sentence
    finding = found(examine(settings(tmp_path, closed_port, twin={"url": url})), "twin record")
    assert finding.state == "fault"
    assert "cannot be reached" in finding.sentence


class _Answers(http.server.BaseHTTPRequestHandler):
    """Answers every request with the next of ``answers``: status and JSON."""

    answers: ClassVar[list[tuple[int, Any]]] = []

    def do_GET(self) -> None:
        status, document = self.answers.pop(0)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def answering(answers: list[tuple[int, Any]]) -> Iterator[str]:
    """The base URL of a server that gives these answers, one after the other."""
    handler = type("Handler", (_Answers,), {"answers": list(answers)})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/fhir"
        server.shutdown()
        thread.join()


STATEMENT = {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}
UNREADABLE = {"resourceType": "Bundle", "type": "batch-response", "entry": [{"response": {"status": "403"}}]}


@pytest.mark.parametrize(
    ("answers", "advice"),
    [
        ([(200, {**STATEMENT, "fhirVersion": "5.0.0"})], "speaks release 5.0.0"),
        ([(200, {"hello": "world"})] * 2, "sends no FHIR Bundle"),
        ([(404, {})] * 2, "(status 404); check twin.url"),
        ([(302, {})] * 2, "redirects to another address"),
        ([(200, STATEMENT), (401, {})], "check the token"),
        ([(200, STATEMENT), (200, UNREADABLE)], "does not let us read (status 403)"),
    ],
    ids=["R5", "no FHIR", "not found", "redirect", "token refused", "no rights"],
)
def test_a_server_that_will_not_do_is_told_without_the_token(
    answers: list[tuple[int, Any]], advice: str, tmp_path: Path, closed_port: int
) -> None:
    (tmp_path / "token").write_text(SECRET)
    with answering(answers) as url:
        findings = examine(settings(tmp_path, closed_port, twin={"url": url, "token_file": tmp_path / "token"}))
    finding = found(findings, "twin record")
    assert finding.state == "fault"
    assert advice in finding.sentence
    assert all(SECRET not in one.sentence for one in findings)


@pytest.mark.parametrize(
    ("metadata", "state"), [((200, STATEMENT), "ok"), ((403, {}), "warning")], ids=["R4", "hidden"]
)
def test_a_server_that_takes_our_requests_is_well_and_should_say_its_release(
    metadata: tuple[int, Any], state: str, tmp_path: Path, closed_port: int
) -> None:
    readable = {**UNREADABLE, "entry": [{"response": {"status": "200 OK"}}]}
    with answering([metadata, (200, readable)]) as url:
        finding = found(examine(settings(tmp_path, closed_port, twin={"url": url})), "twin record")
    assert finding.state == state
    assert "takes our requests" in finding.sentence


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", "pässword".encode()], ids=["empty", "binary", "umlaut"])
def test_a_token_that_is_none_is_told(content: bytes, tmp_path: Path, closed_port: int) -> None:
    (tmp_path / "token").write_bytes(content)
    twin = {"url": f"http://127.0.0.1:{closed_port}/fhir", "token_file": tmp_path / "token"}
    finding = found(examine(settings(tmp_path, closed_port, twin=twin)), "twin record")
    assert finding.state == "fault"
    assert "pässword" not in finding.sentence


def test_a_file_that_is_no_twin_store_is_told(tmp_path: Path, closed_port: int) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "twin.sqlite").write_bytes(b"no database at all, but long enough to be taken for one" * 9)
    assert found(examine(settings(tmp_path, closed_port)), "twin record").state == "fault"


def test_a_finding_is_a_value() -> None:
    one = Finding("model", "ok", "It is whole.")
    assert replace(one, state="fault") != one
