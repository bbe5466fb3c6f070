"""The port: takes the associations of other nodes, within limits that no silent or hurried peer can exhaust.

What an association may then do (C-STORE) is store_scp's; C-ECHO is answered by pynetdicom.
"""

import errno
import gc
import logging
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import AddressInformation, RequestHandler, ThreadedAssociationServer

from dicom_node.admission import Admission, Caller
from dicom_node.associations import MAXIMUM_PDU_BYTES, Timeouts, configure_library, connection_of
from dicom_node.commitment import CommitmentReports
from dicom_node.messages import Begin
from dicom_node.peers import Peer, Role
from dicom_node.places import Rejection
from dicom_node.refusal_log import RefusalLog
from dicom_node.sop_classes import CT_CLASSES, OWN_CLASSES, STORAGE_COMMITMENT, TRANSFER_SYNTAXES, VERIFICATION
from dicom_node.store_scp import StoreScp
from dicom_node.tls import NotSecure, ServerTls, certificate_names, fault_of, is_tls
from dicom_node.upper_layer import check_library, take_over
from twin_scanner.errors import Misconfigured, Transient

_LISTEN_QUEUE: Final = 128
"""pynetdicom's 5 makes the 6th of a burst of connections wait for a SYN retry of 1 s and more."""
_COLLECT_EVERY_S: Final = 30.0
_ADDRESSES_S: Final = 60.0
"""How often the host names of peers are resolved again."""
_FIRST_ADDRESSES_S: Final = 5.0
"""A start waits no longer for the DNS; whoever calls before it has answered is rejected."""
_POLL_S: Final = 0.1
"""How soon the accept loop sees that it shall end."""
_NO_RIGHT: Final = frozenset({errno.EACCES, errno.EPERM})

logger = logging.getLogger(__name__)


class Listener:
    """Takes associations of those whom ``admission`` admits, hands C-STORE to ``store``, takes TLS where given.

    What peers report on storage commitment goes to ``reports``.

    ``bind`` takes the port, ``start`` serves it, ``stop`` gives it back; it may be started again.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        store: StoreScp,
        reports: CommitmentReports | None = None,
        admission: Admission,
        tls: ServerTls | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self._address = (host, port)
        self._store = store
        self._reports = reports
        self._timeouts = timeouts or Timeouts()
        self._admission = admission
        self._tls = tls
        self._application = _application(admission.ae_title, self._timeouts)
        if reports is not None:
            # The peer that reports is the SCP of storage commitment although it opened the association.
            self._application.add_supported_context(STORAGE_COMMITMENT, scu_role=False, scp_role=True)
        self._server: _Server | None = None
        self._serving: threading.Thread | None = None
        self._stopping = threading.Event()
        self._connections: WeakKeyDictionary[Association, socket.socket] = WeakKeyDictionary()

    @property
    def port(self) -> int:
        """The port that is taken: the one asked for, or the one the system chose for 0."""
        if self._server is None:
            return self._address[1]
        return int(self._server.server_address[1])

    def bind(self) -> None:
        """Take the port, without answering anybody yet; does nothing where it is taken already.

        Raises Transient where another program has it, Misconfigured where this machine has no such address or this
        user no right to the port; nothing stays open then.
        """
        if self._server is not None:
            return
        check_library()
        configure_library()
        host, port = self._address
        try:
            server = self._application.make_server(
                self._address, evt_handlers=self._handlers(), server_class=_Server, request_handler=_Connection
            )
        except OSError as error:
            raise _cannot_bind(host, port, error) from error
        self._server = cast(_Server, server)
        self._server.timeouts = self._timeouts
        self._server.begin = self._store.begin
        self._server.admission = self._admission
        self._server.tls = self._tls
        self._server.on_admitted = self._store.admit
        self._server.congestion = self._store.congestion

    def start(self) -> None:
        """Serve the port, which is bound first where it is not yet; raises as ``bind`` does."""
        self.bind()
        server = cast(_Server, self._server)
        self._store.resume()
        self._stopping.clear()
        self._know_addresses()
        self._serving = threading.Thread(
            target=server.serve_forever, args=(_POLL_S,), name="dicom-listener", daemon=True
        )
        self._serving.start()
        logger.info("Listening as '%s' on %s:%d.", self._application.ae_title, self._address[0], self.port)

    def stop(self, timeout_s: float = 30.0) -> None:
        """Take no more, let running stores be answered, then close every association; returns in ``timeout_s``."""
        server, self._server = self._server, None
        if server is None:
            return
        if self._serving is None:
            server.server_close()
            return
        deadline = time.monotonic() + timeout_s
        self._stopping.set()
        self._store.refuse_more()
        server.shutdown()
        self._store.wait_until_answered(timeout_s)
        closing = [
            threading.Thread(target=_end, args=(association,), name="dicom-listener-end", daemon=True)
            for association in server.active_associations
        ]
        for thread in closing:
            thread.start()
        for thread in (*closing, self._serving):
            thread.join(max(0.0, deadline - time.monotonic()))
        self._serving = None
        logger.info("Stopped listening.")

    @contextmanager
    def listening(self) -> Iterator["Listener"]:
        """Started at the beginning of a ``with`` block, stopped at its end."""
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def _know_addresses(self) -> None:
        """Resolve the host names of peers now and again and again; a DNS that does not answer holds up nothing."""
        if not self._admission.addresses.host_names:
            return
        resolved = threading.Event()

        def refresh() -> None:
            self._admission.addresses.refresh()
            resolved.set()
            while not self._stopping.wait(_ADDRESSES_S):
                self._admission.addresses.refresh()

        threading.Thread(target=refresh, name="dicom-addresses", daemon=True).start()
        resolved.wait(_FIRST_ADDRESSES_S)

    def _handlers(self) -> list[Any]:
        return [
            (evt.EVT_CONN_OPEN, self._keep_connection),
            (evt.EVT_CONN_CLOSE, _end_port_probe),
            (evt.EVT_CONN_CLOSE, self._close_connection),
            (evt.EVT_ACCEPTED, self._explain_contexts),
            *self._store.handlers(),
            *(self._reports.handlers() if self._reports is not None else ()),
        ]

    def _keep_connection(self, event: evt.Event) -> None:
        connection = connection_of(event.assoc)
        if connection is not None:
            self._connections[event.assoc] = connection

    def _close_connection(self, event: evt.Event) -> None:
        connection = self._connections.pop(event.assoc, None)
        if connection is not None:
            connection.close()

    def _explain_contexts(self, event: evt.Event) -> None:
        refused = event.assoc.rejected_contexts
        if refused and not event.assoc.accepted_contexts:
            names = ", ".join(sorted({UID(context.abstract_syntax or "").name for context in refused}))
            logger.warning("%r offered only what is not taken here: %s.", event.assoc.requestor.ae_title, names)


class _Server(ThreadedAssociationServer):
    """pynetdicom's threaded server, for a network where port scanners, half-open peers and bursts are daily life.

    ``process_request`` runs in the accept loop and never waits; ``finish_request`` runs in the connection's own thread:
    whatever must wait for a peer before the association (a TLS handshake, say) belongs there.
    """

    request_queue_size = _LISTEN_QUEUE
    daemon_threads = True
    timeouts = Timeouts()
    begin: Begin
    admission: Admission
    tls: ServerTls | None = None
    on_admitted: Callable[[Association, Peer], None]
    congestion: Callable[[], str | None]
    _collected_s = 0.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.refusals = RefusalLog(time.monotonic)

    def server_bind(self) -> None:
        """Never wait in accept: a connection that was reset before would hold the loop, and a stop, until the next."""
        super().server_bind()
        cast(socket.socket, self.socket).setblocking(False)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept, and nothing else: pynetdicom would wait here for the peer's part of a TLS handshake."""
        return cast(socket.socket, self.socket).accept()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand a connection to a thread of its own; where too many wait, the one that waits longest is closed."""
        self._hold(request, client_address)
        super().process_request(request, client_address)

    def _hold(self, connection: socket.socket, client_address: Any) -> None:
        oldest = self.admission.connected(client_address, connection)
        if oldest is not None:
            _shut_down(oldest)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Begin the association; the connection has a timeout also for what we send."""
        request.settimeout(self.timeouts.read_s)
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = request if self.tls is None else self._secured(self.tls, request, client_address)
        if connection is not None:
            super().finish_request(connection, client_address)

    def _secured(self, tls: ServerTls, request: socket.socket, client_address: Any) -> socket.socket | None:
        """The connection after its TLS handshake, or as it is where it may call without; None where it was ended."""
        connection, timeout_s = request, self.timeouts.negotiation_s
        try:
            if is_tls(request, timeout_s):
                if not self.admission.may_call_by_tls(client_address):
                    raise NotSecure("no peer calls from this address; if one may, add it to its addresses")
                connection = tls.wrap(request)
                self._hold(connection, client_address)
                connection.settimeout(timeout_s)
                connection.do_handshake()
            elif not self.admission.may_call_in_clear(client_address):
                raise NotSecure("it has to call by TLS")
        except OSError as error:
            address = client_address[0]
            self.refusals.refused(address, f"A connection from {address} was ended: {fault_of(error)}.")
            self.admission.ended(client_address)
            self.shutdown_request(connection)
            return None
        connection.settimeout(self.timeouts.read_s)
        return connection

    def rejection_of(self, association: Association) -> Rejection | None:
        """Take a place for an association that is asked for, or say why it gets none."""
        request, connection = cast(A_ASSOCIATE, association.requestor.primitive), connection_of(association)
        names = certificate_names(connection) if isinstance(connection, ssl.SSLSocket) else None
        calling_ae, called_ae = request.calling_ae_title, request.called_ae_title
        outcome = self.admission.associate(_key_of(association), Caller(calling_ae, called_ae, names))
        if isinstance(outcome, Peer):
            congestion = self.congestion() if _offers_to_store(request) else None
            if congestion is None:
                self.on_admitted(association, outcome)
                if Role.COMMIT not in outcome.roles:
                    _take_no_reports(association)
                return None
            outcome = Rejection.for_now(congestion, is_congestion=True)
        address = str(_key_of(association)[0])
        words = f"Association from {calling_ae!r} at {address} to {called_ae!r} was rejected: {outcome.words}."
        self.refusals.refused(address, words)
        return outcome

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a connection that ended in an exception; the library would print a traceback to stderr."""
        self.admission.ended(client_address)
        logger.warning(
            "A connection from %s ended in an error before any association.", client_address[0], exc_info=True
        )

    def service_actions(self) -> None:
        """Collect ended associations, as pynetdicom does, but by the clock, so that the loop may poll often."""
        now_s = time.monotonic()
        if now_s - self._collected_s >= _COLLECT_EVERY_S:
            self._collected_s = now_s
            gc.collect()
            self.refusals.flush()

    def shutdown(self) -> None:
        """End the accept loop and close the listening socket; associations go on."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()


class _Connection(RequestHandler):
    """Makes the association of a connection."""

    server: _Server

    def _create_association(self) -> Association:
        accepted_s = time.monotonic()
        association = super()._create_association()
        association.acse = _Negotiation(association)
        admission, key = self.server.admission, _key_of(association)
        begin, timeouts = self.server.begin, self.server.timeouts
        refused = self.server.refusals.refused
        take_over(association, begin, timeouts, accepted_s, lambda: admission.ended(key), refused)
        return association


class _Negotiation(ACSE):
    """pynetdicom's negotiation, after our own conditions."""

    def _negotiate_as_acceptor(self) -> None:
        association, server = self.assoc, cast(_Server, self.assoc._server)
        rejection = server.rejection_of(association)
        if rejection is None:
            super()._negotiate_as_acceptor()
            return
        request = cast(A_ASSOCIATE, self.requestor.primitive)
        self.requestor.ae_title = request.calling_ae_title
        self.send_reject(rejection.result, rejection.source, rejection.reason)
        evt.trigger(association, evt.EVT_REJECTED, {})
        association.kill()


def _offers_to_store(request: A_ASSOCIATE) -> bool:
    """Whether the caller may send instances; C-ECHO and what it answers to our own requests need no disk."""
    offered = {str(context.abstract_syntax) for context in request.presentation_context_definition_list}
    return not offered.isdisjoint((*CT_CLASSES, *OWN_CLASSES))


def _key_of(association: Association) -> tuple[Any, ...]:
    """A connection's own key: the address and port of its other end."""
    return cast(AddressInformation, association.requestor.address_info).as_tuple


def _take_no_reports(association: Association) -> None:
    """The peer is none that reports on storage commitment: it is not accepted from there."""
    acceptor = association.acceptor
    acceptor.supported_contexts = [
        context for context in acceptor.supported_contexts if context.abstract_syntax != STORAGE_COMMITMENT
    ]


def _application(ae_title: str, timeouts: Timeouts) -> AE:
    application = AE(ae_title=ae_title)
    application.maximum_associations = sys.maxsize  # pynetdicom counts threads; places.py counts associations
    application.maximum_pdu_size = MAXIMUM_PDU_BYTES
    application.acse_timeout = timeouts.negotiation_s
    application.dimse_timeout = timeouts.response_s
    application.network_timeout = timeouts.idle_s
    application.add_supported_context(VERIFICATION)
    for sop_class_uid in (*CT_CLASSES, *OWN_CLASSES):
        application.add_supported_context(sop_class_uid, list(TRANSFER_SYNTAXES))
    return application


def _cannot_bind(host: str, port: int, error: OSError) -> Transient | Misconfigured:
    where = f"Port {port} on {host}"
    if error.errno == errno.EADDRINUSE:
        return Transient(f"{where} is in use: stop what listens there, or choose another port.")
    if error.errno in _NO_RIGHT:
        return Misconfigured(f"{where} needs rights that this user does not have: choose a port above 1023.")
    return Misconfigured(f"{where} cannot be listened on ({error.strerror}): give an address of this machine.")


def _end_port_probe(event: evt.Event) -> None:
    """For EVT_CONN_CLOSE: a connection closed before any request frees its thread and slot now, not at the timeout."""
    association = event.assoc
    if association.is_acceptor and association.requestor.primitive is None:
        association.dul.to_user_queue.put(None)


def _end(association: Association) -> None:
    """Abort an association; where the peer has not asked for one yet, there is only a connection to shut down."""
    if association.is_established:
        association.abort()
        return
    connection = connection_of(association)
    if connection is not None:
        _shut_down(connection)
    if association.ident is not None:  # a thread that has not started yet cannot be joined; it finds its socket shut
        association.join()


def _shut_down(connection: socket.socket) -> None:
    """End a connection; the thread that reads it sees the end."""
    with suppress(OSError):
        # Not SSLSocket's own, which takes the keys from under the thread that reads.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
