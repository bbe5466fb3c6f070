"""The second run repeats what the first did not show, and nothing is lost where the note of the first is damaged."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.second_run import SecondRun, names_of_extras, names_one

pytestmark = pytest.mark.unit

PYPROJECT = """
[project.optional-dependencies]
segment = ["segmentnet>=2,<3"]
chart = ["chart[all]>=1"]
dev = ["pytest", "chart"]
[tool.pytest.ini_options]
markers = ["system: several real programs together"]
"""
TESTS = {
    "test_plain.py": (
        "import os, pytest\n"
        "def test_plain(): pass\n"
        "@pytest.mark.system\n"
        "def test_programs(): pass\n"
        "@pytest.mark.parametrize('peer', ['a b', 'c'])\n"
        "def test_peer(peer):\n"
        "    if not os.path.exists('peer'): pytest.skip('no peer')\n"
        "    assert open('peer').read() == 'well'\n"
        "@pytest.fixture\n"
        "def torn():\n"
        "    yield\n"
        "    assert os.path.exists('peer')\n"
        "def test_torn(torn): pass\n"
    ),
    "test_extra.py": "def test_behind_an_extra(): 'SegmentNet'\n",
}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    for name, text in TESTS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def run(suite: Path, project: Path, shown: Path) -> tuple[int, list[str]]:
    """The exit code and the tests that ran, sorted: by a worker of xdist, as in the gate."""
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "-p", "xdist", "-n", "1"]
    done = subprocess.run(
        [*command, "-p", "tests.second_run", f"--shown={shown}"],
        cwd=suite,
        env={"PYTHONPATH": str(project), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    ran = re.findall(r"^(?:PASSED|FAILED|ERROR) .+?::(.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return done.returncode, sorted(set(ran))


def test_the_second_run_repeats_what_did_not_pass_and_what_an_extra_may_change(
    suite: Path, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shown = tmp_path_factory.mktemp("of the gate") / "shown"  # Outside of the project, as in the gate.
    assert run(suite, project, shown) == (1, ["test_behind_an_extra", "test_plain", "test_programs", "test_torn"])
    assert shown.read_text().splitlines() == [
        "test_extra.py::test_behind_an_extra",
        "test_plain.py::test_plain",
        "test_plain.py::test_programs",
    ]
    (suite / "peer").write_text("ill")
    again = ["test_behind_an_extra", "test_peer[a b]", "test_peer[c]", "test_programs", "test_torn"]
    assert run(suite, project, shown) == (1, again), "a peer's failure fails the second run"


class Item(SimpleNamespace):
    """A collected test without any mark."""

    def get_closest_marker(self, name: str) -> None:
        return None


@pytest.mark.parametrize(("note", "left"), [(None, 2), ("", 2), ("t.py::test_o", 2), ("t.py::test_one\n", 1)])
def test_only_a_test_whose_whole_name_is_noted_is_left_out(tmp_path: Path, note: str | None, left: int) -> None:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "t.py").touch()
    if note is not None:
        (tmp_path / "shown").write_text(note)
    hook = SimpleNamespace(pytest_deselected=lambda items: None)
    config: Any = SimpleNamespace(getoption=lambda name: tmp_path / "shown", rootpath=tmp_path, hook=hook)
    items: Any = [Item(nodeid=f"t.py::test_{name}", path=tmp_path / "t.py") for name in ("one", "other")]
    SecondRun(config).pytest_collection_modifyitems(config, items)
    assert len(items) == left


def test_the_extras_that_dev_does_not_bring_are_found_by_their_names(suite: Path, project: Path) -> None:
    assert names_of_extras(suite) == {"segment", "segmentnet"}
    assert {"moose", "nnunetv2", "totalsegmentator"} <= names_of_extras(project)
    assert names_one(project / "tests/twin_scanner/doctor/test_segmenters.py", names_of_extras(project))
