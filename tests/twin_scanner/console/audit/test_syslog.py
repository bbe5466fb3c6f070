"""Audit messages: the standard's schema, RFC 5424, and what happens while the syslog server is away."""

import logging
import re
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.fakes.clock import Clock
from tests.fakes.syslog_server import SyslogListener
from tests.samples.authority import Authority
from twin_scanner.console.audit.forwarding import Forwarding, forward
from twin_scanner.console.audit.syslog import SyslogServer, syslog_message
from twin_scanner.errors import Misconfigured, Transient
from twin_scanner.service.ledger import Ledger, NewJob, acting_as

pytestmark = pytest.mark.record


@pytest.fixture
def ledger_with_events(ledger: Ledger, clock: Clock) -> Ledger:
    """One event of each sort."""
    job = ledger.jobs.open(NewJob("1.2.1", "1.9", "1.2.3", "a" * 64, 20))
    with acting_as("maria"):
        ledger.saw("jobs", job.job_id)
        ledger.saw("twin", "a" * 16)
        ledger.saw("fhir", "Observation/1", "read")
    ledger.users.add("maria <&>\"'é", "viewer", "h")
    ledger.sessions.begin("id", "maria", None)
    ledger.sessions.refused("unknown")
    ledger.sessions.end("id")
    ledger.note(job.job_id, "erased")
    return ledger


@pytest.fixture
def listener() -> Iterator[SyslogListener]:
    with closing(SyslogListener()) as listening:
        yield listening


def event_ids(messages: list[bytes]) -> list[str]:
    found = [re.search(rb'type="hash" value="([^"]+)"', message) for message in messages]
    return [match.group(1).decode() for match in found if match]


def test_every_message_has_the_form_of_the_standards_schema(
    ledger_with_events: Ledger, tmp_path: Path, project: Path, peer: Callable[[str], str]
) -> None:
    """The oracle is libxml2 with the RELAX NG schema of PS3.15 A.5.1."""
    files = []
    for event in ledger_with_events.events.unsent(100):
        files.append(tmp_path / f"{event.event_id}.xml")
        files[-1].write_bytes(syslog_message(event).split(b"\xef\xbb\xbf", 1)[1])
    schema = project / "tests/samples/dicom_audit_message.rng"
    command = [peer("xmllint"), "--noout", "--relaxng", str(schema), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert len(files) == 9 and done.returncode == 0, done.stderr
    files[0].write_text(files[0].read_text().replace("EventOutcomeIndicator", "Outcome"))
    assert subprocess.run(command, capture_output=True, timeout=60).returncode != 0


def test_each_event_is_of_the_standards_kind(ledger_with_events: Ledger) -> None:
    kinds = []
    for event in ledger_with_events.events.unsent(100):
        message = ET.fromstring(syslog_message(event).split(b"\xef\xbb\xbf", 1)[1])
        code = message.find("EventIdentification/EventID")
        assert code is not None
        action = message.find("EventIdentification")
        assert action is not None
        kinds.append((event.what, code.get("csd-code"), action.get("EventActionCode")))
    assert kinds == [
        ("opened", "110104", "C"),
        ("seen", "110103", "R"),
        ("seen", "110110", "R"),
        ("read", "110110", "R"),
        ("added", "110113", "E"),
        ("logged in", "110114", "E"),
        ("login refused", "110114", "E"),
        ("logged out", "110114", "E"),
        ("erased", "110110", "D"),
    ]


def test_a_message_is_of_rfc_5424(ledger_with_events: Ledger) -> None:
    for event in ledger_with_events.events.unsent(100):
        header, _, xml = syslog_message(event).partition(b"\xef\xbb\xbf")
        assert re.fullmatch(rb"<85>1 2026-03-01T12:00:00\.000000\+00:00 node twin-scanner \d+ IHE\+RFC-3881 - ", header)
        assert xml.startswith(b'<?xml version="1.0" encoding="UTF-8"?><AuditMessage>')


def test_over_tcp_everything_arrives_once_and_in_order(ledger_with_events: Ledger, listener: SyslogListener) -> None:
    server = SyslogServer("127.0.0.1", listener.port, "tcp")
    waiting = [syslog_message(event) for event in ledger_with_events.events.unsent(100)]
    assert forward(ledger_with_events, server.send) and forward(ledger_with_events, server.send)
    listener.wait_for(len(waiting))
    assert listener.messages == waiting


def test_over_udp_each_message_is_a_datagram(ledger_with_events: Ledger) -> None:
    with closing(SyslogListener(udp=True)) as listening:
        waiting = [syslog_message(event) for event in ledger_with_events.events.unsent(100)]
        assert forward(ledger_with_events, SyslogServer("127.0.0.1", listening.port, "udp").send)
        listening.wait_for(len(waiting))
        assert listening.messages == waiting


def test_a_server_that_is_away_or_breaks_off_loses_nothing_and_is_named_once(
    ledger_with_events: Ledger, listener: SyslogListener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "twin_scanner.console.audit")
    task = Forwarding(ledger_with_events, SyslogServer("127.0.0.1", listener.port, "tcp").send)
    waiting = [event.event_id for event in ledger_with_events.events.unsent(100)]
    listener.breaks_off = True
    for _ in range(3):
        task()
    assert [event.event_id for event in ledger_with_events.events.unsent(100)] == waiting
    ledger_with_events.note("j", "later")
    listener.breaks_off = False
    task()
    listener.wait_for(len(waiting) + 1)
    assert len(set(event_ids(listener.messages))) == len(waiting) + 1
    assert ledger_with_events.events.unsent(100) == []
    assert [record.message for record in caplog.records] == [
        "Audit messages wait in the ledger.",
        "Audit messages are sent again.",
    ]


def test_over_tls_only_a_server_with_the_right_certificate_gets_anything(
    ledger_with_events: Ledger, tmp_path: Path, peer: Callable[[str], str]
) -> None:
    ours = Authority(tmp_path, peer("openssl")).sign("syslog", alternatives="IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours.certificate, ours.key)
    with closing(SyslogListener(context)) as listening:
        with pytest.raises(Transient, match="did not take the audit messages"):
            forward(ledger_with_events, SyslogServer("127.0.0.1", listening.port, "tls").send)
        server = SyslogServer("127.0.0.1", listening.port, "tls", ca_file=ours.ca_file)
        count = len(ledger_with_events.events.unsent(100))
        assert forward(ledger_with_events, server.send)
        listening.wait_for(count)
        assert len(listening.messages) == count
    with pytest.raises(Misconfigured, match="TLS files"):
        SyslogServer("127.0.0.1", 1, "tls", ca_file=tmp_path / "none").check()
