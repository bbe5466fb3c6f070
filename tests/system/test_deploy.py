"""deploy/ by reading: what it promises of other files is so; test_debian_root.py runs what can be run."""

import re
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit


def test_no_pin_names_a_build_that_only_one_index_has(project: Path) -> None:
    """PEP 440: `==2.13.0` takes 2.13.0 and 2.13.0+cpu alike, `==2.13.0+cpu` that one build alone."""
    pins = (project / "constraints.txt").read_text("utf-8").splitlines()
    assert [pin for pin in pins if "+" in pin] == []


def test_the_image_is_built_from_everything_that_the_wheel_holds(project: Path) -> None:
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (project / "deploy/Containerfile").read_text("utf-8"), re.MULTILINE
    )
    names = {name for line in copied for name in line.split()}
    built = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    packages = built["tool"]["setuptools"]["packages"]["find"]["include"]
    roots = {"fhir" if name == "twin_record*" else name.removesuffix("*") for name in packages}
    assert roots | {"pyproject.toml", built["project"]["readme"], *built["project"]["license-files"]} <= names
    assert not {name for name in names if not (project / name).exists()}


@pytest.mark.parametrize("name", ["deploy/README.md", "deploy/Containerfile", "deploy/twin-scanner.service"])
def test_the_ways_of_deploying_agree_where_things_lie(project: Path, name: str) -> None:
    text = (project / name).read_text("utf-8")
    assert "/etc/twin-scanner/twin-scanner.toml" in text
    assert "/var/lib/twin-scanner" in text
