"""What support is given: enough to see what is wrong, and nothing of a patient, no secret and no address.

What is taken is listed, not what is left out. Of the configuration: the keys with their numbers, switches and choices,
and of any other text whether it is set. Of a line of the log: level, logger, step and error class, not its sentence. Of
a finding: name and state. Host names and AE titles are left out too: with the name of a hospital, the moment of an
event may point at a patient.
"""

import json
import platform
import zipfile
from collections import deque
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel

from twin_scanner.app import open_ledger
from twin_scanner.doctor.examine import examine
from twin_scanner.errors import Rejected
from twin_scanner.files.durable_file import writing
from twin_scanner.service.ledger import migration_state
from twin_scanner.settings import Settings

LOG_LINES: Final = 2000
EVENTS: Final = 5000
OF_A_LINE: Final = ("time", "level", "logger", "step", "state", "error", "where", "count")
"""Fields of our JSON log lines whose values are ours (``logs.FACTS`` without UIDs, AE titles and sentences)."""
OF_AN_EVENT: Final = ("seconds", "error", "attempts", "count", "kept", "exit_code")
"""Details of an event whose values are numbers or names of ours; destinations are numbered."""
LARGEST_VALUE: Final = 200
SET, UNSET = "(set)", "(empty)"


def write_bundle(out: Path, settings: Settings, log: Path | None) -> list[str]:
    """Write the bundle and return its files' names. Raises Rejected where ``out`` is there, Transient for disks."""
    if out.exists():
        raise Rejected(f"{out} is there already: give a new file.")
    contents: dict[str, Any] = {
        "versions.json": versions(),
        "configuration.json": configuration_of(settings),
        "findings.json": [{"name": _kind_of(one.name), "state": one.state} for one in examine(settings)],
        **_ledger(settings),
    }
    if log is not None:
        contents["log.json"] = log_lines(log)
    with writing(out.name, out.parent), zipfile.ZipFile(out, "x", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in contents.items():
            bundle.writestr(name, json.dumps(content, indent=1, default=str))
    return list(contents)


def versions() -> dict[str, Any]:
    """Of this program, Python, the system and all that is installed."""
    packages = sorted({f"{one.metadata['Name']}=={one.version}" for one in distributions()})
    return {
        "twin-scanner": version("twin-scanner"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": packages,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def configuration_of(settings: Settings) -> dict[str, Any]:
    """Every key: numbers, switches and choices as they are, of any other text whether it is set."""
    return {name: _shown(getattr(settings, name), field.annotation) for name, field in Settings.model_fields.items()}


def _shown(value: Any, annotation: Any) -> Any:
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {name: _shown(getattr(value, name), field.annotation) for name, field in fields.items()}
    if isinstance(value, tuple | list | frozenset | set):
        return [_shown(item, None) for item in value]
    if isinstance(value, Mapping):
        return {"entries": len(value)}
    if value is None or isinstance(value, bool | int | float):
        return value
    if get_origin(annotation) is Literal and value in get_args(annotation):
        return value
    return SET if str(value) else UNSET


def log_lines(file: Path) -> list[dict[str, Any]]:
    """The last lines of a log of JSON lines, of each what is ours; a line that is none is left out."""
    with file.open(encoding="utf-8", errors="replace") as stream:
        tail = deque(stream, LOG_LINES)
    found = []
    for line in tail:
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict):
            found.append({key: _short(values[key]) for key in OF_A_LINE if key in values})
    return found


def _ledger(settings: Settings) -> dict[str, Any]:
    """Counts, and the newest events; empty where there is no ledger of this version."""
    state = migration_state(settings.ledger_url)
    found: dict[str, Any] = {"migrations.json": None if state is None else {"at": state.found, "needs": state.wanted}}
    if state is None or state.found != state.wanted:
        return found
    with closing(open_ledger(settings)) as ledger:
        events = ledger.measures.latest_events(EVENTS)
        names = sorted({str(event.detail["destination"]) for event in events if "destination" in event.detail})
        numbers = {name: f"destination {number}" for number, name in enumerate(names, 1)}
        found["counts.json"] = {
            "jobs": ledger.measures.jobs(),
            "largest CT": ledger.measures.largest_ct(),
            "held": [[kind, count] for (kind, _), count in ledger.measures.held().items()],
        }
        found["events.json"] = [
            {
                "at": event.at.isoformat(timespec="seconds"),
                "what": event.what,
                "of": event.of_table,
                "destination": numbers.get(str(event.detail.get("destination", "")), ""),
                **{key: event.detail[key] for key in OF_AN_EVENT if key in event.detail},
            }
            for event in events
        ]
    return found


def _kind_of(name: str) -> str:
    """A finding's name without that of a peer or a destination."""
    first = name.split()[0]
    return first if first in ("peer", "destination") else name


def _short(value: Any) -> Any:
    return value if isinstance(value, int | float) else str(value)[:LARGEST_VALUE]
