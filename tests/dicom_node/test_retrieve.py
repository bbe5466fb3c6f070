"""C-GET and C-MOVE. Oracles: the bytes that Orthanc was given; a hostile peer that sends what nobody asked for."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE, evt

from dicom_node.peers import Peer
from dicom_node.query import querying
from dicom_node.retrieve import Pace, WantedSeries, get_series, missing_of, move_series
from dicom_node.sop_classes import CT_CLASSES, STUDY_ROOT_GET
from dicom_node.spool import Spool
from dicom_node.store_scu import send
from tests.peers.orthanc import Orthanc
from tests.samples import instances
from tests.samples.loopback_node import SHORT, Start, eventually
from twin_scanner.errors import Transient

pytestmark = pytest.mark.node

FAST = Pace(None)
SERIES = WantedSeries("1.2.3", "1.2.3.1", frozenset(f"1.2.3.1.{number}" for number in range(1, 6)))


def _kept(spool: Spool) -> dict[str, bytes]:
    return {file.stem: instances.data_set_bytes(file) for file in spool.files("1.2.3")}


@pytest.fixture
def pacs(orthanc: Orthanc, tmp_path: Path) -> Peer:
    """An Orthanc with a series of five images, one of them compressed."""
    files = instances.series(tmp_path / "sent", 4)
    files.append(instances.write(instances.instance(5), tmp_path / "sent" / "5.dcm", JPEG2000Lossless))
    there = Peer(orthanc.ae_title, "127.0.0.1", orthanc.dicom_port)
    send(files, there, calling_ae="SCANNER", timeouts=SHORT)
    return there


def test_a_series_comes_as_it_lies_at_the_peer_and_a_second_time_only_what_is_missing(
    pacs: Peer, tmp_path: Path
) -> None:
    sent = {f"1.2.3.1.{number}": number for number in range(1, 6)}
    spool, came = Spool(tmp_path / "pulled"), [0]

    def count() -> None:
        came[0] += 1

    with querying(pacs, calling_ae="US", timeouts=SHORT) as query:
        assert query.instances("1.2.3", "1.2.3.1") == SERIES.instances
    get_series(pacs, [SERIES], spool, calling_ae="US", pace=FAST, on_instance=count, timeouts=SHORT)
    assert came == [5]
    originals = {file.stem: file for file in (tmp_path / "sent").glob("*.dcm")}
    for uid, number in sent.items():
        original = originals.get(f"{number:04}") or originals[str(number)]
        assert _kept(spool)[uid] == instances.data_set_bytes(original)
    for uid in ("1.2.3.1.2", "1.2.3.1.5"):
        (spool.folder / "1.2.3" / "1.2.3.1" / f"{uid}.dcm").unlink()
    missing = missing_of(SERIES, _kept(spool))
    assert (missing.instances, missing.whole) == ({"1.2.3.1.2", "1.2.3.1.5"}, False)
    get_series(pacs, [missing], spool, calling_ae="US", pace=FAST, on_instance=count, timeouts=SHORT)
    assert came == [7] and _kept(spool).keys() == SERIES.instances


def test_a_series_is_moved_to_our_node(
    peer: Callable[[str], str], tmp_path: Path, free_port: Callable[[], int], start: Start
) -> None:
    node = start()
    modalities = {"us": ("TWINSCANNER", "127.0.0.1", node.listener.port)}
    with Orthanc(tmp_path / "pacs", free_port(), free_port(), "PACS", modalities, program=peer("Orthanc")) as orthanc:
        pacs = Peer("PACS", "127.0.0.1", orthanc.dicom_port)
        send(instances.series(tmp_path / "sent", 5), pacs, calling_ae="SCANNER", timeouts=SHORT)
        moved: list[int] = []
        move_series(
            pacs, [SERIES], "TWINSCANNER", calling_ae="US", pace=FAST, on_instances=moved.append, timeouts=SHORT
        )
        assert moved == [5] and eventually(lambda: node.kept().keys() == SERIES.instances)
        with pytest.raises(Transient, match=r"does not know where to send to|refused C-MOVE"):
            move_series(pacs, [SERIES], "NOBODY", calling_ae="US", pace=FAST, timeouts=SHORT)


def test_a_pace_is_kept_on_average_and_waits_for_nobody_who_is_slower() -> None:
    now_s, slept = [100.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now_s[0] += seconds

    pace = Pace(10.0, lambda: now_s[0], sleep)
    for _ in range(4):
        pace.keep()
    assert slept == pytest.approx([0.1, 0.1, 0.1])
    now_s[0] += 5.0
    pace.keep(20)
    assert len(slept) == 3
    pace.keep()
    assert slept[-1] == pytest.approx(2.0)


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Callable[[Any], Peer]]:
    """Starts a peer whose C-GET gives these data sets."""
    servers: list[Any] = []

    def begin(answers: Callable[[evt.Event], Iterator[Any]]) -> Peer:
        application = AE("HOSTILE")
        application.add_supported_context(STUDY_ROOT_GET)
        application.add_supported_context(CT_CLASSES[0], ExplicitVRLittleEndian, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_C_GET, answers)]
        server = application.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert server is not None
        servers.append(server)
        return Peer("HOSTILE", "127.0.0.1", server.server_address[1])

    yield begin
    for server in servers:
        server.shutdown()


def _to_send(number: int, **attributes: Any) -> Dataset:
    """An instance that pynetdicom can send."""
    dataset = instances.instance(number, **attributes)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset["PixelData"].VR = "OW"
    return dataset


def test_an_instance_of_another_study_is_refused_and_said(hostile: Callable[[Any], Peer], tmp_path: Path) -> None:
    def answers(event: evt.Event) -> Iterator[Any]:
        yield 2
        yield 0xFF00, _to_send(1)
        yield 0xFF00, _to_send(2, study_uid="9.9.9")

    spool = Spool(tmp_path / "pulled")
    with pytest.raises(Transient, match="could not send 1 instances by C-GET"):
        get_series(hostile(answers), [SERIES], spool, calling_ae="US", pace=FAST, timeouts=SHORT)
    assert spool.studies() == ["1.2.3"] and _kept(spool).keys() == {"1.2.3.1.1"}


def test_a_peer_that_breaks_off_leaves_what_came(hostile: Callable[[Any], Peer], tmp_path: Path) -> None:
    def answers(event: evt.Event) -> Iterator[Any]:
        yield 2
        yield 0xFF00, _to_send(1)
        event.assoc.abort()
        yield 0xFF00, _to_send(2)

    spool = Spool(tmp_path / "pulled")
    with pytest.raises(Transient, match="broke off C-GET"):
        get_series(hostile(answers), [SERIES], spool, calling_ae="US", pace=FAST, timeouts=SHORT)
    assert _kept(spool).keys() == {"1.2.3.1.1"}


def test_a_peer_without_the_service_is_said_in_a_sentence(tmp_path: Path) -> None:
    application = AE("PLAIN")
    application.add_supported_context(CT_CLASSES[0], scu_role=True, scp_role=True)
    server = application.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    plain = Peer("PLAIN", "127.0.0.1", server.server_address[1])
    try:
        with pytest.raises(Transient, match="does not accept C-GET"):
            get_series(plain, [SERIES], Spool(tmp_path), calling_ae="US", pace=FAST, timeouts=SHORT)
    finally:
        server.shutdown()
