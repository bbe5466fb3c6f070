"""Two or more phases in one CT series, slices at the same places twice: told apart by their headers, one is read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydicom.valuerep import DT, TM

from twin_scanner.dicom.read.preference import Merits, Preference, merits_of, ranked
from twin_scanner.dicom.read.slice_grid import SliceStack, by_place, check_one_of_each
from twin_scanner.dicom.read.slice_headers import ImageSlice, text
from twin_scanner.errors import Rejected

NUMBERS: Final = ("TemporalPositionIdentifier", "AcquisitionNumber")
"""Each phase has its own number; where step and shoot gives many to each, there are more numbers than phases."""
TIMES: Final = ("AcquisitionDateTime", "AcquisitionTime")
"""Slices of one phase have times that lie together: between two phases the patient waits for the contrast medium."""
KERNEL: Final = "ConvolutionKernel"
"""Two reconstructions of one acquisition have its number and its times."""


@dataclass(frozen=True)
class Phase:
    """The slices of one phase; ``name`` says which, without a text of the header."""

    name: str
    slices: tuple[ImageSlice, ...]

    @property
    def counted(self) -> str:
        """The name and how many images it has."""
        return f"{self.name} ({len(self.slices)} image{'s' * (len(self.slices) > 1)})"


def one_phase(
    slices: Sequence[ImageSlice], stack: Callable[[Sequence[ImageSlice]], SliceStack], preference: Preference
) -> tuple[SliceStack, tuple[str, ...]]:
    """What ``stack`` makes of the slices of one phase, and sentences on what was left out; none where all are one.

    Of several phases the preferred one is read; where both are alike, the first. Raises Rejected where phases share
    the series that nothing tells apart, or of which none can be read.
    """
    fullest = max(by_place(slices), key=len)
    count = len(fullest)
    if count == 1 or fullest[0].frame is not None:
        return stack(slices), ()
    check_one_of_each(slices)
    keyword, phases = _told_apart(slices, fullest)
    read: list[tuple[tuple[Phase, SliceStack], Merits]] = []
    faults: dict[str, str] = {}
    for phase in phases:
        try:
            made = stack(phase.slices)
        except Rejected as error:
            faults[phase.name] = str(error)
        else:
            read.append(((phase, made), merits_of(made)))
    shared = f"{count} phases share the series, told apart by {keyword}"
    if not read:
        raise Rejected(f"{shared}, but none can be read; {phases[0].counted}: {faults[phases[0].name]}")
    ((chosen, made), _), *others = ranked(read, preference, alike=f"{phases[0].name} comes first")
    reasons = {name: f"it cannot be read. {fault}" for name, fault in faults.items()}
    reasons |= {phase.name: f"{chosen.name} was preferred: {why}." for (phase, _), why in others}
    left_out = [f"{phase.counted} was left out, for {reasons[phase.name]}" for phase in phases if phase is not chosen]
    return made, (f"{shared}: {chosen.counted} was read.", *left_out)


def _told_apart(slices: Sequence[ImageSlice], together: Sequence[ImageSlice]) -> tuple[str, tuple[Phase, ...]]:
    """The first attribute by which the slices fall into phases that have each place once, and the phases.

    They are as many as the slices that lie ``together`` at one place.
    """
    keywords = (*NUMBERS, *TIMES, KERNEL)
    for keyword in keywords:
        phases = _by_time(slices, keyword, len(together)) if keyword in TIMES else _by_value(slices, keyword)
        if len(phases) == len(together) and all(
            len(at_one) == 1 for phase in phases for at_one in by_place(phase.slices)
        ):
            return keyword, phases
    first, second, *_ = together
    raise Rejected(
        f"ImagePositionPatient of {first.name} and of {second.name} is the same, so two phases or reconstructions "
        f"share the series, and none of {', '.join(keywords)} tells them apart: send each as a series of its own."
    )


def _by_value(slices: Sequence[ImageSlice], keyword: str) -> tuple[Phase, ...]:
    """A phase for each value, in the order of the numbers; none where a slice has no value."""
    values = [text(image.header, keyword) for image in slices]
    if not all(values):
        return ()
    ordered = sorted(set(values), key=lambda value: (not value.isdecimal(), len(value) * value.isdecimal(), value))
    return tuple(
        Phase(
            f"{keyword} {value}" if value.isdecimal() else f"number {number} by {keyword}",
            tuple(image for image, its in zip(slices, values, strict=True) if its == value),
        )
        for number, value in enumerate(ordered, start=1)
    )


def _by_time(slices: Sequence[ImageSlice], keyword: str, count: int) -> tuple[Phase, ...]:
    """The slices cut at the longest pauses into ``count`` phases, earliest first; none where a slice has no time."""
    try:
        seconds = np.array([_seconds(text(image.header, keyword)) for image in slices])
    except ValueError:
        return ()
    moments = np.unique(seconds)
    if len(moments) < count:
        return ()
    pauses = np.sort(np.argsort(np.diff(moments), kind="stable")[1 - count :])
    number = np.searchsorted(moments[pauses + 1], seconds, side="right")
    return tuple(
        Phase(
            f"number {k + 1} by {keyword}", tuple(image for image, its in zip(slices, number, strict=True) if its == k)
        )
        for k in range(count)
    )


def _seconds(value: str) -> float:
    """A DT or TM in seconds since any fixed moment; raises ValueError where it is none."""
    if len(value) >= len("YYYYMMDDHHMMSS") and value[:14].isdecimal():
        return DT(value).timestamp()
    moment = TM(value)
    if moment is None:
        raise ValueError("no time")
    return moment.hour * 3600.0 + moment.minute * 60.0 + moment.second + moment.microsecond / 1e6
