"""A PACS stand-in on loopback that counts: every C-STORE that it answered, by instance, with a hash of its content."""

import hashlib
import threading
import time
from collections import defaultdict
from types import TracebackType
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts

AE_TITLE = "PACS"


class CountingPacs:
    """Listens while the ``with`` block runs; ``delay_s`` is how long it takes over each instance."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s
        self._lock = threading.Lock()
        self.stored: dict[str, list[str]] = defaultdict(list)
        """By SOP Instance UID, the hash of the data set of each C-STORE in the order in which they came."""
        self._application = AE(AE_TITLE)
        self._application.maximum_associations = 50
        self._application.supported_contexts = AllStoragePresentationContexts
        self._server: Any = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def __enter__(self) -> "CountingPacs":
        handlers = [(evt.EVT_C_STORE, self._store)]
        self._server = self._application.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._application.shutdown()

    def _store(self, event: evt.Event) -> int:
        content = hashlib.sha256(event.request.DataSet.getvalue()).hexdigest()
        time.sleep(self._delay_s)
        with self._lock:
            self.stored[str(event.request.AffectedSOPInstanceUID)].append(content)
        return 0x0000
