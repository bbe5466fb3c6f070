"""TLS with mutual authentication (BCP 195; PS3.15 annex B): the files of our identity."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

MinimumVersion: TypeAlias = Literal["1.2", "1.3"]


@dataclass(frozen=True)
class TlsFiles:
    """Our certificate (PEM, with its chain below), its key, and the authorities that signed our peers' certificates."""

    certificate: Path
    key: Path
    ca_file: Path
    key_password_file: Path | None = None
    minimum_version: MinimumVersion = "1.2"
