"""The configuration: the example documents every key with its default, and every fault is told at once."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from twin_scanner.errors import Rejected
from twin_scanner.settings import Settings, load_settings

pytestmark = pytest.mark.unit


def keys_of_settings() -> dict[str, object]:
    """Each section.key and its default."""
    sections = {name: field.default for name, field in Settings.model_fields.items()}
    return {
        f"{section}.{key}": value
        for section, model in sections.items()
        if isinstance(model, BaseModel)
        for key, value in model.model_dump(mode="json").items()
    }


def test_the_example_names_every_key_with_its_default_and_no_other(project: Path) -> None:
    text = (project / "deploy" / "twin-scanner.example.toml").read_text("utf-8")
    uncommented = re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE)
    documented = {
        f"{section}.{key}": value for section, keys in tomllib.loads(uncommented).items() for key, value in keys.items()
    }
    optional = {key for key, value in keys_of_settings().items() if value is None}
    assert documented.keys() == keys_of_settings().keys()
    assert {k: v for k, v in documented.items() if k not in optional} == {
        k: v for k, v in keys_of_settings().items() if k not in optional
    }
    commented = set(re.findall(r"^# ([a-z_]+) = ", text, flags=re.MULTILINE))
    assert commented == {key.split(".")[1] for key in optional}


def test_every_key_of_the_example_is_explained(project: Path) -> None:
    lines = (project / "deploy" / "twin-scanner.example.toml").read_text("utf-8").splitlines()
    bare = [line for line in lines if re.match(r"^(# )?[a-z_]+ = ", line) and "#" not in line.removeprefix("# ")]
    assert bare == []


def test_the_example_loads(project: Path) -> None:
    assert load_settings(project / "deploy" / "twin-scanner.example.toml") == load_settings(None)


def test_all_faults_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(
        '[node]\nport = 99999\nprot = 1\n[pacs]\nae_title = "LONGER THAN SIXTEEN"\n[twin]\nzone = "Mars/Base"\n'
    )
    monkeypatch.setenv("TWIN_SCANNER__NOED__PORT", "1")
    with pytest.raises(Rejected) as caught:
        load_settings(file)
    text = str(caught.value)
    for part in ("node.port", "node.prot", "pacs.ae_title", "twin.zone", "TWIN_SCANNER__NOED__PORT"):
        assert part in text


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "some.toml"
    file.write_text('[node]\nport = 4000\nae_title = "FROMFILE"\n')
    monkeypatch.setenv("TWIN_SCANNER__NODE__PORT", "4001")
    node = load_settings(file).node
    assert (node.port, node.ae_title) == (4001, "FROMFILE")


@pytest.mark.parametrize("text", ["node = [", "\xff"])
def test_what_is_no_toml_is_one_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(Rejected, match="is not valid TOML"):
        load_settings(file)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="cannot be read: No such file"):
        load_settings(tmp_path / "none.toml")
