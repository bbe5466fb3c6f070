"""A plugin for two runs over the same tests: the second leaves out what the first has shown already.

With `-p tests.second_run --shown=FILE` a run notes in the file which tests passed; a later run with the same file
leaves those out. (Without the equals sign, pytest takes a file that exists for a test and its folder for the root.) A
test is left out only if its whole name stands there: without the file, with an empty one and for a test that was
skipped, failed, renamed or never begun, it runs. What may behave differently once an optional extra is installed
always runs: all that is marked `system`, and each test file that names an extra which `dev` does not bring.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

PHASES = {"setup", "call", "teardown"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shown", type=Path, required=True, help="the file of the tests that have passed")


def pytest_configure(config: pytest.Config) -> None:
    if not (config.rootpath / "pyproject.toml").is_file():
        raise pytest.UsageError(f"{config.rootpath} is not the project: write --shown=FILE, with the equals sign.")
    config.pluginmanager.register(SecondRun(config), "what was shown")


class SecondRun:
    """What passed before and what passes now."""

    def __init__(self, config: pytest.Config) -> None:
        self._file: Path = config.getoption("--shown")
        self._project = config.rootpath
        self._is_xdist_worker = hasattr(config, "workerinput")
        self._before = set(self._file.read_text("utf-8").splitlines()) if self._file.is_file() else set()
        self._passed: dict[str, set[str]] = {}

    def pytest_report_header(self) -> str:
        return f"shown already, by {self._file}: {len(self._before)} tests"

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        extras = names_of_extras(self._project)
        repeats = {path for path in {item.path for item in items} if names_one(path, extras)}
        left_out = [item for item in items if item.nodeid in self._before and not _always(item, repeats)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.nodeid not in self._before or _always(item, repeats)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.passed and not hasattr(report, "wasxfail"):
            self._passed.setdefault(report.nodeid, set()).add(report.when)

    def pytest_sessionfinish(self) -> None:
        """Only now, so that every worker of the run reads the same file."""
        if not self._is_xdist_worker:
            whole = {name for name, phases in self._passed.items() if phases == PHASES}
            self._file.write_text("".join(f"{name}\n" for name in sorted(self._before | whole)), "utf-8")


def _always(item: pytest.Item, repeats: set[Path]) -> bool:
    return item.path in repeats or item.get_closest_marker("system") is not None


def names_of_extras(project: Path) -> set[str]:
    """The extras that `dev` does not bring, and their packages, in small letters."""
    extras: dict[str, Any] = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    optional: dict[str, list[str]] = dict(extras.get("optional-dependencies", {}))
    of_dev = set(map(_package, optional.pop("dev", [])))
    names = {extra: set(map(_package, needed)) for extra, needed in optional.items()}
    return {name for extra, needed in names.items() if not needed <= of_dev for name in {extra, *needed}}


def _package(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()


def names_one(path: Path, extras: set[str]) -> bool:
    """Whether the file's text names an extra."""
    text = path.read_text("utf-8").lower()
    return any(extra in text for extra in extras)
