"""The verb `console`: the pages as a process of its own, from the ledger alone, until a signal ends it."""

import signal
import threading
from types import FrameType

from twin_scanner.cli.options import ConfigFile, opened_ledger, read_settings


def console(config: ConfigFile = None) -> None:
    """Serve the console's pages from the ledger, beside a running scanner or without one; stops on Ctrl-C."""
    from twin_scanner.console_server import serving
    from twin_scanner.logs import set_up_service_logging

    settings = read_settings(config)
    set_up_service_logging(settings.log.level)
    asked = threading.Event()

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        asked.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, ask_to_stop)
    with opened_ledger(config) as ledger, serving(settings, config, ledger) as server:
        print(f"console {server.url}", flush=True)
        asked.wait()
