"""The clock: whether this machine's is kept, and how far the FHIR server's is from it. DICOM has no such question."""

import ctypes
import ctypes.util
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from twin_record.remote import FhirClient
from twin_scanner.app import open_twin
from twin_scanner.doctor.finding import Finding
from twin_scanner.settings import Settings

LARGEST_DIFFERENCE_S: Final = 30.0
"""Tokens and signed assertions are refused from about a minute on; a Date header has whole seconds."""
UNSYNCHRONISED: Final = 0x0040
"""STA_UNSYNC of adjtimex(2)."""
TIMEX_BYTES: Final = 208
STATUS_AT: Final = 40
"""Of struct timex on 64-bit Linux: its size, and where its field ``status`` (int) lies."""


def check_clock(settings: Settings) -> Iterator[Finding]:
    """Ask the kernel whether its clock is synchronised, and the FHIR server what time it is."""
    kept = is_synchronised()
    if kept is None:
        yield Finding("clock", "ok", "Nothing on this machine says whether its clock is synchronised.")
    elif kept:
        yield Finding("clock", "ok", "This machine's clock is synchronised.")
    else:
        fact = "The kernel does not know this machine's clock as synchronised"
        yield Finding("clock", "warning", f"{fact}: let chrony or systemd-timesyncd keep it, or the container's host.")
    target = open_twin(settings) if settings.twin.url else None
    if isinstance(target, FhirClient):
        with closing(target):
            server_time, now = target.server_time(), datetime.now(UTC)
        if server_time is not None:
            yield difference((now - server_time).total_seconds())


def difference(seconds: float) -> Finding:
    """By how much our clock is ahead of the FHIR server's."""
    if abs(seconds) <= LARGEST_DIFFERENCE_S:
        return Finding("clock of the FHIR server", "ok", "The FHIR server's clock agrees with this machine's.")
    which = "behind" if seconds > 0 else "ahead of"
    fact = f"The FHIR server's clock is {abs(seconds):.0f} s {which} this machine's"
    return Finding("clock of the FHIR server", "warning", f"{fact}: set the wrong one, tokens depend on it.")


def is_synchronised() -> bool | None:
    """What the kernel says of its clock (adjtimex, only read); None where it cannot be asked."""
    library = ctypes.util.find_library("c")
    if library is None or ctypes.sizeof(ctypes.c_long) != 8:
        return None
    timex = ctypes.create_string_buffer(TIMEX_BYTES)
    try:
        state = ctypes.CDLL(library).adjtimex(timex)
    except AttributeError:
        return None
    if state < 0:
        return None
    status = int.from_bytes(timex.raw[STATUS_AT : STATUS_AT + 4], "little")
    return not status & UNSYNCHRONISED
