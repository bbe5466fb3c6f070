"""Logging: JSON lines for machines, plain lines in a terminal; never a value from patient data.

Our own messages are written so that they hold none. What other libraries say is not: a warning or an error quotes the
value that it stumbles over. Of theirs only the kind and the place in the code come out.
"""

import copy
import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, TextIO

from pythonjsonlogger.json import JsonFormatter
from rich.console import Console
from rich.logging import RichHandler

LOG = logging.getLogger("twin_scanner.logs")

FACTS = (
    "job_id",
    "series_uid",
    "study_uid",
    "step",
    "state",
    "reason",
    "port",
    "ae_title",
    "error",
    "where",
    "count",
    "outcome",
)
"""The fields that our records carry beside the message; other libraries' records have none of them."""
OURS: Final = ("twin_scanner", "dicom_node", "twin_record", "training")
"""The packages whose messages hold no value from the data."""
TALKATIVE = (
    "pydicom",
    "pynetdicom",
    "httpx",
    "httpcore",
    "apscheduler",
    "alembic",
    "matplotlib",
    "monai",
    "distributed",
    "tornado",
    "asyncio",
)
"""Libraries whose records below ERROR are not ours to pass on."""
UNINTERESTING: Final = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""Warnings that Python itself does not show to users."""

_CONTEXT: ContextVar[Mapping[str, str]] = ContextVar("log_context", default=MappingProxyType({}))


@contextmanager
def log_context(**ids: str) -> Iterator[None]:
    """Within the block every record of this thread names these fields: ``log_context(job_id=..., study_uid=...)``.

    Blocks inside each other add to what the outer ones name. A new thread begins with none.
    """
    token = _CONTEXT.set({**_CONTEXT.get(), **ids})
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def current_context() -> dict[str, str]:
    """The fields that ``log_context`` names here, to be handed to another thread or process."""
    return dict(_CONTEXT.get())


def set_up_logging(level: str, console: Console | None = None) -> None:
    """Send every record to stderr: JSON lines, or readable ones on ``console`` where stderr is a terminal."""
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(console=console or Console(stderr=True), show_path=False, markup=False)
        handler.setFormatter(_Plain())
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(
            _Json(
                "%(asctime)s %(levelname)s %(name)s %(message)s",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            )
        )
    handler.addFilter(_name_context)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    # A half-open peer is daily life on a hospital's network, and pynetdicom logs an error for each.
    logging.getLogger("pynetdicom.dul").setLevel(logging.CRITICAL)


def set_up_service_logging(level: str) -> None:
    """For a process that serves, and for its worker processes: nothing reaches stderr but records."""
    set_up_logging(level)
    record_strays()


def record_strays() -> None:
    """Record what would else be printed to stderr: warnings, and errors that nobody caught, of every thread."""
    sys.excepthook = _record_uncaught
    threading.excepthook = _record_dead_thread
    sys.unraisablehook = _record_unraisable
    warnings.showwarning = _record_warning
    # Python's own memory of what was shown keeps each text, and a text that quotes the data is new each time.
    warnings.simplefilter("always")
    for category in UNINTERESTING:
        warnings.simplefilter("ignore", category)


class _Json(JsonFormatter):
    """One JSON object a record."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(_without_values(record))


class _Plain(logging.Formatter):
    """The message and the facts that are there, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        safe = _without_values(record)
        facts = [f"{name}={getattr(safe, name)}" for name in FACTS if hasattr(safe, name)]
        return " ".join([safe.getMessage(), *facts])


def _name_context(record: logging.LogRecord) -> bool:
    """A handler's filter that lets everything pass; what a record says itself stands above the context."""
    for name, value in _CONTEXT.get().items():
        if not hasattr(record, name):
            setattr(record, name, value)
    return True


def _without_values(record: logging.LogRecord) -> logging.LogRecord:
    """The record with an error's kind and place instead of its text, and so for the whole message of a library."""
    safe = copy.copy(record)
    if record.exc_info and record.exc_info[1] is not None:
        safe.error, safe.where = type(record.exc_info[1]).__name__, _frames(record.exc_info[2])
    safe.exc_info = safe.exc_text = safe.stack_info = None
    library = record.name.partition(".")[0]
    if library not in OURS:
        safe.msg, safe.args = f"{library} reports a problem", ()
        if not hasattr(safe, "where"):
            safe.where = f"{record.module}:{record.lineno}"
    return safe


def _frames(trace: TracebackType | None) -> str:
    """Where an error was raised, and from where that was called, the innermost first."""
    frames = traceback.extract_tb(trace)
    return " < ".join(f"{Path(frame.filename).stem}.{frame.name}:{frame.lineno}" for frame in reversed(frames))


def _record_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    LOG.critical("the process ends by an error that nobody caught", exc_info=(kind, error, trace))


def _record_dead_thread(caught: threading.ExceptHookArgs) -> None:
    if caught.exc_value is None or isinstance(caught.exc_value, SystemExit):
        return
    LOG.error(
        "a thread ended by an error that nobody caught",
        exc_info=(caught.exc_type, caught.exc_value, caught.exc_traceback),
        extra={} if caught.thread is None else {"thread_name": caught.thread.name},
    )


def _record_unraisable(caught: "sys.UnraisableHookArgs") -> None:
    if caught.exc_value is not None:
        LOG.error(
            "an error came where none can be raised",
            exc_info=(caught.exc_type, caught.exc_value, caught.exc_traceback),
        )


def _record_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """In the form of ``warnings.showwarning``."""
    _record_once(category.__name__, f"{Path(filename).stem}:{lineno}", _CONTEXT.get().get("job_id", ""))


@lru_cache(maxsize=1024)
def _record_once(kind: str, where: str, job_id: str) -> None:
    """A CT of a thousand slices warns a thousand times: once for each job and place says as much."""
    LOG.warning("a library warns", extra={"error": kind, "where": where})
