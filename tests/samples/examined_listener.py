"""A listener that is or is not our own scanner's, to be examined from outside."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dicom_node.admission import Admission
from dicom_node.listener import Listener
from dicom_node.spool import Spool
from dicom_node.store_scp import StoreScp


@contextmanager
def receiver(folder: Path, **options: Any) -> Iterator[Listener]:
    """It keeps what it is sent in ``folder``; the options are the admission's, open to loopback by default."""
    store = StoreScp(spool=Spool(folder), on_stored=lambda _: None, is_own=lambda _: False)
    title, tls = options.pop("ae_title", "PACS"), options.pop("tls", None)
    admission = Admission(title, **{"open_to_loopback": "peers" not in options, **options})
    with Listener(host="127.0.0.1", port=0, store=store, admission=admission, tls=tls).listening() as running:
        yield running
