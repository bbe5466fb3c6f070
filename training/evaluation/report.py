"""The evaluation's report: one HTML file that needs nothing beside it, runs no script and asks no other machine."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Final

from jinja2 import Environment, StrictUndefined

from training.evaluation.figures import Picture
from training.evaluation.tables import NAMES, RESEARCH_ONLY, Table
from twin_scanner.errors import Transient
from twin_scanner.files.durable_file import write_durably

PHANTOMS_WARNING: Final = (
    "The model has seen phantoms only, drawn by a program, and no patient: what it makes of a real CT shows that the "
    "software runs, not what the method can do."
)
TEMPLATE: Final = "report.html.j2"


@dataclass(frozen=True)
class ReportContent:
    """What a report says, all of it text to be shown as it is.

    ``facts`` are labels with values; ``figures`` are of all studies together, ``studies`` the pictures of single ones
    by name; ``refused`` are studies that could not be judged, each with the reason; ``definitions`` explain metrics by
    their names in the table; ``phantoms_only`` says in words that the model was trained on phantoms alone.
    """

    title: str
    facts: Sequence[tuple[str, str]] = ()
    notices: Sequence[str] = ()
    summary: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Picture] = ()
    studies: Mapping[str, Sequence[Picture]] = field(default_factory=dict)
    refused: Sequence[tuple[str, str]] = ()
    definitions: Mapping[str, str] = field(default_factory=dict)
    phantoms_only: bool = False


def write_report(content: ReportContent, path: Path) -> None:
    """Write the report, whole or not at all; the same content gives the same bytes.

    A name that is no Unicode (of a file on Linux) is shown with its bytes escaped. Raises Transient where the disk
    fails.
    """
    page = _page(content).encode("utf-8", errors="backslashreplace")
    try:
        write_durably(path, page)
    except OSError as error:
        raise Transient(f"{path.name} cannot be written to {path.parent}: check free space and rights.") from error


def _page(content: ReportContent) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    environment.filters |= {"base64": _base64, "unbroken": _unbroken}
    source = resources.files("training.evaluation").joinpath(TEMPLATE).read_text("utf-8")
    sections = (
        ("Notices", content.notices),
        ("Summary", content.summary),
        ("What was evaluated", content.facts),
        ("Tables", content.tables),
        ("Figures", content.figures),
        ("Studies", content.studies),
        ("Studies left out", content.refused),
        ("Definitions", content.definitions),
    )
    return environment.from_string(source).render(
        content=content, sections=sections, names=NAMES, warning=RESEARCH_ONLY, phantoms_warning=PHANTOMS_WARNING
    )


def _base64(image: bytes) -> str:
    return base64.b64encode(image).decode("ascii")


def _unbroken(cell: str) -> str:
    """Spaces that no line ends at: a number stays with its sign and its n."""
    for part in (" / ", " ± ", "SE ", ", n ", " to ", "< "):
        cell = cell.replace(part, part[0].replace(" ", "\u00a0") + part[1:-1] + "\u00a0")
    return cell
