"""The folder fhir/ is a plain source root: the import name `fhir` belongs to the library fhir.resources."""

import subprocess
import sys
from pathlib import Path

import fhir.resources
import pytest

import fhir
import twin_record

pytestmark = pytest.mark.unit


def test_the_name_fhir_is_the_librarys() -> None:
    assert fhir.__file__ is not None
    assert "site-packages" in fhir.__file__
    assert fhir.resources.__file__ is not None
    assert "site-packages" in fhir.resources.__file__


def test_our_package_is_importable_by_its_own_name(project: Path) -> None:
    assert twin_record.__file__ is not None
    ours = Path(twin_record.__file__)
    assert ours.parent in (project / "fhir" / "twin_record", Path(fhir.__file__ or "").parent.parent / "twin_record")


@pytest.mark.parametrize("pattern", ["__init__.py", "**/test_*.py", "**/*_test.py", "**/conftest.py"])
def test_nothing_in_the_folder_takes_the_name_from_the_library(project: Path, pattern: str) -> None:
    """A test or conftest there makes pytest invent a package `fhir`; an __init__.py makes Python believe in one."""
    assert list((project / "fhir").glob(pattern)) == []


def test_the_folder_holds_nothing_but_our_package(project: Path) -> None:
    found = {path.name for path in (project / "fhir").iterdir()} - {"__pycache__", "twin_scanner.egg-info"}
    assert found == {"twin_record"}


def test_the_name_stays_the_librarys_from_the_repository_root(project: Path) -> None:
    code = "import fhir, fhir.resources.R4B.patient, twin_record; print(fhir.__file__)"
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60, check=True)
    assert "site-packages" in answer.stdout


def test_the_record_imports_neither_torch_nor_what_sends_or_writes_dicom(project: Path) -> None:
    """Of DICOM it knows pydicom's dictionary of codes alone, which the measurement report is written with too."""
    code = (
        "import sys, twin_record.remote, twin_record.embedded;"
        "print(*(n for n in ('torch', 'monai', 'highdicom', 'pynetdicom', 'SimpleITK') if n in sys.modules))"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.split() == []
