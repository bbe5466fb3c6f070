"""The verb `support-bundle`: one file for whoever is asked for help, without a patient, a secret or an address."""

from pathlib import Path
from typing import Annotated

import typer

from twin_scanner.cli.options import ConfigFile, read_settings

OutFile = Annotated[Path, typer.Option("--out", help="The ZIP file to write; it must not be there yet.")]
LogFile = Annotated[
    Path | None,
    typer.Option("--log", help="The service's log as JSON lines, such as 'journalctl -u twin-scanner -o cat > FILE'."),
]


def support_bundle(out: OutFile, config: ConfigFile = None, log: LogFile = None) -> None:
    """Write a ZIP for support: versions, configuration, findings, counts, events; no patient, secret or address."""
    from twin_scanner.doctor.support import write_bundle

    written = write_bundle(out, read_settings(config), log)
    print(f"{out}: {', '.join(written)}. Look into it before you send it.")
