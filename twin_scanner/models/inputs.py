"""What a network is given of a CT: the channels of its windows and the body around them; serving and training share it.

Beside the paper's input, the CT of a network's labels, an architecture may ask for the same CT in a soft-tissue window
and for a context: the CT of the whole body, averaged 4 times along each axis, 32 of these cells an edge around the
window's centre. Air around the body, and what lies outside the field of view, is 0 there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch.nn import functional

from twin_scanner.imaging.volume import FloatArray, LabelArray, Shape
from twin_scanner.models.card import Architecture
from twin_scanner.models.networks import WINDOW
from twin_scanner.models.plan import Plan, ct_to_model, ct_to_soft_tissue

CELL: Final = 4
"""Voxels along each edge of a cell of the context: it shows 128 voxels where the window shows 32."""
MARGIN: Final = (CELL - 1) * WINDOW // 2 // CELL
"""Cells of the context before those that the window itself lies in."""


def ct_channels(hu: FloatArray, plan: Plan, architecture: Architecture) -> FloatArray:
    """A CT (D, H, W) in HU as the channels (C, D, H, W) in model space that an architecture asks for."""
    if not architecture.soft_tissue:
        return ct_to_model(hu, plan)[None]
    channels = np.empty((architecture.channels, *hu.shape), np.float32)
    channels[0] = ct_to_model(hu, plan)
    channels[1] = ct_to_soft_tissue(hu)
    return channels


def context_cells(start: Shape) -> Shape:
    """The first cell of the context of the window that starts at the voxel (d, h, w); negative beyond the image.

    Cell n holds the voxels 4 n to 4 n + 3. A window that starts between two cells takes the nearer one, so the centres
    of window and context lie at most two voxels apart along each axis.
    """
    d, h, w = ((first + CELL // 2) // CELL - MARGIN for first in start)
    return d, h, w


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The whole body in cells, (C, d, h, w) in model space, from the cell ``corner`` on; every other cell is 0."""

    cells: FloatArray
    corner: Shape = (0, 0, 0)

    def around(self, starts: Sequence[Shape]) -> FloatArray:
        """The contexts (N, C, 32, 32, 32) of the windows that start at some voxels of the whole image."""
        contexts = np.zeros((len(starts), self.cells.shape[0], *(WINDOW,) * 3), np.float32)
        for context, start in zip(contexts, starts, strict=True):
            self._copy(start, context)
        return contexts

    def _copy(self, start: Shape, context: FloatArray) -> None:
        source, target = [slice(None)], [slice(None)]
        for first, corner, length in zip(context_cells(start), self.corner, self.cells.shape[1:], strict=True):
            begin, end = max(0, first - corner), max(0, min(length, first - corner + WINDOW))
            end = max(begin, end)
            source.append(slice(begin, end))
            target.append(slice(begin - first + corner, end - first + corner))
        context[tuple(target)] = self.cells[tuple(source)]


def surroundings(
    channels: FloatArray, labels: LabelArray, corner: Shape = (0, 0, 0), whole: Shape | None = None
) -> Surroundings:
    """The body of a CT (C, D, H, W) in model space in cells, 0 outside the body; a study needs it once.

    The CT may be a cut of an image of the shape ``whole`` that begins at its voxel ``corner``; it then holds the whole
    body, and the result is that of the image. At the image's far ends a cell is the mean of the voxels that it has.
    """
    _, depth, *plane = channels.shape
    image = whole or (depth, plane[0], plane[1])
    first = [at // CELL for at in corner]
    before = [at % CELL for at in corner]
    lengths = [
        min(-(-(skip + n) // CELL) * CELL, end - CELL * cell)
        for skip, n, end, cell in zip(before, labels.shape, image, first, strict=True)
    ]
    box = (slice(before[1], before[1] + plane[0]), slice(before[2], before[2] + plane[1]))
    rows = []
    for row in range(0, lengths[0], CELL):
        slab = np.zeros((channels.shape[0], min(CELL, lengths[0] - row), *lengths[1:]), np.float32)
        begin, end = max(0, row - before[0]), min(depth, row - before[0] + CELL)
        inside = channels[:, begin:end] * (labels[begin:end] > 0)
        slab[:, begin + before[0] - row : end + before[0] - row, box[0], box[1]] = inside
        rows.append(functional.avg_pool3d(torch.from_numpy(slab)[None], (len(slab[0]), CELL, CELL), ceil_mode=True)[0])
    return Surroundings(torch.cat(rows, 1).numpy(), (first[0], first[1], first[2]))
