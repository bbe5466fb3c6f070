"""Ports for servers that must be told theirs: below those that the system hands out, and each worker has its own."""

import itertools
import os
import re
import socket
from typing import Final

FIRST: Final = 16_000
"""Linux gives connections and port 0 the numbers from 32,768 on: none of ours is taken before its server begins."""
PORTS_A_WORKER: Final = 1_000
WORKERS: Final = 16
# Another run on this machine most likely begins elsewhere.
_numbers: Final = itertools.count(os.getpid() * 37)


def free_port() -> int:
    """A TCP port on loopback on which nothing listens."""
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0) % WORKERS
    for number in itertools.islice(_numbers, PORTS_A_WORKER):
        port = FIRST + worker * PORTS_A_WORKER + number % PORTS_A_WORKER
        if _can_be_bound(port):
            return port
    raise RuntimeError(f"Each of the {PORTS_A_WORKER} ports from {FIRST + worker * PORTS_A_WORKER} on is in use.")


def _can_be_bound(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
