"""A real Orthanc as the PACS of a test: started on free ports with its own folder, asked by REST, killed at the end."""

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

DICOM_WEB: Final = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
"""Debian's orthanc-dicomweb."""
_START_S: Final = 60.0
_POLL_S: Final = 0.05


class Orthanc:
    """Orthanc under a context manager; everything is accepted, nothing but loopback is listened on.

    ``modalities``: symbolic name -> (AE title, host, port), as Orthanc sends to them. ``lua_scripts``: files.
    ``dicom_web``: with the plugin that serves ``/dicom-web``. ``program`` None: found on the PATH or in /usr/sbin.
    """

    def __init__(
        self,
        folder: Path,
        dicom_port: int,
        http_port: int,
        ae_title: str = "ORTHANC",
        modalities: Mapping[str, tuple[str, str, int]] | None = None,
        lua_scripts: Sequence[Path] = (),
        *,
        program: str | None = None,
        dicom_web: bool = False,
    ) -> None:
        self.folder = folder
        self.dicom_port = dicom_port
        self.http_port = http_port
        self.ae_title = ae_title
        self._modalities = {name: list(address) for name, address in (modalities or {}).items()}
        self._lua_scripts = [str(script) for script in lua_scripts]
        found = program or shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
        if found is None:
            raise FileNotFoundError("Orthanc is not installed: apt-get install orthanc")
        self._program = found
        self._plugins = [str(DICOM_WEB)] if dicom_web else []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until REST answers; what is stored in the folder already is there again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration()))
        with (self.folder / "orthanc.log").open("ab") as log:
            # dcmtk delays parts of its answers without TCP_NODELAY (reference/dicom-fhir.md section 3).
            self._process = subprocess.Popen(
                [self._program, str(configuration)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TCP_NODELAY": "1"},
            )
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"Orthanc did not start: {self.log()[-2000:]}")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Kill it; the folder stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> "Orthanc":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def rest(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """The JSON answer to GET ``path``; with a body POST; DELETE or PUT as ``method`` says."""
        return json.loads(self.rest_bytes(path, body, method) or b"null")

    def rest_bytes(self, path: str, body: Any = None, method: str | None = None) -> bytes:
        """The answer as it is, such as an instance's file; a body that is not bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self._url(path), data=data, method=method)
        with urllib.request.urlopen(request, timeout=_START_S) as answer:
            content: bytes = answer.read()
        return content

    def changes(self, change_type: str | None = None) -> list[dict[str, Any]]:
        """The whole change log in its order, or only one type of it, such as NewInstance."""
        found: list[dict[str, Any]] = []
        since, done = 0, False
        while not done:
            page = self.rest(f"/changes?since={since}&limit=1000")
            found += page["Changes"]
            since, done = page["Last"], page["Done"]
        return [change for change in found if change_type in (None, change["ChangeType"])]

    def find(self, level: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
        """The expanded resources of a level (Study, Series, Instance) that match DICOM keywords."""
        answer: list[dict[str, Any]] = self.rest("/tools/find", {"Level": level, "Query": dict(query), "Expand": True})
        return answer

    def log(self) -> str:
        """What Orthanc has written so far."""
        return (self.folder / "orthanc.log").read_text(errors="replace")

    def _answers(self) -> bool:
        try:
            self.rest("/system")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return True

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http_port}{path}"

    def _configuration(self) -> dict[str, Any]:
        return {
            "Name": self.ae_title,
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "index"),
            "DicomAet": self.ae_title,
            "DicomPort": self.dicom_port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "DicomCheckCalledAet": True,
            "DicomModalities": self._modalities,
            "LuaScripts": self._lua_scripts,
            "Plugins": self._plugins,
            "StableAge": 2,
        }
