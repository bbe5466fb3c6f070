"""Random windows of pairs, wherever in the field of view they touch the network's region (paper eq. 10, 11)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from training.pairs import Pair
from twin_scanner.errors import Rejected
from twin_scanner.networks import WINDOW
from twin_scanner.volume import FloatArray, Shape

BoolArray: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Patch:
    """One window: CT and PET in model space, both 0 outside the network's region (eq. 7, 8), and that region."""

    ct: FloatArray
    pet: FloatArray
    mask: BoolArray


@dataclass(frozen=True)
class _Reach:
    """The window positions of one pair that can touch the region: from ``first`` to ``last`` along each axis."""

    pair: Pair
    first: Shape
    last: Shape


class Sampler:
    """Draws windows for one network; the same random state draws the same windows."""

    def __init__(self, pairs: Sequence[Pair], covered: tuple[int, ...]) -> None:
        self.covered = covered
        self._reaches = [reach for pair in pairs if (reach := _reach(pair, covered)) is not None]
        if not self._reaches:
            raise Rejected(f"No training pair contains labels {list(covered)}: add studies that show that district.")

    def draw(self, random: np.random.Generator) -> Patch:
        """One window of a random pair, each that touches the region as likely as any other, as in service."""
        reach = self._reaches[int(random.integers(len(self._reaches)))]
        while True:
            d, h, w = (int(random.integers(a, b + 1)) for a, b in zip(reach.first, reach.last, strict=True))
            patch = patch_at(reach.pair, self.covered, (d, h, w))
            if patch.mask.any():
                return patch


def patch_at(pair: Pair, covered: tuple[int, ...], start: Shape) -> Patch:
    """The window whose first voxel is ``start`` of the pair's whole field of view."""
    inside, cube = [], []
    for at, corner, length in zip(start, pair.corner, pair.ct.shape, strict=True):
        first, end = max(0, at - corner), max(0, min(length, at - corner + WINDOW))
        inside.append(slice(first, end))
        cube.append(slice(first - at + corner, first - at + corner + max(0, end - first)))
    source, target = (inside[0], inside[1], inside[2]), (cube[0], cube[1], cube[2])
    labels = pair.labels[source]
    mask = np.zeros((WINDOW,) * 3, np.bool_)
    mask[target] = np.isin(labels, covered) if covered else True
    ct, pet = np.zeros((2, *mask.shape), np.float32)
    ct[target] = pair.ct[source]
    pet[target] = pair.pet[source]
    return Patch(ct * mask, pet * mask, mask)


def _reach(pair: Pair, covered: tuple[int, ...]) -> _Reach | None:
    region = np.isin(pair.labels, covered) if covered else np.ones(pair.labels.shape, np.bool_)
    found = ndimage.find_objects(region.astype(np.uint8))
    if not found:
        return None
    first, last = [], []
    for part, corner, length in zip(found[0], pair.corner, pair.shape, strict=True):
        first.append(max(0, corner + part.start - WINDOW + 1))
        last.append(min(length - WINDOW, corner + part.stop - 1))
    return _Reach(pair, (first[0], first[1], first[2]), (last[0], last[1], last[2]))
