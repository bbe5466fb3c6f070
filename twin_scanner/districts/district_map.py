"""The district map: one label per voxel on the CT's own grid, their names, and the interface of every segmenter."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol, TypeAlias

import numpy as np
from pydicom.sr.coding import Code

from twin_scanner.imaging.district_labels import DISTRICT_NAMES, label_name
from twin_scanner.imaging.volume import Geometry, LabelArray, Volume, label_counts

Extent: TypeAlias = Literal["whole", "cut", "absent"]
"""How much of a part the field of view shows: all of it, a piece that the image's edge ends, or nothing."""
BorderState: TypeAlias = Literal["found", "estimated", "not in view"]
"""How its border to the trunk was set: by its landmarks, by the usual proportions, or nowhere in the image."""


@dataclass(frozen=True)
class PartQuality:
    """How well one part of the body was separated from the trunk; each arm is a part, ``confidence`` is from 0 to 1."""

    part: str
    extent: Extent
    border: BorderState
    confidence: float
    remark: str = ""

    @property
    def district(self) -> str:
        """The district that the part is, or is one half of."""
        return "arms" if self.part.endswith(" arm") else self.part

    def sentence(self) -> str:
        """For a report: 'left arm: cut by the field of view, border found, confidence 0.8.'"""
        extent = {"whole": "whole", "cut": "cut by the field of view", "absent": "not in the field of view"}
        if self.extent == "absent":
            return f"{self.part}: {extent[self.extent]}."
        remark = f" {self.remark}" if self.remark else ""
        return f"{self.part}: {extent[self.extent]}, border {self.border}, confidence {self.confidence:.1f}.{remark}"


@dataclass(frozen=True, eq=False)
class DistrictMap:
    """Where each district lies: uint8 (D, H, W), 0 outside the body, 1 head, 2 trunk, 3 arms, 4 legs (paper eq. 1-2).

    ``segmenter`` names the method; ``segmenter_hash`` is the SHA-256 of whatever decides its result: parameters and
    version, network weights, or the label file itself. ``names`` are those of the labels (a finer partition has its
    own), ``codes`` the DICOM concepts of names that are none of ours. ``quality`` says how sure the segmenter is of
    each part; empty where it does not assess itself.
    """

    labels: LabelArray
    geometry: Geometry
    segmenter: str
    segmenter_hash: str
    names: Mapping[int, str] = field(default_factory=lambda: DISTRICT_NAMES)
    quality: tuple[PartQuality, ...] = ()
    codes: Mapping[str, Code] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.labels.shape != self.geometry.shape:
            raise ValueError(f"labels {self.labels.shape} do not lie on the grid {self.geometry.shape}")
        if self.labels.dtype != np.uint8:
            raise ValueError(f"a DistrictMap holds uint8, not {self.labels.dtype}")

    @cached_property
    def voxels(self) -> dict[int, int]:
        """How many voxels each label has that is present, in the order of the labels."""
        counts = label_counts(self.labels)
        return {int(label): int(counts[label]) for label in np.flatnonzero(counts) if label}

    def name(self, label: int) -> str:
        """What a label is called."""
        return label_name(label, self.names)

    def volumes_ml(self) -> dict[str, float]:
        """Volume of every district that is present, in ml, by name."""
        return {self.name(label): count * self.geometry.voxel_ml for label, count in self.voxels.items()}


class Segmenter(Protocol):
    """Splits a body into districts by landmarks, a label map or a network."""

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
