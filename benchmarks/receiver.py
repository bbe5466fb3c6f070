"""A receiver as a process of its own, for the benchmark of receipt: ``python -m benchmarks.receiver KIND FOLDER PORT``.

``durable`` is our node; ``nothing`` is the same node with a handler that keeps nothing: the ceiling.
"""

import sys
import threading
from pathlib import Path
from typing import Any

from pynetdicom import evt

from dicom_node.admission import Admission
from dicom_node.listener import Listener
from dicom_node.messages import StoreRequest
from dicom_node.receipt import Receipt
from dicom_node.spool import Spool
from dicom_node.store_scp import StoreScp


class DoNothing(StoreScp):
    """Answers success to whatever comes, and throws it away."""

    def begin(self, association: Any, request: StoreRequest) -> Receipt:
        """A receipt that keeps nothing."""
        return Receipt(self._spool, self._limits)

    def handlers(self) -> list[Any]:
        """The handler that does nothing."""
        return [(evt.EVT_C_STORE, lambda event: 0x0000)]


def main(kind: str, folder: str, port: str) -> None:
    store_class = {"durable": StoreScp, "nothing": DoNothing}[kind]
    store = store_class(spool=Spool(Path(folder)), on_stored=lambda received: None, is_own=lambda header: False)
    admission = Admission("RECEIVER", open_to_loopback=True)
    with Listener(host="127.0.0.1", port=int(port), store=store, admission=admission).listening():
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
