"""Districts from a label map that someone else drew: a NIfTI file, checked against the CT it is meant for."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from twin_scanner.districts.district_map import DistrictMap
from twin_scanner.errors import Rejected
from twin_scanner.partition import DISTRICT_LABELS
from twin_scanner.volume import Geometry, LabelArray, Volume, read_nifti_labels, resample_labels

MOOSE_TABLE: Final = MappingProxyType({0: 0, 3: 1, 2: 2, 4: 3, 1: 4})
"""MOOSE's clin_ct_body (1 legs, 2 body, 3 head, 4 arms) in the paper's order."""
COVERAGE_TOLERANCE_MM: Final = 5.0
"""A map on a grid of 5 mm, as MOOSE draws it, may end this much before the CT's last voxel; its last labels go on."""
TISSUE_HU: Final = -300.0
"""Denser than lung and air."""
LEAST_TISSUE: Final = 0.4
"""Share of tissue under the labels: 0.7 to 1 in patients; a map that is flipped or of another patient lies in air."""


class LabelmapSegmenter:
    """Reads the districts from a NIfTI file; ``table`` turns its values into 0 to 4, without one they are those."""

    name: Final = "labelmap"

    def __init__(self, path: Path, table: Mapping[int, int] | None = None) -> None:
        self.path = path
        self.table = dict(table) if table is not None else None
        wrong = sorted(set((self.table or {}).values()) - {0, *DISTRICT_LABELS.values()})
        if wrong:
            raise Rejected(
                f"The label table leads to {wrong}, which are no districts: use 0 to {len(DISTRICT_LABELS)}."
            )

    @property
    def segmenter_hash(self) -> str:
        """SHA-256 of the file and the table; raises Rejected where the file cannot be read."""
        try:
            digest = hashlib.sha256(self.path.read_bytes())
        except OSError as error:
            raise Rejected(f"The label map {self.path.name} cannot be read: give a NIfTI file.") from error
        digest.update(json.dumps(sorted((self.table or {}).items())).encode())
        return digest.hexdigest()

    def segment(self, ct: Volume) -> DistrictMap:
        """The file's labels on the CT's grid, nearest neighbour; raises Rejected for a map that does not fit the CT."""
        values, geometry = read_nifti_labels(self.path)
        labels = self._districts(values)
        self._check_coverage(geometry, ct.geometry)
        on_ct = resample_labels(*_with_rim(labels, geometry), ct.geometry)
        self._check_tissue(on_ct, ct)
        return DistrictMap(on_ct, ct.geometry, self.name, self.segmenter_hash)

    def _districts(self, values: LabelArray) -> LabelArray:
        """The values of the file as districts; raises Rejected for a value that is none and is not in the table."""
        present = {int(value) for value in np.unique(values)}
        table = self.table if self.table is not None else {v: v for v in (0, *DISTRICT_LABELS.values())}
        unknown = sorted(present - table.keys() - {0})
        if unknown:
            raise Rejected(
                f"{self.path.name} holds labels {unknown} that are no district: give a table that maps them."
            )
        lookup = np.zeros(256, np.uint8)
        for source, district in table.items():
            lookup[source] = district
        return lookup[values]

    def _check_coverage(self, source: Geometry, target: Geometry) -> None:
        """Raise Rejected where a corner voxel of the CT lies outside the label map's field of view."""
        far = [n - 1 for n in target.shape]
        corners = np.array([[d, h, w, 1.0] for d in (0, far[0]) for h in (0, far[1]) for w in (0, far[2])])
        index = (np.linalg.inv(source.affine) @ target.affine @ corners.T)[:3].T
        slack = 0.5 + COVERAGE_TOLERANCE_MM / np.asarray(source.spacing_mm)
        if np.any(index < -slack) or np.any(index > np.asarray(source.shape) - 1 + slack):
            raise Rejected(f"{self.path.name} does not cover the CT's field of view: draw it on this CT.")

    def _check_tissue(self, labels: LabelArray, ct: Volume) -> None:
        """Raise Rejected where the labels are empty or lie mostly in air."""
        labelled = ct.array[labels > 0]
        if not labelled.size:
            raise Rejected(f"{self.path.name} labels nothing of the CT: draw the four districts on this CT.")
        if float((labelled > TISSUE_HU).mean()) < LEAST_TISSUE:
            raise Rejected(f"{self.path.name} labels mostly air of the CT: it is of another scan, or flipped.")


def _with_rim(labels: LabelArray, geometry: Geometry) -> tuple[LabelArray, Geometry]:
    """The map with its outermost labels repeated over COVERAGE_TOLERANCE_MM on every side."""
    d, h, w = (int(np.ceil(COVERAGE_TOLERANCE_MM / s)) for s in geometry.spacing_mm)
    padded = np.pad(labels, [(d, d), (h, h), (w, w)], mode="edge")
    i, j, k = padded.shape
    return padded, replace(geometry, shape=(i, j, k), origin_lps_mm=geometry.position_lps_mm((-d, -h, -w)))
