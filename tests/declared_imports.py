"""Which imports no declared dependency brings: what an extra or a hand installed hides them until a fresh machine."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

ROOMS = ("twin_scanner", "training", "dicom_node", "fhir", "tests", "benchmarks")
OURS = {"twin_scanner", "training", "dicom_node", "twin_record", "tests", "benchmarks"}
BEHIND_AN_EXTRA = {
    "axe_playwright_python",
    "dask",
    "distributed",
    "nnunetv2",
    "playwright",
    "psutil",
    "schemathesis",
    "sekmet",
    "totalsegmentator",
    "uvicorn",
}
"""Only ever imported where what brings them was installed beside ours, and nowhere but in these files."""
FILES_BEHIND_AN_EXTRA = {
    "test_in_browser.py",
    "test_any_request.py",
    "moose_process.py",
    "totalsegmentator_process.py",
    "nnunet_folder.py",
    "dask_cluster.py",
    "dask_worker.py",
    "dask_processes.py",
    "dask.py",
    "sekmet_process.py",
}


def undeclared(root: Path) -> list[str]:
    """Every import below ``root`` that neither the dependencies nor the extra `dev` of its pyproject.toml bring."""
    known, brought_by = _brought(root / "pyproject.toml"), _distributions()
    faults = []
    for path in sorted(file for room in ROOMS for file in (root / room).rglob("*.py")):
        for line, module in _imported(path):
            if module in sys.stdlib_module_names or module in OURS:
                continue
            if module in BEHIND_AN_EXTRA and path.name in FILES_BEHIND_AN_EXTRA:
                continue
            if not {_plain(name) for name in brought_by.get(module, [])} & known:
                where = f"{path.relative_to(root).as_posix()}:{line}"
                faults.append(f"{where}: no declared dependency brings {module}: add its package to pyproject.toml")
    return faults


@cache
def _distributions() -> Mapping[str, list[str]]:
    """What brings each importable package of this environment; reading all its metadata takes a second."""
    return packages_distributions()


def _brought(pyproject: Path) -> set[str]:
    """The names of all distributions that `make setup` installs, by the metadata of those that are here."""
    project = tomllib.loads(pyproject.read_text("utf-8"))["project"]
    waiting = [_plain(text) for text in (*project["dependencies"], *project["optional-dependencies"]["dev"])]
    known: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in known:
            continue
        known.add(name)
        try:
            found = requires(name) or []
        except PackageNotFoundError:
            continue
        waiting += [_plain(text) for text in found if "extra ==" not in text]
    return known


def _imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every import of a file, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.partition(".")[0]


def _plain(requirement: str) -> str:
    """A distribution's normalised name (PEP 503) of a requirement."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()
