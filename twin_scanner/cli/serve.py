"""The running scanner."""

import signal
import threading

from twin_scanner.cli.options import ConfigFile, read_settings
from twin_scanner.cli.output import log_from


def serve(config: ConfigFile = None) -> None:
    """Run the scanner: receive CTs, send synthetic PETs back, record them in the twin; stops on SIGTERM or Ctrl-C."""
    from twin_scanner.app import Scanner
    from twin_scanner.files.writable import check_writable
    from twin_scanner.logs import record_strays

    settings = read_settings(config)
    log_from(settings.log.level)
    record_strays()
    check_writable(settings.storage.folder)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Scanner(settings) as scanner:
        print(f"listening {scanner.receiver.port}", flush=True)
        stop.wait()
