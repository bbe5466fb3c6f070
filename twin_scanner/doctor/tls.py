"""Our TLS identity: its files can be used, and the certificate has not come to its end."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from dicom_node.tls import TlsFiles
from dicom_node.tls_validity import validity_of
from twin_scanner.app import tls_files
from twin_scanner.doctor.finding import Finding
from twin_scanner.settings import Settings

WARN_DAYS: Final = 30
"""A hospital's authority takes its time to sign a new one."""
_FOR_OTHERS: Final = 0o007


def check_tls(settings: Settings) -> Iterator[Finding]:
    """Read the files as the listener does, and shake hands with ourselves. Raises Misconfigured."""
    files = tls_files(settings)
    if files is None:
        yield Finding(
            "TLS", "ok", "TLS is not configured: images travel in clear, and a caller is known by its address alone."
        )
        return
    begin, end = validity_of(files)
    yield _validity(files, begin, end, datetime.now(UTC))
    if files.key.stat().st_mode & _FOR_OTHERS:
        yield Finding("TLS key", "warning", f"Every user may read the private key {files.key}: chmod o-rwx it.")


def _validity(files: TlsFiles, begin: datetime, end: datetime, now: datetime) -> Finding:
    until = f"until {end:%Y-%m-%d}"
    if now >= end:
        return Finding("TLS", "fault", f"{files.certificate} expired on {end:%Y-%m-%d}: have a new one signed.")
    if now < begin:
        fact = f"{files.certificate} is valid from {begin:%Y-%m-%d %H:%M} UTC on"
        return Finding("TLS", "fault", f"{fact}: wait, or set this machine's clock.")
    if (end - now).days < WARN_DAYS:
        fact = f"{files.certificate} is valid {until}, {(end - now).days} days more"
        return Finding("TLS", "warning", f"{fact}: have a new one signed; it is read without a restart.")
    return Finding("TLS", "ok", f"{files.certificate} is valid {until} and belongs to its key.")
