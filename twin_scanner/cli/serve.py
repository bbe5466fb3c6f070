"""The running scanner."""

import signal
import threading

from twin_scanner import app as application
from twin_scanner.cli.options import ConfigFile, read_settings
from twin_scanner.logs import record_strays, set_up_logging


def serve(config: ConfigFile = None) -> None:
    """Run the scanner: receive CTs, send synthetic PETs back, record them in the twin; stops on SIGTERM or Ctrl-C."""
    settings = read_settings(config)
    set_up_logging(settings.log.level)
    record_strays()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with application.Scanner(settings) as scanner:
        print(f"listening {scanner.receiver.port}", flush=True)
        stop.wait()
