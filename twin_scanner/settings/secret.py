"""Secrets: each is the content of a file of its own, never a value of the configuration."""

from pathlib import Path

from twin_scanner.errors import Misconfigured


def read_secret(file: Path) -> str:
    """A secret from a file, without the line end; raises Misconfigured where it cannot be read or is empty."""
    try:
        secret = file.read_text("utf-8").strip()
    except OSError as error:
        raise Misconfigured(f"The secret file {file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise Misconfigured(f"The secret file {file} is not text: put the token into it, in UTF-8.") from error
    if not secret:
        raise Misconfigured(f"The secret file {file} is empty: put the token into it.")
    return secret
