"""Logging: JSON lines for machines, plain lines in a terminal; never patient data."""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter
from rich.console import Console
from rich.logging import RichHandler

FACTS = (
    "job_id",
    "series_uid",
    "study_uid",
    "step",
    "state",
    "reason",
    "port",
    "ae_title",
    "where",
    "count",
    "outcome",
)
"""The fields that our records carry beside the message; other libraries' records have none of them."""
TALKATIVE = ("pydicom", "pynetdicom", "httpx", "httpcore", "apscheduler", "alembic", "matplotlib", "monai")
"""Libraries whose records below WARNING are not ours to pass on; pydicom's and httpx's may quote patient data."""


class _Plain(logging.Formatter):
    """The message and the facts that are there, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        facts = [f"{name}={getattr(record, name)}" for name in FACTS if hasattr(record, name)]
        return " ".join([record.getMessage(), *facts])


def set_up_logging(level: str, console: Console | None = None) -> None:
    """Send every record to stderr: JSON lines, or readable ones on ``console`` where stderr is a terminal."""
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(console=console or Console(stderr=True), show_path=False, markup=False)
        handler.setFormatter(_Plain())
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(
            JsonFormatter(
                "%(asctime)s %(levelname)s %(name)s %(message)s",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            )
        )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    # A half-open peer is daily life on a hospital's network, and pynetdicom logs a traceback for each.
    logging.getLogger("pynetdicom.dul").setLevel(logging.CRITICAL)
