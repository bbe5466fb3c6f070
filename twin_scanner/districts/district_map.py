"""The district map: one label a voxel on the CT's own grid, and what every segmenter promises."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from twin_scanner.partition import DISTRICT_NAMES
from twin_scanner.volume import Geometry, LabelArray, Volume


@dataclass(frozen=True, eq=False)
class DistrictMap:
    """Where each district lies: uint8 (D, H, W), 0 outside the body, 1 head, 2 trunk, 3 arms, 4 legs (paper eq. 1-2).

    ``segmenter`` names the method; ``segmenter_hash`` is the SHA-256 of whatever decides its result: parameters and
    version, network weights, or the label file itself.
    """

    labels: LabelArray
    geometry: Geometry
    segmenter: str
    segmenter_hash: str

    def __post_init__(self) -> None:
        if self.labels.shape != self.geometry.shape:
            raise ValueError(f"labels {self.labels.shape} do not lie on the grid {self.geometry.shape}")
        if self.labels.dtype != np.uint8:
            raise ValueError(f"a DistrictMap holds uint8, not {self.labels.dtype}")

    def volumes_ml(self) -> dict[str, float]:
        """Volume of every district that is present, in ml, by name; labels of a finer partition by their number."""
        counts = np.bincount(self.labels.ravel(), minlength=256)
        present = [int(label) for label in np.flatnonzero(counts) if label]
        return {
            DISTRICT_NAMES.get(label, str(label)): float(counts[label]) * self.geometry.voxel_ml for label in present
        }


class Segmenter(Protocol):
    """Splits a body into districts: any backend (landmarks, a label map, a network) behind one call."""

    @property
    def name(self) -> str:
        """Short name, as the model card and the PET series record it."""
        ...

    @property
    def segmenter_hash(self) -> str:
        """SHA-256 of whatever decides the result: parameters and version, network weights, or the label file."""
        ...

    def segment(self, ct: Volume) -> DistrictMap:
        """The districts of a CT in HU, on ``ct.geometry``, whatever its axis order; raises Rejected for no body."""
        ...
