"""The options that several verbs share, and the settings that follow from them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twin_scanner.cli.output import log_from
from twin_scanner.districts.choice import SEGMENTERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from twin_scanner.districts.choice import SegmenterChoice
    from twin_scanner.districts.district_map import Segmenter
    from twin_scanner.models.compute import Compute
    from twin_scanner.service.ledger import Ledger
    from twin_scanner.settings import Settings

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="TWIN_SCANNER_CONFIG",
        help="The TOML file of the configuration; default: /etc/twin-scanner/twin-scanner.toml where it exists.",
        dir_okay=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
SegmenterName = Annotated[
    str | None,
    typer.Option(
        "--segmenter", help=f"The segmenter ({', '.join(SEGMENTERS)}); default: districts.segmenter.", metavar="NAME"
    ),
]
LabelmapFile = Annotated[
    Path | None,
    typer.Option("--labelmap", help="The label map (NIfTI or DICOM SEG) that the segmenter labelmap reads."),
]
DeviceName = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME", help="Where the networks run: cpu, cuda, cuda:1 or auto."),
]
CtSource = Annotated[
    Path, typer.Argument(metavar="INPUT", help="The CT: a folder of one DICOM series, or a .nii.gz file in HU.")
]
StudiesSource = "A folder of PET/CT studies, in autoPET's layout or as DICOM."
AcceptSynthetic = Annotated[
    bool,
    typer.Option(
        "--accept-synthetic", help="Accept DICOM that is marked synthetic: phantoms, but never a PET of this scanner."
    ),
]


def read_settings(config: Path | None) -> "Settings":
    """The validated configuration; raises Misconfigured with all its faults."""
    from twin_scanner.settings import configuration_file, load_settings

    return load_settings(configuration_file(config))


@contextmanager
def opened_ledger(config: Path | None) -> Iterator["Ledger"]:
    """The ledger that is there; it is not created or migrated here."""
    from twin_scanner.service.ledger import Ledger

    settings = read_settings(config)
    ledger = Ledger(settings.ledger_url, node=settings.node.name)
    try:
        yield ledger
    finally:
        ledger.close()


def segmenter_with(settings: "Settings", name: str | None, labelmap: Path | None) -> "SegmenterChoice":
    """The configured segmenter, with what the command line says otherwise."""
    from twin_scanner.app import segmenter_choice

    choice = segmenter_choice(settings)
    return replace(choice, name=name or choice.name, labelmap=labelmap or choice.labelmap)


def compute_with(settings: "Settings", device: str | None) -> "Compute":
    """The configured device and precision, with what the command line says otherwise."""
    from twin_scanner.app import compute_of

    compute = compute_of(settings)
    return replace(compute, device=device or compute.device)


def study_tools(config: Path | None, segmenter: str | None) -> "tuple[Settings, Callable[[], Segmenter]]":
    """What a verb over studies begins with: the configuration, what makes the segmenter, and a log of errors alone.

    Raises Misconfigured as ``read_settings`` does.
    """
    from twin_scanner.districts.choice import make_segmenter

    settings = read_settings(config)
    log_from("ERROR")
    return settings, partial(make_segmenter, segmenter_with(settings, segmenter, None))


def package_folder(settings: "Settings", reference: str) -> Path:
    """The folder of a model package, by its path or by what the model store calls it."""
    from twin_scanner.models.store import ModelStore

    folder = Path(reference)
    return folder if folder.is_dir() else ModelStore(settings.model_store).resolve(reference)


def out_folder(text: str) -> Any:
    """The option --out for a folder; that it can be written is found here, before any work."""
    return typer.Option("--out", help=text, file_okay=False, callback=written_folder)


def out_file(text: str) -> Any:
    """The option --out for a file; that its folder can be written is found here, before any work."""
    return typer.Option("--out", help=text, dir_okay=False, callback=written_file)


def written_folder(folder: Path) -> Path:
    """The folder, where something can be written into it; raises Rejected or Transient where not."""
    from twin_scanner.files.writable import check_writable

    check_writable(folder)
    return folder


def written_file(file: Path | None) -> Path | None:
    """The file, where its folder can be written; raises Rejected or Transient where not."""
    if file is not None:
        written_folder(file.absolute().parent)
    return file
