"""The site of docs/: it is built strictly, asks no other server for anything, and its pages are short."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import missing

pytestmark = pytest.mark.system

REQUESTS = re.compile(r"""(?:\bsrc=|<link[^>]*\bhref=|@import\s+|url\()["']?((?:https?:)?//[^"')>\s]+)""")
"""What a browser fetches by itself; a link that a reader follows is none."""
LONGEST_LINES = 120


@pytest.fixture(scope="module")
def site(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=250)
    assert built.returncode == 0, built.stderr
    return folder


def test_a_page_of_the_site_asks_no_other_server_for_anything(site: Path) -> None:
    pages = [path for path in site.rglob("*") if path.suffix in (".html", ".css")]
    assert len(pages) > 20
    found = {path.name: REQUESTS.findall(path.read_text("utf-8")) for path in pages}
    assert {name: urls for name, urls in found.items() if urls} == {}


def test_the_search_knows_the_words_of_the_pages(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    assert any("online backup" in entry["text"] for entry in index["docs"])


def test_the_first_page_leads_to_every_page_of_docs(project: Path) -> None:
    """Straight, or over one page between."""
    docs = project / "docs"

    def linked(page: Path) -> set[Path]:
        targets = re.findall(r"\]\(([^)#:]+\.md)", page.read_text("utf-8"))
        return {(page.parent / target).resolve() for target in targets}

    first = linked(docs / "index.md")
    reached = first.union(*(linked(page) for page in first))
    tours_of_others = set((docs / "tour").glob("*.md")) - reached
    assert {docs / "answers.md", docs / "backup.md", docs / "intended-use.md"} <= reached
    assert {docs / "tour" / "engineer.md", docs / "tour" / "platform.md"}.isdisjoint(tours_of_others)


@pytest.mark.parametrize(
    "page", ["answers", "backup", "encryption", "intended-use", "sizing", "tour/engineer", "tour/platform"]
)
def test_a_page_is_read_in_minutes(project: Path, page: str) -> None:
    lines = (project / "docs" / f"{page}.md").read_text("utf-8").splitlines()
    assert len(lines) <= LONGEST_LINES


def test_every_switched_off_finding_of_the_security_linter_is_explained(project: Path) -> None:
    lint = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]
    off = {rule for rule in lint["ignore"] if re.fullmatch(r"S\d+", rule)}
    for room in ("twin_scanner", "training", "dicom_node", "fhir", "deploy"):
        for path in (project / room).rglob("*.py"):
            for rules in re.findall(r"# noqa: ([A-Z0-9, ]+)", path.read_text("utf-8")):
                off |= set(re.findall(r"\bS\d{3}\b", rules))
    page = (project / "docs" / "decisions" / "security-lint.md").read_text("utf-8")
    assert set(re.findall(r"^\| (S\d{3})", page, re.MULTILINE)) == off


def test_the_bill_of_materials_names_the_program_and_what_it_stands_on(project: Path, tmp_path: Path) -> None:
    """The command of docs/bill-of-materials.md, for this environment."""
    program = shutil.which("cyclonedx-py", path=str(Path(sys.executable).parent))
    if program is None:
        missing("cyclonedx-py (pip install -e '.[gate]')")
    page = (project / "docs" / "bill-of-materials.md").read_text("utf-8")
    (line,) = re.findall(r"^cyclonedx-py (.*) /opt/twin-scanner/bin/python$", page, re.MULTILINE)
    words = line.split()
    done = subprocess.run(
        [str(program), *words, sys.executable],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    bill = json.loads((tmp_path / "twin-scanner.cdx.json").read_text("utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    names = {component["name"].lower() for component in bill["components"]}
    project_table = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    required = {re.split(r"[\[><=]", name)[0].lower() for name in project_table["dependencies"]}
    assert required | {"twin-scanner"} <= names | {name.replace("_", "-") for name in names}
