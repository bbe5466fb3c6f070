"""The verb `serve`: the scanner runs until a signal ends it."""

import os
import signal
import threading
from contextlib import ExitStack
from types import FrameType
from typing import Final

from twin_scanner.cli.options import ConfigFile, read_settings

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
SIGNAL_POLL_S: Final = 0.2


def serve(config: ConfigFile = None) -> None:
    """Run the scanner: receive CTs, send synthetic PETs back, record them in the twin; stops on SIGTERM or Ctrl-C."""
    from twin_scanner.app import STOP_BUDGET_S, Scanner
    from twin_scanner.console_server import check_console, serving
    from twin_scanner.errors import Defect, TwinScannerError
    from twin_scanner.files.writable import check_writable
    from twin_scanner.logs import set_up_service_logging

    settings = read_settings(config)
    set_up_service_logging(settings.log.level)
    check_writable(settings.storage.folder)
    asked: list[int] = []
    died = threading.Event()

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        """Takes no lock: the main thread may hold it. The next signal ends the process as if there were no handler."""
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        asked.append(number)

    for number in SIGNALS:
        signal.signal(number, ask_to_stop)
    scanner = Scanner(settings, config=config, on_fatal=died.set)
    try:
        check_console(settings, config, scanner.ledger, scanner)
    except TwinScannerError:
        scanner.stop()
        raise
    with scanner.running(), ExitStack() as closing:
        print(f"listening {scanner.receiver.port}", flush=True)
        if settings.console.port is not None:
            console = closing.enter_context(serving(settings, config, scanner.ledger, scanner))
            print(f"console {console.url}", flush=True)
        scanner.warm_up()
        while not asked and not died.wait(SIGNAL_POLL_S):
            pass
        _end_within(STOP_BUDGET_S)
    if scanner.at_work:
        # A destination that does not answer is no fault of this stop: what is left is repeated after the next start.
        os._exit(1 if died.is_set() else 0)
    if died.is_set():
        raise Defect("A thread of the scanner died, so the process ends: the log says where.")


def _end_within(budget_s: float) -> None:
    """End this process then, whatever still runs in it: only its end gives the storage folder to another."""
    timer = threading.Timer(budget_s, os._exit, [1])
    timer.daemon = True
    timer.start()
