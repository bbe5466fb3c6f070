"""Nothing imports what only an extra, or somebody's hand, has installed."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from tests.declared_imports import BEHIND_AN_EXTRA, undeclared

pytestmark = pytest.mark.unit


def test_every_import_is_brought_by_a_declared_dependency(project: Path) -> None:
    assert undeclared(project) == []


def test_what_an_extra_brings_is_named_by_that_extra(project: Path) -> None:
    """psutil came with Dask's scheduler alone; sekmet is a test's peer in an environment of its own."""
    content = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    lists = [content["dependencies"], *content["optional-dependencies"].values()]
    packages = {re.split(r"[^\w.-]", requirement)[0].lower() for requirements in lists for requirement in requirements}
    named = {package.replace("-", "_") for package in packages}
    assert BEHIND_AN_EXTRA - named == {"sekmet"}


@pytest.mark.parametrize(
    "line", ["import skimage", "from sklearn.svm import SVC", "import nowhere.at_all", "import nnunetv2"]
)
def test_an_undeclared_import_is_found(project: Path, tmp_path: Path, line: str) -> None:
    """scikit-image was once imported by tests and a benchmark, and came only with nnU-Net, which CI installed first."""
    text = (project / "pyproject.toml").read_text("utf-8").replace('"scikit-image"', "").replace('"scikit-learn"', "")
    (tmp_path / "pyproject.toml").write_text(text.replace(",\n    ,", ","), "utf-8")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_new.py").write_text(f"{line}\n", "utf-8")
    (fault,) = undeclared(tmp_path)
    assert fault.startswith("tests/test_new.py:1: no declared dependency brings")
    shutil.rmtree(tmp_path / "tests")
    assert undeclared(tmp_path) == []
