"""A node that listens on loopback and remembers what it told, for the tests of both sides of an association."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.association import Association

from dicom_node.admission import Admission
from dicom_node.associations import Timeouts
from dicom_node.listener import Listener
from dicom_node.peers import Peer
from dicom_node.spool import Spool
from dicom_node.store_scp import ReceivedInstance, StoreScp
from dicom_node.store_scu import InstanceStatus, NotStored, SendReport, send
from tests.samples import instances

DEADLINE_S: Final = 60.0
SHORT: Final = Timeouts(connection_s=20, negotiation_s=20, response_s=30, idle_s=30, read_s=20)
"""Below the deadline, and above what a loaded machine may need for one answer."""


@dataclass
class Node:
    """A listener with what it told, and how to reach it."""

    spool: Spool
    received: list[ReceivedInstance] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    listener: Listener = None  # type: ignore[assignment]

    @property
    def peer(self) -> Peer:
        return Peer("TWINSCANNER", "127.0.0.1", self.listener.port)

    def send(self, *files: Path, calling_ae: str = "PACS") -> SendReport:
        return send(files, self.peer, calling_ae=calling_ae, timeouts=SHORT)

    def answers(self, *files: Path) -> list[InstanceStatus]:
        """The answer to each file, whatever it is."""
        try:
            return list(self.send(*files).instances)
        except NotStored as error:
            return list(error.report.instances)

    def kept(self) -> dict[str, bytes]:
        """Data set bytes in the spool by SOP Instance UID."""
        files = [file for study_uid in self.spool.studies() for file in self.spool.files(study_uid)]
        return {file.stem: instances.data_set_bytes(file) for file in files}


Start: TypeAlias = Callable[..., Node]
"""Starts a node: options of StoreScp, of Listener and of Admission."""

_OF_THE_LISTENER: Final = ("reports", "timeouts", "tls")
_OF_THE_ADMISSION: Final = ("open_to_loopback", "limits", "resolve")


def start_node(spool: Spool, **options: Any) -> Node:
    """A node that listens; it is open to loopback where no ``peers`` are given."""
    node = Node(spool)
    listening = {name: options.pop(name) for name in _OF_THE_LISTENER if name in options}
    admitting = {name: options.pop(name) for name in _OF_THE_ADMISSION if name in options}
    peers = options.pop("peers", ())
    admission = Admission("TWINSCANNER", peers, **{"open_to_loopback": not peers, **admitting})
    defaults: dict[str, Any] = {
        "on_stored": node.received.append,
        "is_own": lambda header: header.get("Manufacturer") == "twin-scanner",
        "on_association_closed": node.closed.append,
    }
    store = StoreScp(spool=spool, **{**defaults, **options})
    node.listener = Listener(
        host="127.0.0.1", port=0, store=store, admission=admission, **{"timeouts": SHORT, **listening}
    )
    node.listener.start()
    return node


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether the condition holds before the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def sent(*files: Path) -> dict[str, bytes]:
    return {str(instances.meta(file).MediaStorageSOPInstanceUID): instances.data_set_bytes(file) for file in files}


def associate(node: Node) -> Association:
    """An association of a plain pynetdicom requestor."""
    application = AE(ae_title="PACS")
    application.acse_timeout = application.dimse_timeout = DEADLINE_S
    contexts = [build_context(CTImageStorage, ExplicitVRLittleEndian)]
    return application.associate(
        node.peer.host, node.peer.port, contexts=contexts, ae_title="TWINSCANNER", max_pdu=131072
    )
