"""The verbs on the local users of the console."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twin_scanner.cli.options import AsJson, ConfigFile, opened_ledger
from twin_scanner.cli.output import print_table
from twin_scanner.cli.work_table import short
from twin_scanner.errors import Rejected

if TYPE_CHECKING:
    from twin_scanner.console.access.roles import Role

users_cli = typer.Typer(help="Say who may log in to the console by a password.", no_args_is_help=True)
UserName = Annotated[str, typer.Argument(metavar="NAME", help="The name that the user logs in by.")]


@users_cli.command("add")
def users_add(
    name: UserName,
    role: Annotated[str, typer.Option("--role", help="What the user may do: viewer, operator or admin.")],
    password_file: Annotated[
        Path | None,
        typer.Option("--password-file", dir_okay=False, help="Read the password from this file; default: ask for it."),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Add a user; the password is asked for twice, or read from a file."""
    from twin_scanner.console.access.login import USER_NAME
    from twin_scanner.console.access.passwords import Passwords

    if USER_NAME.fullmatch(name) is None:
        raise typer.BadParameter(
            "a name has 1 to 64 letters, digits, dots, hyphens, underscores and @", param_hint="NAME"
        )
    wanted = _role(role)
    with opened_ledger(config) as ledger:
        if ledger.users.find(name) is not None:
            raise Rejected(f"There is a user '{name}' already: remove it before, to give it another role or password.")
        ledger.users.add(name, wanted.value, Passwords().hash(_password(password_file), name))
    print(f"{name} {wanted}")


@users_cli.command("list")
def users_list(config: ConfigFile = None, print_json: AsJson = False) -> None:
    """List the users and their roles."""
    with opened_ledger(config) as ledger:
        accounts = ledger.users.all()
    if print_json:
        shown = [
            {"name": account.name, "role": account.role, "created_at": account.created_at.isoformat()}
            for account in accounts
        ]
        print(json.dumps(shown, indent=1))
    else:
        print_table(["name", "role", "since"], [[user.name, user.role, short(user.created_at)] for user in accounts])


@users_cli.command("remove")
def users_remove(name: UserName, config: ConfigFile = None) -> None:
    """Remove a user and end what sessions it has."""
    with opened_ledger(config) as ledger:
        ledger.users.remove(name)
    print(f"{name} removed")


def _role(text: str) -> "Role":
    from twin_scanner.console.access.roles import Role

    if text not in tuple(Role):
        raise typer.BadParameter(f"choose one of {', '.join(Role)}", param_hint="--role")
    return Role(text)


def _password(file: Path | None) -> str:
    """The file's first line, or what a person types; never an argument, which every process here could read."""
    if file is not None:
        try:
            return (file.read_text("utf-8").splitlines() or [""])[0]
        except (OSError, UnicodeDecodeError) as error:
            raise Rejected(f"The password file {file} cannot be read: {type(error).__name__}.") from error
    if not sys.stdin.isatty():
        raise Rejected("There is no terminal to ask for the password: give --password-file.")
    password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return password
