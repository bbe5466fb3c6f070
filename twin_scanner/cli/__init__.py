"""The command line, one file per noun or verb: `twin-scanner translate` is in translate.py, `jobs list` in jobs.py."""

from twin_scanner.cli.command_line import cli, main

__all__ = ["cli", "main"]
