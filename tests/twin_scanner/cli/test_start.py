"""What a verb loads before it works: the help and the lists answer without the libraries of the science."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

HEAVY = {"torch", "monai", "scipy", "matplotlib", "pandas", "highdicom", "SimpleITK", "pynetdicom", "fhir", "alembic"}
PROGRAM = """
import sys
from twin_scanner.cli import main
try:
    main()
finally:
    print("\\nloaded", *sorted({name.split(".")[0] for name in sys.modules}))
"""


def loaded_by(folder: Path, *words: str) -> set[str]:
    """The top-level packages that a process has loaded when the verb ends."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "words", [("--help",), ("translate", "--help"), ("jobs", "--help"), ("jobs", "list"), ("--version",)]
)
def test_help_and_lists_load_no_library_of_the_science(tmp_path: Path, words: tuple[str, ...]) -> None:
    loaded = loaded_by(tmp_path, *words)
    assert "twin_scanner" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("words", [("-h",), ("jobs", "-h"), ("jobs", "list", "-h"), ("translate", "-h")])
def test_h_is_help_everywhere(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twin_scanner.cli", *words], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: " in done.stdout


def test_the_version_is_the_installed_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twin_scanner.cli", "--version"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"twin-scanner {version('twin-scanner')}\n")
