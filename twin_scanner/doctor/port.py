"""The listening port: it is free for the scanner, or the scanner itself is behind it."""

import errno
import socket
from collections.abc import Iterator
from typing import Final

from dicom_node.associations import Timeouts
from dicom_node.client import echo
from dicom_node.peers import Peer
from twin_scanner.doctor.finding import Finding
from twin_scanner.errors import TwinScannerError
from twin_scanner.settings import Settings

LOCAL_PROBE_S: Final = 5.0
"""Our own node answers on its own machine within this, or something else is there."""
_ANY_HOST: Final = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104


def check_port(settings: Settings) -> Iterator[Finding]:
    """Bind the port as the receiver would; where it is taken, ask who is there."""
    node, name = settings.node, "listening port"
    if node.port == 0:
        yield Finding(name, "warning", "node.port 0 takes another port at each start: name one that the PACS can use.")
        return
    where = f"{node.host}:{node.port}"
    error = _bind_error(node.host, node.port)
    if error is None:
        yield Finding(name, "ok", f"{where} is free for the scanner.")
    elif error.errno == errno.EADDRINUSE:
        yield _who_listens(settings, where)
    elif error.errno in (errno.EACCES, errno.EPERM):
        yield Finding(name, "fault", f"{where} needs rights this user does not have: choose a node.port above 1023.")
    else:
        why = error.strerror or "not an address"
        yield Finding(name, "fault", f"{where} cannot be listened on ({why}): set node.host to this machine's address.")


def _bind_error(host: str, port: int) -> OSError | None:
    """Why the port cannot be taken, tried as the receiver does it; None where it can."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error
    return None


def _who_listens(settings: Settings, where: str) -> Finding:
    """Our own node answers a C-ECHO to its title from this machine, by that title."""
    node = settings.node
    limits = Timeouts(LOCAL_PROBE_S, LOCAL_PROBE_S, LOCAL_PROBE_S, LOCAL_PROBE_S, LOCAL_PROBE_S)
    try:
        echo(Peer(node.ae_title, _ANY_HOST.get(node.host, node.host), node.port), node.ae_title, limits)
    except TwinScannerError:
        fact = f"Another program listens on {where} and does not answer as {node.ae_title}"
        return Finding("listening port", "fault", f"{fact}: stop it, or choose another node.port.")
    return Finding("listening port", "ok", f"{node.ae_title} is running and answers on {where}.")
