"""Installed as a wheel and as an editable checkout, from the root and from elsewhere: both FHIR names import."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

PROBE = (
    "import fhir, fhir.resources.R4B.patient, twin_record, twin_scanner, training, dicom_node;"
    "print(fhir.__file__); print(twin_record.__file__)"
)
ROOMS = ("twin_scanner", "training", "dicom_node", "fhir")


@pytest.fixture(scope="module")
def wheel(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that nothing is left in the tree."""
    source = tmp_path_factory.mktemp("source")
    for room in ROOMS:
        shutil.copytree(project / room, source / room, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(project / name, source / name)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(source / "dist"),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def wheel_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the wheel, and this environment's other packages behind it."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(command, check=True, timeout=200)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def places(python: Path, folder: Path) -> tuple[Path, Path]:
    """Where ``fhir`` and ``twin_record`` come from when Python is started in ``folder``."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    run = subprocess.run(
        [python, "-c", PROBE], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    library, ours = run.stdout.split()
    return Path(library), Path(ours)


@pytest.mark.parametrize("where", ["root", "elsewhere"])
def test_the_editable_install_has_both_names(project: Path, tmp_path: Path, where: str) -> None:
    library, ours = places(Path(sys.executable), project if where == "root" else tmp_path)
    assert "site-packages" in library.parts
    assert ours == project / "fhir" / "twin_record" / "__init__.py"


@pytest.mark.parametrize("where", ["root", "elsewhere"])
def test_the_wheel_has_both_names(project: Path, wheel_python: Path, tmp_path: Path, where: str) -> None:
    library, ours = places(wheel_python, project / "fhir" if where == "root" else tmp_path)
    assert "site-packages" in library.parts
    assert ours.name == "__init__.py"


def test_the_wheel_holds_the_demonstration_model_and_the_migrations_but_no_fhir_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.startswith("fhir/")]
    assert "twin_record/__init__.py" in names
    assert [name for name in names if name.startswith("twin_scanner/demonstration/") and name.endswith(".safetensors")]
    assert "twin_scanner/demonstration/card.json" in names
    assert [name for name in names if name.startswith("twin_scanner/service/ledger/migrations/versions/v0001")]


def test_the_node_runs_without_torch(tmp_path: Path) -> None:
    """The receiver's process must not need the memory of a framework that it never calls."""
    probe = "import sys, twin_scanner.app; print('torch' in sys.modules, 'monai' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.stdout.split() == ["False", "False"], run.stderr
