"""Organ label maps that somebody gives beside the studies, for the bias of each organ."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import Geometry, LabelArray, read_nifti_labels

NAMES: Final = "names.json"


@dataclass(frozen=True)
class OrganMaps:
    """A folder with STUDY.nii.gz for each study (uint8, any grid) and the names of the labels."""

    folder: Path
    names: tuple[tuple[int, str], ...]

    def of(self, study: str) -> tuple[LabelArray, Geometry]:
        """The label map (D, H, W) of a study; raises Rejected where there is none or it is no label map."""
        file = self._file(study)
        if not file.is_file():
            raise Rejected(f"There are organ maps, but none of {study}: add {file.name}, or leave --organs out.")
        return read_nifti_labels(file)

    def stamp(self, study: str) -> str:
        """SHA-256 of the study's map and of the names, as far as they are there."""
        file = self._file(study)
        content = file.read_bytes() if file.is_file() else b""
        return hashlib.sha256(json.dumps(self.names).encode() + content).hexdigest()

    def _file(self, study: str) -> Path:
        return self.folder / f"{study}.nii.gz"


def organ_maps(folder: Path) -> OrganMaps:
    """The maps of a folder; ``names.json`` in it is an object such as {"5": "liver"}. Raises Rejected without it."""
    try:
        content = json.loads((folder / NAMES).read_text("utf-8"))
        names = tuple(sorted((int(label), name.strip()) for label, name in content.items()))
    except (OSError, ValueError, AttributeError) as error:
        raise Rejected(
            f'{folder / NAMES} cannot be read: give the organs\' names by label, as {{"5": "liver"}}.'
        ) from error
    if not names or not all(0 < label < 256 for label, _ in names):
        raise Rejected(f"{folder / NAMES} names no label from 1 to 255: give the organs' names by label.")
    if not all(name and name.isprintable() for _, name in names):
        raise Rejected(f"{folder / NAMES} has a name that is empty or not in one line: give each organ a plain name.")
    if len({name for _, name in names}) < len(names) or len({label for label, _ in names}) < len(names):
        raise Rejected(f"{folder / NAMES} gives two labels one name, or a label two: name each organ once.")
    return OrganMaps(folder, names)
