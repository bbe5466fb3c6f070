"""A PACS on loopback that takes its time for each instance, and remembers every C-STORE that it was asked for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

AE_TITLE = "PACS"


class SlowPacs:
    """Answers success after ``delay_s`` seconds, or once ``let_go`` is set."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._lock = threading.Lock()
        self.let_go = threading.Event()
        self.stored: list[str] = []
        """SOP Instance UIDs in the order in which they were asked for, each time anew."""
        self.port = 0

    def count(self) -> int:
        """How many C-STOREs there were."""
        with self._lock:
            return len(self.stored)

    @contextmanager
    def listening(self) -> Iterator["SlowPacs"]:
        """On a port of the system's choice until the end of the block."""
        application = AE(AE_TITLE)
        application.supported_contexts = StoragePresentationContexts
        application.add_supported_context(Verification)
        server = application.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        self.port = server.server_address[1]
        try:
            yield self
        finally:
            self.let_go.set()
            server.shutdown()

    def _store(self, event: evt.Event) -> int:
        with self._lock:
            self.stored.append(str(event.request.AffectedSOPInstanceUID))
        self.let_go.wait(self._delay_s)
        return 0x0000
