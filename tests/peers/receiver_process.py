"""A Listener as a process of its own, for tests that kill it: ``receiver_process.py SPOOL PORT``."""

import sys
import threading
from pathlib import Path

from dicom_node.admission import Admission
from dicom_node.listener import Listener
from dicom_node.spool import Spool
from dicom_node.store_scp import StoreScp


def main(folder: str, port: str) -> None:
    spool = Spool(Path(folder))
    spool.sweep()
    store = StoreScp(spool=spool, on_stored=lambda received: None, is_own=lambda header: False)
    admission = Admission("TWINSCANNER", open_to_loopback=True)
    with Listener(host="127.0.0.1", port=int(port), store=store, admission=admission).listening():
        print("listening", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
