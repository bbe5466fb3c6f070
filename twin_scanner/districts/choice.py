"""Which segmenter is used: the choice as plain values, and the segmenter that it names."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from twin_scanner.errors import Rejected

if TYPE_CHECKING:
    from twin_scanner.districts.district_map import Segmenter
    from twin_scanner.districts.label_table import LabelTable

SEGMENTERS: Final = ("landmarks", "labelmap", "moose", "totalsegmentator")
"""Every segmenter, the embedded default first."""


@dataclass(frozen=True)
class SegmenterChoice:
    """A segmenter and what it needs; plain values, so that another process can receive them."""

    name: str = "landmarks"
    labelmap: Path | None = None
    label_table: str = "districts"
    frame_of_reference_uid: str | None = None
    """The CT's, where it has one: a DICOM SEG of another one is refused."""
    moose_weights: Path | None = None
    moose_sha256: str = ""
    totalsegmentator_weights: Path | None = None
    totalsegmentator_sha256: str = ""
    totalsegmentator_fast: bool = True
    device: str = "cpu"
    timeout_s: float = 1800.0


def make_segmenter(choice: SegmenterChoice) -> "Segmenter":
    """The chosen segmenter; raises Rejected, here or when it is first used, for whatever it lacks."""
    if choice.name == "landmarks":
        from twin_scanner.districts.landmarks.segmenter import LandmarkSegmenter

        return LandmarkSegmenter()
    if choice.name == "labelmap":
        from twin_scanner.districts.labelmap import LabelmapSegmenter

        if choice.labelmap is None:
            raise Rejected("The segmenter 'labelmap' needs a label map: give --labelmap, or set districts.labelmap.")
        return LabelmapSegmenter(choice.labelmap, _table(choice), choice.frame_of_reference_uid)
    if choice.name == "moose":
        from twin_scanner.districts.external.moose import MooseSegmenter

        return MooseSegmenter(choice.moose_weights, choice.moose_sha256, choice.device, choice.timeout_s)
    if choice.name == "totalsegmentator":
        from twin_scanner.districts.external.totalsegmentator import TotalSegmentatorSegmenter

        weights, sha256 = choice.totalsegmentator_weights, choice.totalsegmentator_sha256
        fast = choice.totalsegmentator_fast
        return TotalSegmentatorSegmenter(weights, sha256, choice.device, fast, choice.timeout_s)
    raise Rejected(f"There is no segmenter '{choice.name}': choose one of {', '.join(SEGMENTERS)}.")


def missing(choice: SegmenterChoice) -> str | None:
    """What keeps the chosen segmenter from running, as one sentence that says what to do; None where it is ready."""
    from twin_scanner.districts.external import moose, totalsegmentator

    if choice.name == "landmarks":
        return None
    if choice.name == "moose":
        return moose.missing(choice.moose_weights, choice.moose_sha256)
    if choice.name == "totalsegmentator":
        weights, sha256 = choice.totalsegmentator_weights, choice.totalsegmentator_sha256
        return totalsegmentator.missing(weights, sha256, fast=choice.totalsegmentator_fast)
    try:
        if choice.name == "labelmap" and choice.labelmap is not None and choice.labelmap.is_dir():
            _table(choice)
        else:
            _ = make_segmenter(choice).segmenter_hash
    except Rejected as error:
        return str(error)
    return None


def _table(choice: SegmenterChoice) -> "LabelTable":
    from twin_scanner.districts.label_table import label_table

    return label_table(choice.label_table)
