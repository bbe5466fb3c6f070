"""Whether district borders show: gradient jumps of the synthetic PET across them, against those of the real one."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from twin_scanner.imaging.volume import FloatArray, LabelArray

Sums: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Seam:
    """Means over the ``faces`` between districts, in SUV: how much larger a step across is than those beside it."""

    real: float
    synthetic: float
    faces: int

    @property
    def excess(self) -> float:
        """What the synthetic PET jumps more than the real one; 0 for a seam that does not show."""
        return self.synthetic - self.real


def seam(real: FloatArray, synthetic: FloatArray, labels: LabelArray) -> Seam | None:
    """The jump across district borders; arrays (D, H, W), SUV, labels 0 outside the body.

    A face is a pair of neighbours along one axis in two districts, with one more voxel of each district behind. Its
    jump is the absolute step across less the mean of the absolute steps on its two sides. None without a face.
    """
    sums, faces = np.zeros(2), 0
    for axis in range(3):
        more, count = _along(axis, real, synthetic, labels)
        sums, faces = sums + more, faces + count
    return Seam(float(sums[0]) / faces, float(sums[1]) / faces, faces) if faces else None


def _along(axis: int, real: FloatArray, synthetic: FloatArray, labels: LabelArray) -> tuple[Sums, int]:
    """Sums of the jumps of both images over the faces that are perpendicular to an axis, and how many there are."""
    turned = np.moveaxis(labels, axis, 0)
    before, near, far, behind = turned[:-3], turned[1:-2], turned[2:-1], turned[3:]
    face = (near != far) & (near > 0) & (far > 0) & (before == near) & (behind == far)
    at = np.nonzero(face)
    if not at[0].size:
        return np.zeros(2), 0
    return np.array([_jumps(np.moveaxis(image, axis, 0), at) for image in (real, synthetic)]), at[0].size


def _jumps(image: FloatArray, at: tuple[npt.NDArray[np.intp], ...]) -> float:
    first, second, third, fourth = (image[at[0] + step, at[1], at[2]].astype(np.float64) for step in range(4))
    beside = (np.abs(second - first) + np.abs(fourth - third)) / 2
    return float((np.abs(third - second) - beside).sum())
