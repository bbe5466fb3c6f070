"""TLS both ways. Oracles: dcmtk as the other side, the openssl command for what no honest peer does, and the log."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pynetdicom import build_context

from dicom_node.associations import Timeouts
from dicom_node.client import associated, echo
from dicom_node.peers import Peer
from dicom_node.tls import ServerTls, TlsFiles, shows_name
from tests.samples import instances
from tests.samples.authority import Authority
from tests.samples.loopback_node import DEADLINE_S, SHORT, Node, Start, eventually
from twin_scanner.errors import Misconfigured, Transient

pytestmark = pytest.mark.node

VERIFICATION = "1.2.840.10008.1.1"
OURS, THEIRS = "scanner.hospital", "pacs.hospital"


class Certificates:
    """What each side may show; made once, for openssl takes its time."""

    def __init__(self, folder: Path, openssl: str) -> None:
        self.authority, self.other = Authority(folder, openssl), Authority(folder / "other", openssl, "stranger")
        self.ours = self.authority.sign(OURS, alternatives=f"DNS:{OURS},IP:127.0.0.1")
        self.theirs = self.authority.sign(THEIRS)
        self.by_alternative = self.authority.sign("a PACS", file="alternative", alternatives=f"DNS:{THEIRS}")
        self.by_address = self.authority.sign("by address", file="address", alternatives="IP:127.0.0.1")
        self.expired = self.authority.sign(THEIRS, file="expired", days=-1)
        self.not_for_us = self.authority.sign("another.hospital")
        self.wildcard = self.authority.sign("wildcard", alternatives="DNS:*.hospital")
        self.of_stranger = replace(self.other.sign(THEIRS), ca_file=self.authority.certificate)
        self.encrypted = self.authority.sign(OURS, file="encrypted", password="secret")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str], str]) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"), peer("openssl"))


@pytest.fixture
def pacs(certificates: Certificates) -> Peer:
    """A PACS on this machine that calls by TLS."""
    return Peer("PACS", "127.0.0.1", 104, name="pacs", tls=certificates.ours, certificate_name=THEIRS)


def words_of(files: TlsFiles) -> list[str]:
    """The identity as dcmtk's programs take it."""
    return ["+tls", str(files.key), str(files.certificate), "+cf", str(files.ca_file)]


@pytest.fixture
def call(peer: Callable[[str], str]) -> Callable[..., int]:
    """C-ECHO by dcmtk: the exit status."""
    program = peer("echoscu")

    def ask(node: Node, *words: str) -> int:
        command = [program, *words, "-aet", "PACS", "-aec", "TWINSCANNER", "127.0.0.1", str(node.listener.port)]
        return subprocess.run(command, capture_output=True, timeout=DEADLINE_S).returncode

    return ask


# They call us


def test_dcmtk_sends_by_tls_with_both_certificates_checked(
    start: Start, pacs: Peer, certificates: Certificates, peer: Callable[[str], str], tmp_path: Path
) -> None:
    node = start(peers=[pacs], tls=ServerTls(certificates.ours))
    files = instances.series(tmp_path, 20)
    command = [peer("storescu"), *words_of(certificates.theirs), "-aet", "PACS", "-aec", "TWINSCANNER"]
    subprocess.run([*command, "127.0.0.1", str(node.listener.port), *map(str, files)], check=True, timeout=DEADLINE_S)
    assert len(node.kept()) == 20
    assert {received.peer for received in node.received} == {pacs}


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ("theirs", ""),
        ("by_alternative", ""),
        ("expired", "its certificate has expired"),
        ("of_stranger", "its certificate is signed by no authority of tls.ca_file"),
        ("not_for_us", "its certificate has not the name that the peer 'pacs' must have"),
        ("wildcard", "its certificate has not the name that the peer 'pacs' must have"),
    ],
)
def test_only_the_peer_s_own_valid_certificate_lets_it_in(
    start: Start,
    pacs: Peer,
    certificates: Certificates,
    call: Callable[..., int],
    caplog: pytest.LogCaptureFixture,
    shown: str,
    words: str,
) -> None:
    node = start(peers=[pacs], tls=ServerTls(certificates.ours))
    status = call(node, *words_of(getattr(certificates, shown)))
    assert (status == 0) is (not words)
    assert eventually(lambda: words in caplog.text)
    assert (len(caplog.messages) == 0) is (not words)


def test_who_shows_no_certificate_or_speaks_no_tls_is_ended(
    start: Start, pacs: Peer, certificates: Certificates, call: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    node = start(peers=[pacs], tls=ServerTls(certificates.ours))
    assert call(node, "+tla", "-ic", "+cs", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384") != 0
    assert eventually(lambda: "it shows no certificate" in caplog.text)
    plain = start(peers=[pacs], tls=ServerTls(certificates.ours))
    caplog.clear()
    assert call(plain) != 0
    assert eventually(lambda: "A connection from 127.0.0.1 was ended: it has to call by TLS." in caplog.text)


def test_no_handshake_is_made_with_an_address_where_no_peer_is(
    start: Start, pacs: Peer, certificates: Certificates, call: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    node = start(peers=[replace(pacs, host="192.0.2.7")], tls=ServerTls(certificates.ours))
    assert call(node, *words_of(certificates.theirs)) != 0
    assert eventually(lambda: "from 127.0.0.1 was ended: no peer calls from this address" in caplog.text)


def test_a_peer_without_tls_calls_the_same_port_in_clear(
    start: Start, pacs: Peer, certificates: Certificates, call: Callable[..., int]
) -> None:
    old = Peer("OLDCT", "127.0.0.1", 104, name="old")
    node = start(peers=[pacs, old], tls=ServerTls(certificates.ours))
    echo(node.peer, "OLDCT", SHORT)
    assert call(node) != 0, "the PACS must not call in clear where another may"
    assert call(node, *words_of(certificates.theirs)) == 0


@pytest.mark.parametrize(("version", "minimum"), [("tls1", "1.2"), ("tls1_1", "1.2"), ("tls1_2", "1.3")])
def test_an_older_version_than_the_minimum_is_refused(
    start: Start,
    pacs: Peer,
    certificates: Certificates,
    peer: Callable[[str], str],
    caplog: pytest.LogCaptureFixture,
    version: str,
    minimum: str,
) -> None:
    ours = replace(certificates.ours, minimum_version=minimum)
    node = start(peers=[pacs], tls=ServerTls(ours))
    command = [peer("openssl"), "s_client", "-connect", f"127.0.0.1:{node.listener.port}", f"-{version}"]
    command += ["-cipher", "DEFAULT@SECLEVEL=0", "-cert", str(certificates.theirs.certificate)]
    command += ["-key", str(certificates.theirs.key)]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S)
    assert ended.returncode != 0
    assert eventually(lambda: "it speaks no version of TLS that is allowed" in caplog.text)


def test_silent_peers_in_the_handshake_hold_up_nobody(
    start: Start, pacs: Peer, certificates: Certificates, call: Callable[..., int]
) -> None:
    """pynetdicom's own accept loop would wait for each of them, here a minute."""
    node = start(peers=[pacs], tls=ServerTls(certificates.ours), timeouts=Timeouts(negotiation_s=3 * DEADLINE_S))
    silent = [socket.create_connection(("127.0.0.1", node.listener.port)) for _ in range(30)]
    for connection in silent[:15]:
        connection.sendall(b"\x16\x03\x01")
    assert call(node, *words_of(certificates.theirs)) == 0
    for connection in silent:
        connection.close()
    assert eventually(lambda: _no_connection_is_served())


def test_a_handshake_has_one_deadline_however_slowly_its_bytes_come(
    start: Start, pacs: Peer, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    node = start(peers=[pacs], tls=ServerTls(certificates.ours), timeouts=replace(SHORT, negotiation_s=0.5))
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), hello, server_hostname="x").do_handshake()
    silent = socket.create_connection(("127.0.0.1", node.listener.port))
    with socket.create_connection(("127.0.0.1", node.listener.port), timeout=0.1) as slow:
        for byte in hello.read():
            slow.sendall(bytes([byte]))
            try:
                if slow.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            raise AssertionError("it was never ended")
    assert eventually(lambda: "it did not shake hands in time" in caplog.text)
    assert silent.recv(1) == b""
    silent.close()
    assert eventually(_no_connection_is_served)


def _no_connection_is_served() -> bool:
    names = ("AcceptorThread", "process_request_thread")
    return not any(name in thread.name for thread in threading.enumerate() for name in names)


def test_a_connection_that_waits_in_its_handshake_gives_way_too(
    start: Start, pacs: Peer, certificates: Certificates
) -> None:
    from dicom_node.places import AssociationLimits

    node = start(
        peers=[pacs],
        tls=ServerTls(certificates.ours),
        limits=AssociationLimits(waiting=2),
        timeouts=Timeouts(negotiation_s=3 * DEADLINE_S),
    )
    waiting = []
    for _ in range(3):
        waiting.append(socket.create_connection(("127.0.0.1", node.listener.port), timeout=DEADLINE_S))
        waiting[-1].sendall(b"\x16\x03\x01")
    assert waiting[0].recv(1) == b""
    for connection in waiting:
        connection.close()


# New files


def replaced(files: TlsFiles, certificate: bytes | Path, key: Path | None = None) -> None:
    """Put other contents in their place, as a renewal does."""
    new = certificate if isinstance(certificate, bytes) else certificate.read_bytes()
    files.certificate.with_suffix(".new").write_bytes(new)
    if key is not None:
        shutil.copyfile(key, files.key)
    files.certificate.with_suffix(".new").rename(files.certificate)


@pytest.fixture
def renewed(certificates: Certificates, tmp_path: Path) -> TlsFiles:
    """Our identity in files of this test's own."""
    copies = replace(certificates.ours, certificate=tmp_path / "node.crt", key=tmp_path / "node.key")
    shutil.copyfile(certificates.ours.certificate, copies.certificate)
    shutil.copyfile(certificates.ours.key, copies.key)
    return copies


def shown_by(node: Node, files: TlsFiles) -> str:
    """The certificate that the node shows, in PEM."""
    context = ssl.create_default_context(cafile=str(files.ca_file))
    context.check_hostname = False
    context.load_cert_chain(files.certificate, files.key)
    with (
        socket.create_connection(("127.0.0.1", node.listener.port), timeout=DEADLINE_S) as raw,
        context.wrap_socket(raw) as connection,
    ):
        return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")


def test_a_renewed_certificate_is_shown_from_the_next_association_on_and_open_ones_go_on(
    start: Start, pacs: Peer, certificates: Certificates, renewed: TlsFiles
) -> None:
    node = start(peers=[pacs], tls=ServerTls(renewed))
    ours = Peer("TWINSCANNER", "127.0.0.1", node.listener.port, tls=certificates.theirs, certificate_name=OURS)
    with associated(ours, "PACS", [build_context(VERIFICATION)], SHORT) as association:
        before = shown_by(node, certificates.theirs)
        replaced(renewed, certificates.by_address.certificate, certificates.by_address.key)
        after = shown_by(node, certificates.theirs)
        assert association.send_c_echo().Status == 0x0000
    assert before in certificates.ours.certificate.read_text()
    assert after in certificates.by_address.certificate.read_text() and after != before
    with pytest.raises(Transient, match=f"its certificate has not the name '{OURS}', but 127.0.0.1, by address"):
        echo(ours, "PACS", SHORT)


def test_a_broken_new_file_leaves_the_earlier_one_in_use_and_is_one_error_in_the_log(
    start: Start, pacs: Peer, certificates: Certificates, renewed: TlsFiles, caplog: pytest.LogCaptureFixture
) -> None:
    node = start(peers=[pacs], tls=ServerTls(renewed))
    before = shown_by(node, certificates.theirs)
    replaced(renewed, b"half a certifica")
    assert [shown_by(node, certificates.theirs) for _ in range(3)] == [before] * 3
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert "The TLS files have changed, the earlier ones stay in use: " in errors[0] and "in PEM" in errors[0]
    renewed.certificate.unlink()
    assert shown_by(node, certificates.theirs) == before
    replaced(renewed, certificates.by_address.certificate, certificates.by_address.key)
    assert shown_by(node, certificates.theirs) != before


# We call them


@pytest.fixture
def dcmtk(peer: Callable[[str], str], free_port: Callable[[], int], tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Starts dcmtk's storescp, and gives its port."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(*words: str) -> int:
        port = free_port()
        running.append(subprocess.Popen([peer("storescp"), "--ignore", *words, str(port)], cwd=tmp_path))
        assert eventually(lambda: _is_open(port))
        return port

    yield begin
    for process in running:
        process.kill()
        process.wait()


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_we_call_dcmtk_by_tls_with_both_certificates_checked(
    dcmtk: Callable[..., int], certificates: Certificates
) -> None:
    port = dcmtk(*words_of(certificates.by_alternative))
    echo(Peer("ANY", "127.0.0.1", port, tls=certificates.ours, certificate_name=THEIRS), "TWINSCANNER", SHORT)
    with pytest.raises(Transient, match=r"its certificate has not the name '127\.0\.0\.1', but a PACS, pacs\.hos"):
        echo(Peer("ANY", "127.0.0.1", port, tls=certificates.ours), "TWINSCANNER", SHORT)
    by_address = dcmtk(*words_of(certificates.by_address))
    echo(Peer("ANY", "127.0.0.1", by_address, tls=certificates.ours), "TWINSCANNER", SHORT)


@pytest.mark.parametrize(
    ("shown", "fault"),
    [
        ("expired", "by TLS, but its certificate has expired"),
        ("of_stranger", "by TLS, but its certificate is signed by no authority of tls.ca_file"),
        ("", "by TLS, but it (speaks no TLS|closed the connection during the handshake)"),
    ],
)
def test_we_send_nothing_to_who_is_not_the_peer(
    dcmtk: Callable[..., int], certificates: Certificates, shown: str, fault: str
) -> None:
    port = dcmtk(*(words_of(getattr(certificates, shown)) if shown else []))
    peer = Peer("PACS", "127.0.0.1", port, tls=certificates.ours, certificate_name=THEIRS)
    with pytest.raises(Transient, match=fault) as caught:
        echo(peer, "TWINSCANNER", SHORT)
    assert str(caught.value).endswith(": check [tls] here and its TLS there.")


def test_a_peer_that_does_not_trust_us_is_told_from_one_that_is_not_there(
    dcmtk: Callable[..., int], certificates: Certificates
) -> None:
    port = dcmtk(*words_of(replace(certificates.theirs, ca_file=certificates.other.certificate)))
    peer = Peer("PACS", "127.0.0.1", port, tls=certificates.ours, certificate_name=THEIRS)
    with pytest.raises(Transient, match=r"that it trusts our certificate|does not trust the authority"):
        echo(peer, "TWINSCANNER", SHORT)


# The files


def test_files_that_cannot_be_used_are_said_in_a_sentence(certificates: Certificates, tmp_path: Path) -> None:
    ours, text, password = certificates.ours, tmp_path / "text", tmp_path / "password"
    text.write_text("no PEM")
    password.write_text("secret\n")
    with pytest.raises(Misconfigured, match=r"The TLS file .*/none cannot be read \(No such file or directory\)"):
        ServerTls(replace(ours, key=tmp_path / "none"))
    with pytest.raises(Misconfigured, match=r"The key .*pacs\.hospital\.key does not belong to the cert"):
        ServerTls(replace(ours, key=certificates.theirs.key))
    with pytest.raises(Misconfigured, match=r"is no certificate or key in PEM: check tls\.certificate"):
        ServerTls(replace(ours, certificate=text))
    with pytest.raises(Misconfigured, match=r"tls\.ca_file .*text holds no certificate in PEM"):
        ServerTls(replace(ours, ca_file=text))
    with pytest.raises(Misconfigured, match=r"is encrypted and cannot be opened: give its password in tls\.key_pass"):
        ServerTls(certificates.encrypted)
    ServerTls(replace(certificates.encrypted, key_password_file=password))
    with pytest.raises(Misconfigured, match="cannot be read"):
        echo(Peer("PACS", "127.0.0.1", 1, tls=replace(ours, key=tmp_path / "none")), "TWINSCANNER", SHORT)


@pytest.mark.parametrize("name", ["", "*.hospital", "hospital", "safe"])
def test_no_part_of_a_name_and_no_wildcard_is_the_name(name: str) -> None:
    assert not shows_name(frozenset({name}), "safe.hospital")
