"""Which backend draws the districts: the choice in plain values, and the segmenter that follows from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twin_scanner.districts.district_map import Segmenter
from twin_scanner.districts.labelmap import LabelmapSegmenter
from twin_scanner.districts.landmarks import LandmarkSegmenter
from twin_scanner.errors import Rejected

SEGMENTERS: Final = ("landmarks", "labelmap")
"""Every backend, the embedded default first."""


@dataclass(frozen=True)
class SegmenterChoice:
    """A backend and what it needs; plain values, so that it travels to another process."""

    name: str = "landmarks"
    labelmap: Path | None = None


def make_segmenter(choice: SegmenterChoice) -> Segmenter:
    """The chosen segmenter; raises Rejected, with what to do, where something that it needs is missing."""
    if choice.name == "landmarks":
        return LandmarkSegmenter()
    if choice.name == "labelmap" and choice.labelmap is not None:
        return LabelmapSegmenter(choice.labelmap)
    if choice.name == "labelmap":
        raise Rejected("The segmenter 'labelmap' needs a label map: give --labelmap, or set districts.labelmap.")
    raise Rejected(f"There is no segmenter '{choice.name}': choose one of {', '.join(SEGMENTERS)}.")
