"""The import contract holds, and each of its gates fails when a forbidden import is written."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOMS = ("twin_scanner", "training", "dicom_node", "fhir")
BETWEEN_ROOMS = "Imports point down between rooms"
VIOLATIONS = {
    "the direction between rooms": (
        "twin_scanner/imaging/volume.py",
        "import twin_scanner.synthesis.pipeline",
        "Imports point down between",
    ),
    "the siblings' independence": ("dicom_node/spool.py", "import twin_record.update", BETWEEN_ROOMS),
    "the direction inside training": (
        "training/data/pairs.py",
        "import training.fit.config",
        "Imports point down inside training",
    ),
    "the direction inside dicom": (
        "twin_scanner/dicom/read/ct_series.py",
        "import twin_scanner.dicom.write.companions",
        "Imports point down inside dicom",
    ),
    "the direction inside the twin record": (
        "fhir/twin_record/search.py",
        "import twin_record.transaction",
        "Imports point down inside the twin record",
    ),
    "no torch in the node": ("dicom_node/listener.py", "import torch", "No torch"),
    "no torch in the ledger": (
        "twin_scanner/service/ledger/ledger.py",
        "import twin_scanner.models.networks",
        "No torch",
    ),
    "no torch in a model's card": ("twin_scanner/models/card.py", "import torch", "No torch"),
    "no torch in the model store": (
        "twin_scanner/models/store.py",
        "def _load() -> None:\n    import twin_scanner.models.package",
        "No torch",
    ),
    "no torch in a render's report": ("twin_scanner/render/report.py", "import twin_scanner.render.render", "No torch"),
    "pynetdicom in its one home": ("twin_scanner/dicom/equipment.py", "import pynetdicom", "pynetdicom lives only"),
    "settings for app and what stands above it": (
        "twin_scanner/service/worker.py",
        "import twin_scanner.settings",
        BETWEEN_ROOMS,
    ),
    "preconditions without the settings": (
        "twin_scanner/preconditions.py",
        "import twin_scanner.settings",
        BETWEEN_ROOMS,
    ),
    "preconditions above the service": (
        "twin_scanner/service/steps.py",
        "import twin_scanner.preconditions",
        BETWEEN_ROOMS,
    ),
    "preconditions below the wiring": ("twin_scanner/preconditions.py", "import twin_scanner.app", BETWEEN_ROOMS),
    "networks without files": ("twin_scanner/models/networks.py", "import pydicom", "networks and losses"),
}


@pytest.fixture
def copy(project: Path, tmp_path: Path) -> Path:
    """A copy of the tree in which an import may be written."""
    for room in ROOMS:
        shutil.copytree(project / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copy(project / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the tree in ``folder``, not on the installed one."""
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{folder / 'fhir'}"}
    program = Path(sys.executable).with_name("lint-imports")
    command = [str(program), "--no-cache"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_every_room_of_the_product_stands_in_a_layer(project: Path) -> None:
    """A room that no layer names may import whatever it likes."""
    contracts = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["name"] == BETWEEN_ROOMS)
    named = {word.strip("()") for layer in layers for word in layer.split(" | ")}
    modules = {path.stem for path in (project / "twin_scanner").glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in (project / "twin_scanner").glob("*/__init__.py")}
    assert {f"twin_scanner.{room}" for room in modules | packages} <= named


def test_the_contract_holds(copy: Path) -> None:
    run = lint(copy)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("case", VIOLATIONS)
def test_the_gate_is_seen_failing(copy: Path, case: str) -> None:
    file, statement, contract = VIOLATIONS[case]
    path = copy / file
    path.write_text(path.read_text("utf-8") + f"\n{statement}\n", "utf-8")
    run = lint(copy)
    assert run.returncode == 1, run.stdout
    broken = [line for line in run.stdout.splitlines() if line.rstrip().endswith("BROKEN")]
    assert any(contract in line for line in broken), run.stdout


@pytest.mark.parametrize("module", ["twin_scanner.app", "twin_scanner.cli.serve", "twin_scanner.doctor.examine"])
def test_the_process_of_the_service_never_imports_torch(module: str) -> None:
    """Oracle: Python's own table of what a fresh process has imported; import-linter cannot see past a callable."""
    program = f"import sys, {module}; print(sorted({{'torch', 'monai'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout.strip()) == (0, "[]"), run.stderr
