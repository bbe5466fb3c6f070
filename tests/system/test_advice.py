"""What a message advises exists: every option and every configuration key that the product's sentences name."""

import ast
import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

from training.fit.config import TrainConfig
from training.retraining.retrain import RetrainConfig
from twin_scanner.cli.command_line import cli
from twin_scanner.settings import Settings

pytestmark = pytest.mark.unit

ROOMS = ("twin_scanner", "training", "dicom_node", "fhir")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
KEY = re.compile(r"(?<![\w./-])([a-z_]+)\.([a-z_]+)(?![\w/(])")
FILES = frozenset({"json", "toml", "py", "md", "html", "csv", "nii", "gz", "npz", "npy", "pt", "txt", "parquet", "png"})
OF_OTHERS = frozenset(
    {
        "training/exchange/monai_bundle.py",
        "training/exchange/monai_config.py",
        "twin_scanner/dask_worker.py",
        "twin_scanner/service/ledger/copying.py",
    }
)
"""They name the options of MONAI, of `dask worker`, which our preload adds to, and of PostgreSQL's programs."""


def sentences(path: Path) -> Iterator[tuple[int, str]]:
    """Every string of a file that is no docstring."""
    tree = ast.parse(path.read_text("utf-8"))
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node.lineno, node.value


def options() -> set[str]:
    """Of every command and sub-command, and what the terminal's helper adds."""
    found, left = {"--help"}, [typer.main.get_command(cli)]
    while left:
        command = left.pop()
        left += getattr(command, "commands", {}).values()
        for parameter in command.params:
            found |= {name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--")}
    return found


def keys() -> dict[str, set[str]]:
    """The keys of each section, of the service's configuration and of training's; one name may stand for two."""
    found: dict[str, set[str]] = {}
    for section, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found.setdefault(section, set()).update(field.annotation.model_fields)
    for config in (TrainConfig, RetrainConfig):
        for section, kind in typing.get_type_hints(config).items():
            if dataclasses.is_dataclass(kind):
                found.setdefault(section, set()).update(field.name for field in dataclasses.fields(kind))
    return found


def faults(path: Path, where: str, known_options: set[str], known_keys: dict[str, set[str]]) -> list[str]:
    wrong = []
    for line, sentence in sentences(path):
        named = {
            name for name in OPTION.findall(sentence) if where not in OF_OTHERS and name not in known_options
        }  # fmt: skip
        named |= {
            f"{section}.{key}"
            for section, key in KEY.findall(sentence)
            if section in known_keys and key not in known_keys[section] | FILES and " " in sentence
        }
        wrong += [f"{where}:{line} names {name}" for name in sorted(named)]
    return wrong


def test_no_message_advises_an_option_or_a_key_that_does_not_exist(project: Path) -> None:
    known_options, known_keys = options(), keys()
    assert "--dataset" in known_options and "minimum_patients" in known_keys["gate"]
    files = [path for room in ROOMS for path in sorted((project / room).rglob("*.py"))]
    found = [
        fault
        for path in files
        for fault in faults(path, path.relative_to(project).as_posix(), known_options, known_keys)
    ]
    assert found == []


def test_the_rule_finds_such_advice(tmp_path: Path) -> None:
    (tmp_path / "advice.py").write_text('"""--docstring."""\nSAID = "Give --nothing, or set gate.nonsense."\n')
    found = faults(tmp_path / "advice.py", "advice.py", options(), keys())
    assert found == ["advice.py:2 names --nothing", "advice.py:2 names gate.nonsense"]
