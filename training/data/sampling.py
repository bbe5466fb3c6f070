"""Random windows of pairs, wherever in the field of view they touch the network's region (paper eq. 10, 11)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from training.data.pairs import Pair
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import FloatArray, LabelArray, Shape
from twin_scanner.models.card import PAPER, Architecture
from twin_scanner.models.inputs import Surroundings, ct_channels, surroundings
from twin_scanner.models.networks import WINDOW
from twin_scanner.models.plan import Plan, suv_to_model

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Box: TypeAlias = tuple[slice, slice, slice]
Wanted: TypeAlias = Literal["lesion", "hot", "region"]
"""Of what a window must hold a randomly chosen voxel: an annotated lesion, high uptake or just the network's region."""


@dataclass(frozen=True, eq=False)
class Patch:
    """One window: CT and PET in model space, both 0 outside the network's region (eq. 7, 8), and that region.

    ``ct`` is (C, 32, 32, 32), in the channels that the architecture asks for; ``context`` of the same shape is the body
    around the window, None where the network sees none. ``study`` and ``start`` (first voxel (d, h, w) in the whole
    field of view) say where it was cut.
    """

    ct: FloatArray
    pet: FloatArray
    mask: BoolArray
    study: str
    start: Shape
    context: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class _Reach:
    """The window positions of one pair that can touch the region: from ``first`` to ``last`` along each axis."""

    pair: Pair
    first: Shape
    last: Shape


class Sampler:
    """Samples windows for one network; the same random state gives the same windows.

    ``covered`` are the network's labels, none for the whole volume. By default every place that touches the region has
    the same probability, as in the paper. ``lesion_share`` of the windows hold a randomly chosen voxel of an annotated
    lesion in the region, ``hot_share`` one of the region's voxels whose PET is above ``hot_suv``; a study without such
    a voxel has windows like the rest. ``inside``: the rest hold a randomly chosen voxel of the region. Such a voxel
    lies at a random place in its window, and the window in the field of view. ``architecture`` says what a window
    holds. Raises Rejected where no pair shows the region.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        covered: tuple[int, ...],
        plan: Plan,
        *,
        inside: bool = False,
        lesion_share: float = 0.0,
        hot_share: float = 0.0,
        hot_suv: float = 4.0,
        architecture: Architecture = PAPER,
    ) -> None:
        self.covered = covered
        self.plan = plan
        self.architecture = architecture
        self._around: dict[int, Surroundings] = {}
        self.inside = inside
        self.lesion_share = lesion_share
        self.hot_share = hot_share
        self.hot_suv = hot_suv
        self._reaches = [reach for pair in pairs if (reach := _reach(pair, covered)) is not None]
        self._counts: dict[tuple[int, Wanted], npt.NDArray[np.int64]] = {}
        if not self._reaches:
            raise Rejected(f"No training pair contains labels {list(covered)}: add studies that show that district.")

    @property
    def studies(self) -> int:
        """How many pairs show the region; an epoch visits each of them."""
        return len(self._reaches)

    @property
    def pairs(self) -> list[Pair]:
        """The pairs that show the region, in their order."""
        return [reach.pair for reach in self._reaches]

    def sample(self, random: np.random.Generator, study: int) -> Patch:
        """A window of the ``study``-th pair that shows the region; it holds at least one voxel of it."""
        return self.patch(study, self.place(random, study))

    def place(self, random: np.random.Generator, study: int) -> Shape:
        """Where ``sample`` takes it: its first voxel (d, h, w) in the whole field of view."""
        reach = self._reaches[study]
        start = self._around_voxel(random, study)
        while start is None:
            d, h, w = (int(random.integers(a, b + 1)) for a, b in zip(reach.first, reach.last, strict=True))
            start = (d, h, w) if _touches(reach.pair, self.covered, (d, h, w)) else None
        return start

    def other_patients_study(self, random: np.random.Generator, study: int) -> int:
        """A study of another patient than the ``study``-th's, each with the same probability.

        Raises Rejected where there is only one patient.
        """
        patient = self._reaches[study].pair.patient
        others = [at for at, reach in enumerate(self._reaches) if reach.pair.patient != patient]
        if not others:
            raise Rejected(
                f"Only one patient shows labels {list(self.covered)}, and a CycleGAN takes its CT and its PET from "
                "different ones: add studies of other patients."
            )
        return others[int(random.integers(len(others)))]

    def patch(self, study: int, start: Shape) -> Patch:
        """The window of the ``study``-th pair at a place."""
        pair, around = self._reaches[study].pair, self.surroundings(study)
        return patch_at(pair, self.covered, start, self.plan, self.architecture, around)

    def surroundings(self, study: int) -> Surroundings | None:
        """What lies around all windows of a study, made once; None where the network sees no context."""
        if self.architecture.context and study not in self._around:
            self._around[study] = pair_surroundings(self._reaches[study].pair, self.plan, self.architecture)
        return self._around.get(study)

    def _around_voxel(self, random: np.random.Generator, study: int) -> Shape | None:
        """Where a window starts that holds a randomly chosen wanted voxel; None where any place will do."""
        pair = self._reaches[study].pair
        for wanted in self._wanted(random.random()):
            voxel = self._voxel(random, study, wanted)
            if voxel is not None:
                start = []
                for index, corner, length in zip(voxel, pair.corner, pair.shape, strict=True):
                    low, high = max(0, index + corner - WINDOW + 1), min(index + corner, length - WINDOW)
                    start.append(int(random.integers(low, high + 1)))
                return start[0], start[1], start[2]
        return None

    def _wanted(self, share: float) -> Iterator[Wanted]:
        """What the window at this share of all windows must hold, and what instead where a study has no such voxel."""
        if share < self.lesion_share:
            yield "lesion"
        elif share < self.lesion_share + self.hot_share:
            yield "hot"
        if self.inside:
            yield "region"

    def _voxel(self, random: np.random.Generator, study: int, wanted: Wanted) -> Shape | None:
        """A wanted voxel of the cut, each with the same probability; None where there is none.

        Kept is how many there are up to each slice, a few kilobytes a study: a list of a body's voxels takes megabytes.
        """
        pair, key = self._reaches[study].pair, (study, wanted)
        if key not in self._counts:
            self._counts[key] = np.cumsum([self._found(pair, wanted, d).size for d in range(len(pair.labels))])
        up_to = self._counts[key]
        if not up_to[-1]:
            return None
        number = int(random.integers(int(up_to[-1])))
        d = int(np.searchsorted(up_to, number, side="right"))
        from_the_slices_end = number - int(up_to[d])
        h, w = divmod(int(self._found(pair, wanted, d)[from_the_slices_end]), pair.labels.shape[2])
        return d, h, w

    def _found(self, pair: Pair, wanted: Wanted, d: int) -> npt.NDArray[np.intp]:
        """The wanted voxels of one slice of the cut, as flat indices into the slice."""
        region = np.flatnonzero(covers(pair.labels[d], self.covered))
        if wanted == "region":
            return region
        if wanted == "hot":
            return region[np.asarray(pair.pet[d], np.float32).reshape(-1)[region] > self.hot_suv]
        return region[:0] if pair.lesions is None else region[pair.lesions[d].reshape(-1)[region] > 0]


def patch_at(
    pair: Pair,
    covered: tuple[int, ...],
    start: Shape,
    plan: Plan,
    architecture: Architecture = PAPER,
    around: Surroundings | None = None,
) -> Patch:
    """The window whose first voxel is ``start`` of the pair's whole field of view, in the Plan's model space.

    ``around`` are the pair's surroundings, for an architecture that sees a context.
    """
    source, target = overlap(pair, start)
    mask = np.zeros((WINDOW,) * 3, np.bool_)
    mask[target] = covers(pair.labels[source], covered)
    ct, pet = np.zeros((architecture.channels, *mask.shape), np.float32), np.zeros(mask.shape, np.float32)
    if mask.any():
        hu = np.asarray(pair.ct[source], np.float32)
        ct[:, *target] = ct_channels(hu, windowed(pair, plan), architecture)
        pet[target] = suv_to_model(np.asarray(pair.pet[source], np.float32), plan)
    context = None if around is None else around.around([start])[0]
    return Patch(ct * mask, pet * mask, mask, pair.name, start, context)


def pair_surroundings(pair: Pair, plan: Plan, architecture: Architecture) -> Surroundings:
    """The body of a pair in the cells of the context; a cut holds all of it."""
    channels = ct_channels(np.asarray(pair.ct, np.float32), windowed(pair, plan), architecture)
    return surroundings(channels, np.asarray(pair.labels), pair.corner, pair.shape)


def windowed(pair: Pair, plan: Plan) -> Plan:
    """The Plan that scales any part of this pair's CT as the Plan scales the whole CT.

    A patch has another minimum and maximum than its volume, so with per-volume scaling those of the volume become
    the window.
    """
    if plan.ct_scaling == "window":
        return plan
    low, high = pair.hu_range
    return replace(plan, ct_scaling="window", hu_low=float(low), hu_high=float(high))


def covers(labels: LabelArray, covered: tuple[int, ...]) -> BoolArray:
    """Where the labels are the network's; everywhere for a network without labels. A table is faster than isin."""
    table = np.zeros(256, np.bool_)
    table[list(covered) if covered else slice(None)] = True
    found: BoolArray = table[labels]
    return found


def _touches(pair: Pair, covered: tuple[int, ...], start: Shape) -> bool:
    source, _ = overlap(pair, start)
    return bool(covers(pair.labels[source], covered).any())


def overlap(pair: Pair, start: Shape) -> tuple[Box, Box]:
    """Which part of the cut a window holds, and where in the window it lies."""
    inside, cube = [], []
    for at, corner, length in zip(start, pair.corner, pair.labels.shape, strict=True):
        first, end = max(0, at - corner), max(0, min(length, at - corner + WINDOW))
        inside.append(slice(first, end))
        cube.append(slice(first - at + corner, first - at + corner + max(0, end - first)))
    return (inside[0], inside[1], inside[2]), (cube[0], cube[1], cube[2])


def _reach(pair: Pair, covered: tuple[int, ...]) -> _Reach | None:
    box = _box(pair.labels, covered)
    if box is None:
        return None
    first, last = [], []
    for part, corner, length in zip(box, pair.corner, pair.shape, strict=True):
        first.append(max(0, corner + part.start - WINDOW + 1))
        last.append(min(length - WINDOW, corner + part.stop - 1))
    return _Reach(pair, (first[0], first[1], first[2]), (last[0], last[1], last[2]))


def _box(labels: LabelArray, covered: tuple[int, ...]) -> Box | None:
    """The smallest box around the labels; the whole cut for a network without labels."""
    if not covered:
        d, h, w = labels.shape
        return slice(0, d), slice(0, h), slice(0, w)
    found = ndimage.find_objects(labels, max(covered))
    boxes = [found[label - 1] for label in covered if found[label - 1] is not None]
    if not boxes:
        return None
    low = [min(box[axis].start for box in boxes) for axis in range(3)]
    high = [max(box[axis].stop for box in boxes) for axis in range(3)]
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])
