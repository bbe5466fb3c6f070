"""Associations that we ask another node for: who it is, how one comes about or why not, and C-ECHO."""

import logging
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from dicom_node.associations import (
    MAXIMUM_PDU_BYTES,
    SUCCESS,
    Timeouts,
    configure_library,
    connection_of,
    rest_reactor,
)
from dicom_node.awake import keep_awake
from dicom_node.peers import Peer
from dicom_node.sop_classes import VERIFICATION
from dicom_node.tls import client_context
from twin_scanner.errors import Transient

logger = logging.getLogger(__name__)


def echo(peer: Peer, calling_ae: str, timeouts: Timeouts | None = None) -> None:
    """Verify by C-ECHO that the peer answers; raises Transient where it does not."""
    with associated(peer, calling_ae, [build_context(VERIFICATION)], timeouts or Timeouts()) as association:
        if not association.accepted_contexts:
            raise Transient(f"{peer} does not accept Verification: allow C-ECHO from '{calling_ae}' there.")
        rest_reactor(association)
        status = association.send_c_echo().get("Status")
    if status != SUCCESS:
        said = "nothing" if status is None else f"0x{status:04X}"
        raise Transient(f"{peer} answered C-ECHO with {said}: check that DICOM service.")


def accepted_offers(
    peer: Peer, offers: Sequence[tuple[str, str]], *, calling_ae: str, timeouts: Timeouts | None = None
) -> frozenset[tuple[str, str]]:
    """Which pairs of SOP class and transfer syntax UIDs the peer would accept from us; nothing is sent.

    Verification is offered beside them, so that a peer that takes none of them is told from one that is not there.
    Raises Transient where no association comes about.
    """
    contexts = [build_context(UID(sop_class_uid), UID(syntax_uid)) for sop_class_uid, syntax_uid in offers]
    with associated(peer, calling_ae, [*contexts, build_context(VERIFICATION)], timeouts or Timeouts()) as association:
        return frozenset(offers) & accepted_pairs(association)


class NothingAccepted(Transient):
    """The peer talks to us, and takes none of the SOP classes that we offer."""


@contextmanager
def associated(
    peer: Peer,
    calling_ae: str,
    contexts: list[PresentationContext],
    timeouts: Timeouts,
    handlers: Sequence[Any] = (),
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
) -> Iterator[Association]:
    """An established association, released at the end, aborted on an error; raises Transient where there is none.

    ``handlers`` are those of requests that the peer makes on it.
    """
    application = _application(calling_ae, timeouts)
    connections: list[socket.socket] = []
    connected: list[bool] = []
    rejections: list[A_ASSOCIATE_RJ] = []
    faults: list[str] = []

    def keep_connection(event: evt.Event) -> None:
        connections.extend(filter(None, [connection_of(event.assoc)]))

    def on_open(event: evt.Event) -> None:
        connected.append(True)
        keep_connection(event)  # By TLS it is another socket than before.
        connections.extend(keep_awake(event.assoc))
        _send_at_once(event)

    def keep_rejection(event: evt.Event) -> None:
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            rejections.append(event.pdu)

    try:
        association = application.associate(
            peer.host,
            peer.port,
            contexts=contexts,
            ae_title=peer.ae_title,
            max_pdu=MAXIMUM_PDU_BYTES,
            tls_args=_tls_of(peer, faults),
            ext_neg=list(roles),
            evt_handlers=[
                (evt.EVT_ACSE_SENT, keep_connection),
                (evt.EVT_CONN_OPEN, on_open),
                (evt.EVT_PDU_RECV, keep_rejection),
                (evt.EVT_DATA_SENT, _acknowledge_at_once),
                *handlers,
            ],
        )
    except OSError as error:
        raise Transient(f"{peer} cannot be found ({error.strerror}): check the host name.") from error
    try:
        if not association.is_established:
            if faults:
                raise Transient(f"{peer} was called by TLS, but {faults[0]}: check [tls] here and its TLS there.")
            raise _not_established(association, peer, calling_ae, bool(connected), rejections)
        yield association
        association.release()
    finally:
        if association.is_established:
            association.abort()
        for connection in connections:
            connection.close()


def accepted_pairs(association: Association) -> frozenset[tuple[str, str]]:
    """SOP class and transfer syntax UIDs of what the peer takes."""
    return frozenset((str(cx.abstract_syntax), str(cx.transfer_syntax[0])) for cx in association.accepted_contexts)


def _application(calling_ae: str, timeouts: Timeouts) -> AE:
    configure_library()
    application = AE(ae_title=calling_ae)
    application.connection_timeout = timeouts.connection_s
    application.acse_timeout = timeouts.negotiation_s
    application.dimse_timeout = timeouts.response_s
    application.network_timeout = timeouts.idle_s
    return application


def _tls_of(peer: Peer, faults: list[str]) -> tuple[ssl.SSLContext, str] | None:
    """What pynetdicom needs to call the peer by TLS; why a handshake failed is put into ``faults``."""
    if peer.tls is None:
        return None
    return client_context(peer.tls, peer.shown_name, faults.append), peer.host


def _not_established(
    association: Association, peer: Peer, calling_ae: str, connected: bool, rejections: Sequence[A_ASSOCIATE_RJ]
) -> Transient:
    """Why; a rejection is taken from the PDU, for pynetdicom overlooks one that comes before it waits for it."""
    if not connected:
        return Transient(f"{peer} cannot be reached: check that it runs and that no firewall lies between.")
    if rejections:
        reason = rejections[0].reason_str
        return Transient(f"{peer} rejected the association from '{calling_ae}' ({reason}): check both AE titles there.")
    answer = association.acceptor.primitive
    if answer is not None and answer.result == 0:
        return NothingAccepted(
            f"{peer} accepted none of what we offer: allow these SOP classes from '{calling_ae}' there."
        )
    ended = f"{peer} ended the association before accepting it"
    if peer.tls is not None:
        return Transient(f"{ended}: check that it trusts our certificate and allows us.")
    return Transient(f"{ended}: check that a DICOM service listens there.")


def _send_at_once(event: evt.Event) -> None:
    """For EVT_CONN_OPEN: no Nagle delay between the parts of a message."""
    _set_tcp_option(event.assoc, socket.TCP_NODELAY)


def _acknowledge_at_once(event: evt.Event) -> None:
    """For EVT_DATA_SENT: acknowledge the answer's first bytes now, not after 40 ms.

    A peer with Nagle's algorithm on (dcmtk, unless TCP_NODELAY is set) holds the rest of its answer until then.
    Measured on 60 CT images to storescp: 21 images/s without, 46 with. Linux forgets it, so it is set each time.
    """
    if hasattr(socket, "TCP_QUICKACK"):
        _set_tcp_option(event.assoc, socket.TCP_QUICKACK)


def _set_tcp_option(association: Association, option: int) -> None:
    connection = connection_of(association)
    if connection is None:
        return
    try:
        connection.setsockopt(socket.IPPROTO_TCP, option, 1)
    except OSError:
        logger.debug("The connection was closed while it was used.")
