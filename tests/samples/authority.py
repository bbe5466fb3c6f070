"""A certificate authority for a test, made by the openssl command, and the certificates that it signs."""

import subprocess
from pathlib import Path
from typing import Final

from dicom_node.tls import MinimumVersion, TlsFiles

_CURVE: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


class Authority:
    """Signs certificates for names; keys are not encrypted unless a password is given."""

    def __init__(self, folder: Path, openssl: str, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._openssl, self._name = folder, openssl, name
        self.certificate, self._key = folder / f"{name}.crt", folder / f"{name}.key"
        self._run(
            *("req", "-x509", *_CURVE, "-nodes", "-days", "3650", "-subj", f"/CN={name}"),
            *("-keyout", self._key, "-out", self.certificate),
        )

    def sign(
        self,
        name: str,
        *,
        file: str = "",
        days: int = 365,
        alternatives: str = "",
        usage: str = "serverAuth,clientAuth",
        password: str = "",
    ) -> TlsFiles:
        """A certificate with this common name; ``alternatives`` as openssl writes them, ``DNS:x,IP:y``."""
        certificate, key, request, extensions = (
            self._folder / f"{file or name}.{kind}" for kind in ("crt", "key", "csr", "ext")
        )
        closed = ("-passout", f"pass:{password}") if password else ("-nodes",)
        self._run("req", "-new", *_CURVE, *closed, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        lines = [f"extendedKeyUsage={usage}"] if usage else ["basicConstraints=CA:FALSE"]
        extensions.write_text("\n".join([*lines, *([f"subjectAltName={alternatives}"] if alternatives else [])]))
        self._run(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial"),
            *("-days", str(days), "-extfile", extensions, "-out", certificate),
        )
        return self.files(certificate, key)

    def files(self, certificate: Path, key: Path, minimum_version: MinimumVersion = "1.2") -> TlsFiles:
        """An identity that trusts this authority."""
        return TlsFiles(certificate, key, self.certificate, minimum_version=minimum_version)

    def _run(self, *words: str | Path) -> None:
        subprocess.run([self._openssl, *map(str, words)], check=True, capture_output=True, timeout=60)
