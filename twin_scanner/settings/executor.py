"""The section of the executor: where renders run."""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from dicom_node.addresses import is_loopback
from twin_scanner.settings.section import Section


class ExecutorSection(Section):
    """Where renders run: in a process of this machine, or on the workers of a Dask scheduler."""

    kind: Literal["local", "dask"] = "local"
    scheduler: str = ""
    renders: int = Field(1, ge=1, le=1000)
    transfer: Literal["shared", "bytes"] = "shared"
    resources: dict[str, float] = Field({})
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> "ExecutorSection":
        if self.kind == "local":
            if self.renders != 1:
                raise ValueError('executor.renders is for executor.kind = "dask": one process renders here')
            return self
        address = urlsplit(self.scheduler)
        if address.scheme not in ("tcp", "tls") or address.hostname is None or _port(self.scheduler) is None:
            raise ValueError("executor.scheduler is tls://HOST:PORT, or tcp://127.0.0.1:PORT on this machine alone")
        files = {"ca_file": self.ca_file, "certificate": self.certificate, "key": self.key}
        missing = [f"executor.{name}" for name, file in files.items() if file is None]
        if address.scheme == "tls" and missing:
            raise ValueError(f"executor.scheduler is a TLS address, which also needs {' and '.join(missing)}")
        if not is_safe_address(self.scheduler):
            raise ValueError(
                "executor.scheduler is another machine without TLS, and Dask runs whatever it receives: give a tls:// "
                "address with executor.ca_file, executor.certificate and executor.key"
            )
        return self


def is_safe_address(address: str) -> bool:
    """Whether a scheduler is asked by TLS, or on this machine alone: Dask runs whatever it receives."""
    parts = urlsplit(address)
    return parts.scheme == "tls" or is_loopback(parts.hostname or "")


def _port(address: str) -> int | None:
    try:
        return urlsplit(address).port
    except ValueError:
        return None
