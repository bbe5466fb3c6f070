"""Every text of the help, walked through the tree of verbs: each is there, and is more than a fragment."""

from collections.abc import Iterator

import pytest
import typer.main

from twin_scanner.cli import cli

pytestmark = pytest.mark.unit

FEWEST_WORDS = 4
NO_BEGINNING = ("Of ", "Past ")


def texts() -> Iterator[tuple[str, str]]:
    """The name of every verb, group, option and argument, and its help text."""
    waiting = [("twin-scanner", typer.main.get_command(cli))]
    while waiting:
        name, command = waiting.pop()
        yield name, command.help or ""
        for parameter in command.params:
            if parameter.name != "help":
                yield f"{name} {parameter.name}", getattr(parameter, "help", None) or ""
        waiting += [(f"{name} {word}", found) for word, found in getattr(command, "commands", {}).items()]


ALL = sorted(texts())


def test_the_walk_reaches_verbs_options_and_arguments() -> None:
    names = {name for name, _ in ALL}
    assert {"twin-scanner", "twin-scanner jobs list state", "twin-scanner translate source"} <= names


@pytest.mark.parametrize(("name", "text"), ALL, ids=[name for name, _ in ALL])
def test_each_help_text_is_a_text(name: str, text: str) -> None:
    assert len(text.split()) >= FEWEST_WORDS, f"{name} has too few words: {text!r}"
    assert not text.startswith(NO_BEGINNING), f"{name}: {text!r}"
    assert text[0].isupper() and text.rstrip().endswith("."), f"{name} is no sentence: {text!r}"
