"""Whether the slices of a study that lie in the spool make stacks without a gap, by their positions alone."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

from dicom_node.instance_header import file_texts
from dicom_node.sop_classes import MULTI_FRAME_CT_CLASSES
from twin_scanner.errors import Rejected

MINIMUM_SLICES: Final = 16
"""What the CT reader wants at least; fewer are a scout, or the beginning of a series."""
_GAP: Final = 1.5
"""A step of so many usual ones lacks a slice."""
_SAME_POSITION_MM: Final = 0.05
"""Slices closer than this are at the same place, as those of two phases are."""
_SOP_CLASS, _POSITION, _ORIENTATION = 0x00080016, 0x00200032, 0x00200037
_DIGITS: Final = 3
"""Direction cosines that agree so far are those of one stack."""


@dataclass(frozen=True)
class SlicePlace:
    """Where a slice lies: its series, its direction cosines, rounded, and its distance along their normal in mm.

    An instance of many frames is a stack of its own: it has no direction cosines here.
    """

    series_uid: str
    cosines: tuple[float, ...]
    along_mm: float


class SlicePlaces:
    """The places of the slices of studies that still arrive; each file is read once. For one thread."""

    def __init__(self) -> None:
        self._read: dict[str, dict[Path, SlicePlace | None]] = {}

    def gap_free(self, study_uid: str, files: Sequence[Path]) -> bool:
        """Whether the study holds a stack, and none of its stacks lacks a slice between two others."""
        places = self._read.setdefault(study_uid, {})
        for file in files:
            if file not in places:
                places[file] = read_place(file)
        stacks: dict[tuple[str, tuple[float, ...]], list[float]] = defaultdict(list)
        for place in filter(None, places.values()):
            stacks[place.series_uid, place.cosines].append(place.along_mm)
        found = [
            is_gap_free(stack) for (_, cosines), stack in stacks.items() if not cosines or len(stack) >= MINIMUM_SLICES
        ]
        return bool(found) and all(found)

    def keep_only(self, study_uids: Iterable[str]) -> None:
        """Forget every other study."""
        for study_uid in self._read.keys() - frozenset(study_uids):
            del self._read[study_uid]


def is_gap_free(along_mm: Sequence[float]) -> bool:
    """Whether no step between neighbouring places is much longer than the usual one; repeated places count once."""
    ordered = sorted(along_mm)
    steps = [after - before for before, after in pairwise(ordered) if after - before > _SAME_POSITION_MM]
    return not steps or max(steps) < _GAP * median(steps)


def read_place(file: Path) -> SlicePlace | None:
    """Where the slice in a file of the spool lies; None where its header does not say."""
    try:
        texts = file_texts(file, (_SOP_CLASS, _POSITION, _ORIENTATION))
        if texts.get(_SOP_CLASS) in MULTI_FRAME_CT_CLASSES:
            return SlicePlace(file.parent.name, (), 0.0)
        position, cosines = _numbers(texts.get(_POSITION, ""), 3), _numbers(texts.get(_ORIENTATION, ""), 6)
    except (Rejected, ValueError):
        return None
    (x, y, z), (a, b, c, d, e, f) = position, cosines
    along_mm = x * (b * f - c * e) + y * (c * d - a * f) + z * (a * e - b * d)
    return SlicePlace(file.parent.name, tuple(round(cosine, _DIGITS) + 0.0 for cosine in cosines), along_mm)


def _numbers(text: str, count: int) -> tuple[float, ...]:
    """The finite numbers of a decimal string with so many values; raises ValueError where it is none."""
    numbers = tuple(map(float, text.split("\\")))
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(text)
    return numbers
