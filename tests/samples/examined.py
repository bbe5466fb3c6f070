"""A scanner to examine: its settings, where everything around it is missing, and the finding of one name."""

from pathlib import Path
from typing import Any

from twin_scanner.doctor import Finding
from twin_scanner.settings import Settings


def examined_settings(folder: Path, closed_port: int, **sections: dict[str, Any]) -> Settings:
    """A scanner in ``folder`` whose PACS is not there, unless a section says otherwise."""
    values: dict[str, dict[str, Any]] = {
        "node": {"port": 0, "minimum_free_mb": 0},
        "pacs": {"port": closed_port, "timeout_s": 5.0},
        "storage": {"folder": folder / "data"},
    }
    if sections.get("twin", {}).get("url"):
        values["twin"] = {"patient_identifier_system": "urn:oid:2.999.1"}
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return Settings.model_validate(values)


def found(findings: list[Finding], name: str) -> Finding:
    """The one finding of this name."""
    (one,) = [finding for finding in findings if finding.name == name]
    return one
