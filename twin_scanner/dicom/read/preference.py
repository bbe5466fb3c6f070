"""What makes one stack of CT slices better than another, among series and among the phases of one; headers only."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal, TypeVar

from twin_scanner.dicom.read.slice_grid import SliceStack
from twin_scanner.dicom.read.slice_headers import text
from twin_scanner.imaging.bounds import SPACING_MM

Candidate = TypeVar("Candidate")


class Kernel(IntEnum):
    """What a reconstruction kernel is made for; smaller is better for a network that has seen soft tissue."""

    SOFT = 0
    UNKNOWN = 1
    SHARP = 2


SHARP_KERNELS: Final = re.compile(
    r"LUNG|BONE|EDGE|ULTRA|SHARP|INNER.?EAR"
    r"|^FC(?:3|5|8|9)\d"
    r"|^[BDHIJQTU][A-Z]?[5-9]\d"
    r"|^(?:D|E|EA|EB|EC|ED|L|YA|YB|YC|YD)$"
)
"""Kernels for lung, bone and ear: GE and others by words, Canon FC30-39, 50-59 and 80-99, Siemens by number (B70f,
Br59, I50f: 50 and more), Philips by letters."""
SOFT_KERNELS: Final = re.compile(
    r"^STANDARD|^STND|^STD|SOFT|SMOOTH|ROUTINE"
    r"|^FC(?:0|1|2|4|6|7)\d"
    r"|^[BDHIJQTU][A-Z]?[0-4]\d"
    r"|^(?:A|B|C|UA|UB|UC)$"
)
"""Kernels for soft tissue and brain, likewise; what neither names (GE DETAIL, CHST) ranks between."""
_KERNEL_LENGTH: Final = 16
"""ConvolutionKernel is an SH and holds no more characters (PS3.5 6.2)."""
COVERAGE_TOLERANCE: Final = 0.1
"""Series within this part of the longest cover the same: reconstructions of one scan differ by a few slices."""


@dataclass(frozen=True)
class Preference:
    """What makes one CT of a study better than another: coverage, then kernel, thickness, contrast, in this order.

    ``minimum_coverage_mm`` along the stack's normal: a shorter series is never chosen. ``target_thickness_mm``: the
    slice thickness nearest to it wins. ``contrast``: which phase wins; ``any`` takes no side.
    """

    minimum_coverage_mm: float = 100.0
    target_thickness_mm: float = 3.0
    contrast: Literal["any", "without", "with"] = "any"


@dataclass(frozen=True)
class Merits:
    """What the preference weighs in a stack."""

    coverage_mm: float
    kernel: str
    thickness_mm: float
    contrast: bool
    tilted: bool = False


def merits_of(stack: SliceStack) -> Merits:
    """The merits of a regular stack, by its geometry and its first slice's header."""
    header = stack.slices[0].header
    try:
        thickness_mm = float(text(header, "SliceThickness"))
    except ValueError:
        thickness_mm = math.nan
    if not 0 < thickness_mm <= SPACING_MM[1]:
        thickness_mm = round(stack.geometry.spacing_mm[0], 3)
    return Merits(
        coverage_mm=stack.geometry.extent_mm[0],
        kernel=text(header, "ConvolutionKernel")[:_KERNEL_LENGTH],
        thickness_mm=thickness_mm,
        contrast=bool(text(header, "ContrastBolusAgent")) or "ContrastBolusAgentSequence" in header,
        tilted=stack.tilt is not None,
    )


def ranked(
    candidates: Sequence[tuple[Candidate, Merits]], preference: Preference, alike: str
) -> list[tuple[Candidate, str]]:
    """The candidates, the best first, each with the reason why it came behind that one (of the best: empty).

    Where all merits are equal, the order of ``candidates`` decides, and ``alike`` says so.
    """
    longest_mm = max((merits.coverage_mm for _, merits in candidates), default=0.0)
    ordered = sorted(candidates, key=lambda pair: _rank(pair[1], longest_mm, preference))
    best = ordered[0][1] if ordered else None
    return [
        (one, "" if merits is best else _why_second(merits, best or merits, longest_mm, preference, alike))
        for one, merits in ordered
    ]


def _rank(merits: Merits, longest_mm: float, preference: Preference) -> tuple[bool, int, float, bool, bool, int]:
    """Smaller is better, and the first difference decides; ``_why_second`` follows the same order."""
    return (
        merits.coverage_mm < (1.0 - COVERAGE_TOLERANCE) * longest_mm,
        int(kernel_of(merits.kernel)),
        round(abs(merits.thickness_mm - preference.target_thickness_mm), 2),
        preference.contrast != "any" and merits.contrast != (preference.contrast == "with"),
        merits.tilted,
        -round(merits.coverage_mm),
    )


def _why_second(second: Merits, best: Merits, longest_mm: float, preference: Preference, alike: str) -> str:
    ranks = zip(_rank(second, longest_mm, preference), _rank(best, longest_mm, preference), strict=True)
    place = next((place for place, (mine, its) in enumerate(ranks) if mine != its), None)
    coverage = f"it covers {best.coverage_mm:.0f} mm, this one {second.coverage_mm:.0f} mm"
    reasons = {
        0: coverage,
        1: f"its kernel is {best.kernel or 'not given'}, this one's {second.kernel or 'not given'}",
        2: f"its slices are {best.thickness_mm:g} mm thick, this one's {second.thickness_mm:g} mm",
        3: f"it is {'with' if best.contrast else 'without'} contrast medium, this one is not",
        4: "its gantry was not tilted, this one's was",
        5: coverage,
        None: f"both are alike, and {alike}",
    }
    return reasons[place]


def kernel_of(name: str) -> Kernel:
    """The class of a ConvolutionKernel by its first value (Siemens' second is the strength of iteration)."""
    first = name.split("\\")[0].strip().upper()
    if SHARP_KERNELS.search(first):
        return Kernel.SHARP
    return Kernel.SOFT if SOFT_KERNELS.search(first) else Kernel.UNKNOWN
