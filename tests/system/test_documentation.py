"""Every documented command exists with its options, every command has help, and what the texts promise stands there."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from training.fit.config import read_config
from twin_scanner.cli import cli

pytestmark = pytest.mark.unit

PAGES = (
    "README.md",
    "deploy/README.md",
    "docs/index.md",
    "docs/intended-use.md",
    "docs/segmenters.md",
    "docs/tour/engineer.md",
    "docs/tour/platform.md",
)
NAMES_OF_THE_DESIGN = {
    "audit show",
    "audit verify",
    "console",
    "users add",
    "users list",
    "users remove",
    "demo",
    "doctor",
    "serve",
    "status",
    "support-bundle",
    "translate",
    "segment",
    "phantom",
    "prepare",
    "pull",
    "train",
    "retrain",
    "backup",
    "restore",
    "evaluate",
    "models list",
    "models show",
    "models promote",
    "models rollback",
    "models import",
    "models export",
    "jobs list",
    "jobs show",
    "jobs retry",
    "jobs release",
    "jobs resend",
    "ledger migrate",
    "twin show",
    "twin sync",
    "twin check",
    "twin erase",
    "twin export",
    "twin import",
}


def commands(group: Any, prefix: str = "") -> dict[str, Any]:
    """Every leaf command by its full name."""
    if not hasattr(group, "commands"):
        return {prefix.strip(): group}
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        found |= commands(command, f"{prefix} {name}")
    return found


def documented_lines(project: Path) -> list[str]:
    """Every twin-scanner line of a page's blocks and of a training configuration's head, continued ones joined."""
    pages = [project / "README.md", project / "deploy" / "README.md", *sorted((project / "docs").rglob("*.md"))]
    blocks = [b for page in pages for b in re.findall(r"```(?:sh|text)\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    for config in sorted((project / "training" / "configs").glob("*.toml")):
        head = config.read_text("utf-8").split("\n\n")[0]
        blocks.append("\n".join(line.removeprefix("#").strip() for line in head.splitlines()))
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if re.match(r"(\.venv/bin/)?twin-scanner ", line)]


def test_the_commands_have_the_names_of_the_design() -> None:
    assert commands(typer.main.get_command(cli)).keys() == NAMES_OF_THE_DESIGN


@pytest.mark.parametrize("name", sorted(NAMES_OF_THE_DESIGN))
def test_every_command_and_option_has_help(name: str) -> None:
    command = commands(typer.main.get_command(cli))[name]
    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name}"


def test_every_documented_command_line_is_understood(project: Path) -> None:
    known = commands(typer.main.get_command(cli))
    lines = documented_lines(project)
    assert len(lines) >= 30
    for line in lines:
        words = shlex.split(line.replace("$world", "appearance-only"))[1:]
        name = max((n for n in known if words[: len(n.split())] == n.split()), key=len)
        known[name].make_context(name, words[len(name.split()) :], resilient_parsing=False)


def test_what_a_configuration_says_to_prepare_is_what_it_reads(project: Path) -> None:
    """The store, the split, and the air that a whole-volume network learns."""
    for path in sorted((project / "training" / "configs").glob("autopet-*.toml")):
        config = read_config(path)
        (line,) = re.findall(r"^#   (twin-scanner prepare .*)$", path.read_text("utf-8"), re.MULTILINE)
        words = shlex.split(line)
        given = {option: words[words.index(option) + 1] for option in ("--out", "--split")}
        assert (Path(given["--out"]), Path(given["--split"])) == (config.data.folder, config.data.split), path.name
        assert ("--keep-air" in words) == config.covered.whole_volume, path.name


def test_the_texts_say_that_it_is_research_and_not_for_diagnosis(project: Path) -> None:
    for page in PAGES:
        text = (project / page).read_text("utf-8").lower()
        assert "research" in text
        assert "not for diagnosis" in text


def test_every_linked_file_is_there(project: Path) -> None:
    for page in PAGES:
        folder = (project / page).parent
        for target in re.findall(r"\]\(([^)#:]+)\)", (project / page).read_text("utf-8")):
            assert (folder / target).exists(), f"{page} links to {target}"


def test_no_committed_text_names_a_path_of_a_machine(project: Path) -> None:
    pages = list(project.glob("*.md")) + list((project / "docs").rglob("*.md")) + list((project / "deploy").rglob("*"))
    for page in pages:
        if page.is_file():
            assert not re.search(r"/(home|root|work)/", page.read_text("utf-8")), page
