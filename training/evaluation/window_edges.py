"""Whether the windows of the translation show: steps of the synthetic PET at their edges against all other steps."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from twin_scanner.imaging.volume import FloatArray, LabelArray
from twin_scanner.models.networks import WINDOW
from twin_scanner.synthesis.translate import window_starts


@dataclass(frozen=True)
class WindowEdges:
    """Mean absolute steps between neighbours, in SUV; ``faces`` lie at an edge of a window."""

    at_edges: float
    elsewhere: float
    faces: int

    @property
    def ratio(self) -> float:
        """1 where no window shows."""
        return self.at_edges / self.elsewhere


def window_edges(synthetic: FloatArray, districts: LabelArray) -> WindowEdges | None:
    """Mean neighbour difference across the edges of windows, and everywhere else.

    ``synthetic`` (D, H, W, SUV) and ``districts`` (0 outside the body) lie on the grid that the model translated on. A
    face is a pair of neighbours along one axis in one district; its difference is the absolute step of the synthetic
    PET. It lies at an edge where a window of 32 voxels begins or ends between the two, which at stride 16 is every 16
    voxels and at the last window of the axis. The means are over the faces of all three axes together. None where no
    face is at an edge, or where the PET has no step elsewhere.
    """
    sums, faces = np.zeros(2), np.zeros(2, np.int64)
    for axis, length in enumerate(synthetic.shape):
        image, labels = np.moveaxis(synthetic, axis, 0), np.moveaxis(districts, axis, 0)
        at_edge = edge_planes(length)
        for plane in range(1, length):
            inside = (labels[plane] == labels[plane - 1]) & (labels[plane] > 0)
            kind = int(not at_edge[plane])
            sums[kind] += _steps(image[plane - 1][inside], image[plane][inside])
            faces[kind] += np.count_nonzero(inside)
    if not faces.all() or not sums[1]:
        return None
    at_edges, elsewhere = sums / faces
    return WindowEdges(float(at_edges), float(elsewhere), int(faces[0]))


def edge_planes(length: int) -> npt.NDArray[np.bool_]:
    """Whether a window begins at a plane of an axis, or the one before ended there; an axis of one window has none."""
    at_edge = np.zeros(length + 1, np.bool_)
    if length > WINDOW:
        starts = np.array(window_starts(length))
        at_edge[starts] = at_edge[starts + WINDOW] = True
        at_edge[[0, length]] = False
    return at_edge[:length]


def _steps(first: FloatArray, second: FloatArray) -> float:
    return float(np.abs(second - first).sum(dtype=np.float64))
