"""Our TLS identity: its files can be used, and the certificate has not come to its end."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from dicom_node.tls_validity import validity_of
from twin_scanner.app import tls_files
from twin_scanner.doctor.finding import Finding
from twin_scanner.settings import Settings

_FOR_OTHERS: Final = 0o007


def check_tls(settings: Settings) -> Iterator[Finding]:
    """Read the files as the listener does, and shake hands with ourselves. Raises Misconfigured."""
    files = tls_files(settings)
    if files is None:
        yield Finding(
            "TLS", "ok", "TLS is not configured: images travel in clear, and a caller is known by its address alone."
        )
        return
    validity, now = validity_of(files), datetime.now(UTC)
    concern = validity.concern(now)
    if concern is None:
        concern = f"{files.certificate} is valid until {validity.end:%Y-%m-%d} and belongs to its key."
        yield Finding("TLS", "ok", concern)
    else:
        yield Finding("TLS", "warning" if validity.holds(now) else "fault", concern)
    if files.key.stat().st_mode & _FOR_OTHERS:
        yield Finding("TLS key", "warning", f"Every user may read the private key {files.key}: chmod o-rwx it.")
