"""Districts from a label map of any origin, NIfTI or DICOM SEG: read by a label table and checked against the CT."""

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from twin_scanner.dicom.read.segmentation import (
    SegmentationFile,
    is_dicom_file,
    read_segmentation,
    segmentation_labels,
)
from twin_scanner.districts.coarse_grid import to_ct_grid, to_upright
from twin_scanner.districts.completion import every_voxel_labelled, upright_body
from twin_scanner.districts.district_map import DistrictMap
from twin_scanner.districts.label_table import DISTRICTS_TABLE, LabelTable
from twin_scanner.districts.morphology import BoolArray
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import (
    LARGEST_LABEL_VALUE,
    Geometry,
    LabelArray,
    Volume,
    read_nifti_label_values,
    resample_labels,
)

COVERAGE_TOLERANCE_MM: Final = 5.0
"""A map on a grid of 5 mm, as MOOSE's, may end this much before the body's last voxel; its last labels go on."""
LEAST_INSIDE: Final = 0.9
"""Share of the labels that lies in the body: 0.99 for a right map, also on 5 mm; 0.79 to 0.89 where it was flipped
front to back or shifted by 30 mm (both measured on real CTs of thorax and pelvis)."""
LEAST_LABELLED: Final = 0.5
"""Share of the body that has a label; below it 'the nearest label' would invent more than it repairs."""
SUFFIXES: Final = (".nii.gz", ".nii", ".dcm")
UID: Final = re.compile(r"(?=.{1,64}$)(0|[1-9]\d*)(\.(0|[1-9]\d*))*")
"""PS3.5 9.1; so no UID is a way out of the folder."""


@dataclass(frozen=True, eq=False)
class _LabelsInSpace:
    """Labels (D, H, W) where the file has them; ``bounded`` says along which axes the file ends where its grid does."""

    labels: LabelArray
    geometry: Geometry
    bounded: tuple[bool, bool, bool]


class LabelmapSegmenter:
    """Reads the districts, or finer parts, from a file; ``table`` says what its values or segments mean.

    ``frame_of_reference_uid`` is the CT's; a DICOM SEG of another one is refused, a NIfTI file does not know its own.
    """

    name: Final = "labelmap"

    def __init__(
        self, path: Path, table: LabelTable = DISTRICTS_TABLE, frame_of_reference_uid: str | None = None
    ) -> None:
        self.path = path
        self.table = table
        self.frame_of_reference_uid = frame_of_reference_uid

    @property
    def segmenter_hash(self) -> str:
        """SHA-256 of the file and the table; raises Rejected where the file cannot be read."""
        self._check_file()
        try:
            digest = hashlib.sha256(self.path.read_bytes())
        except OSError as error:
            raise Rejected(f"The label map {self.path.name} cannot be read: check its rights.") from error
        digest.update(self.table.as_json().encode())
        return digest.hexdigest()

    def segment(self, ct: Volume) -> DistrictMap:
        """The file's labels on the CT's grid, nearest neighbour, every voxel of the body with one of them.

        What the file leaves unlabelled inside the body becomes the table's ``rest``, or takes the nearest label;
        labels outside the body are dropped. Raises Rejected for a file that does not fit the CT or the table.
        """
        self._check_file()
        found = self._read()
        inside, spacing_mm = upright_body(ct)
        self._check_coverage(found, to_ct_grid(inside.view(np.uint8), ct.geometry).view(np.bool_), ct.geometry)
        upright = to_upright(_on_grid(found, ct.geometry), ct.geometry)
        self._check_overlap(upright, inside)
        complete = every_voxel_labelled(upright, inside, spacing_mm, self.table.rest)
        labels = to_ct_grid(complete, ct.geometry)
        return DistrictMap(
            labels, ct.geometry, self.name, self.segmenter_hash, names=self.table.names, codes=self.table.codes
        )

    def _check_file(self) -> None:
        if self.path.is_dir():
            raise Rejected(f"{self.path} is a folder: give one label map, or one named by its CT's SeriesInstanceUID.")
        if not self.path.is_file():
            raise Rejected(f"{self.path} does not exist: give a label map (.nii, .nii.gz or a DICOM Segmentation).")

    def _read(self) -> _LabelsInSpace:
        if is_dicom_file(self.path):
            return self._from_segmentation(read_segmentation(self.path))
        values, geometry = read_nifti_label_values(self.path)
        return _LabelsInSpace(self._labels_of(values), geometry, (True, True, True))

    def _from_segmentation(self, segmentation: SegmentationFile) -> _LabelsInSpace:
        if self.frame_of_reference_uid not in (None, segmentation.frame_of_reference_uid):
            raise Rejected(
                f"{self.path.name} lies in another frame of reference than the CT: give the segmentation of this CT."
            )
        listed = {s.number: self.table.of_segment(s.number, s.label) for s in segmentation.segments}
        label_of = {number: label for number, label in listed.items() if label is not None}
        labels = segmentation_labels(segmentation, label_of)
        # Frames without a label may be left out: what lies beyond the last one is known only where no rest is named.
        return _LabelsInSpace(labels, segmentation.geometry, (self.table.rest is None, True, True))

    def _labels_of(self, values: npt.NDArray[np.uint16]) -> LabelArray:
        """Our labels for the values of the file, plane by plane; raises Rejected for values that the table lacks."""
        present = np.zeros(LARGEST_LABEL_VALUE + 1, np.bool_)
        for plane in values:
            present[plane] = True
        label_of = {int(value): self.table.of_value(int(value)) for value in np.flatnonzero(present)}
        unlisted = [value for value, label in label_of.items() if label is None]
        if unlisted:
            shown = ", ".join(str(value) for value in unlisted[:10]) + (", ..." if len(unlisted) > 10 else "")
            raise Rejected(
                f"{self.path.name} holds labels that the label table does not list ({shown}): add them, or set "
                "ignore_unlisted in the table."
            )
        lookup = np.zeros(LARGEST_LABEL_VALUE + 1, np.uint8)
        for value, label in label_of.items():
            lookup[value] = label or 0
        labels = np.empty(values.shape, np.uint8)
        for target, plane in zip(labels, values, strict=True):
            target[...] = lookup[plane]
        return labels

    def _check_coverage(self, found: _LabelsInSpace, inside: BoolArray, target: Geometry) -> None:
        """Raise Rejected where the body reaches beyond the map's field of view."""
        source = found.geometry
        rows = np.argwhere(inside.any(axis=2))
        line = inside[rows[:, 0], rows[:, 1]]
        ends = [line.argmax(axis=1), target.shape[2] - 1 - line[:, ::-1].argmax(axis=1)]
        surface = np.concatenate([np.column_stack([rows, end, np.ones(len(rows))]) for end in ends])
        index = (surface @ (np.linalg.inv(source.affine) @ target.affine).T)[:, :3]
        slack = 0.5 + COVERAGE_TOLERANCE_MM / np.asarray(source.spacing_mm)
        beyond = (index < -slack) | (index > np.asarray(source.shape) - 1 + slack)
        if bool((beyond.any(axis=0) & np.array(found.bounded)).any()):
            raise Rejected(f"{self.path.name} does not cover the body in the CT: draw it on this CT, whole.")

    def _check_overlap(self, labels: LabelArray, inside: BoolArray) -> None:
        """Raise Rejected where nothing is labelled, much of it outside the body, or little of the body without rest."""
        labelled = labels > 0
        total = np.count_nonzero(labelled)
        if not total:
            raise Rejected(f"{self.path.name} labels nothing of the CT: draw it on this CT.")
        labelled &= inside
        within = np.count_nonzero(labelled)
        if within < LEAST_INSIDE * total:
            raise Rejected(
                f"{self.path.name} lies outside the body by {1 - within / total:.0%}: it is of another scan, or "
                "flipped."
            )
        share = within / np.count_nonzero(inside)
        if self.table.rest is None and share < LEAST_LABELLED:
            raise Rejected(
                f"{self.path.name} labels only {share:.0%} of the body: draw the whole body, or name a rest in "
                "the label table."
            )


def find_labelmap(folder: Path, series_uid: str, study_uid: str) -> Path:
    """The label map of a CT in a folder: SERIES_UID or STUDY_UID with .nii.gz, .nii or .dcm; the series' own first.

    Raises Rejected where there is none, where two have the same name, and for what is no UID.
    """
    if not folder.is_dir():
        raise Rejected(f"The folder of label maps {folder} does not exist: set districts.labelmap to one that does.")
    if not all(UID.fullmatch(uid) for uid in (series_uid, study_uid)):
        raise Rejected("SeriesInstanceUID or StudyInstanceUID of the CT is no UID: correct the sender.")
    for uid in (series_uid, study_uid):
        found = [path for suffix in SUFFIXES if (path := folder / f"{uid}{suffix}").is_file()]
        if len(found) > 1:
            names = " and ".join(path.name for path in found)
            raise Rejected(f"The folder of label maps holds {names}: leave one of them.")
        if found:
            return found[0]
    raise Rejected(
        f"There is no label map for series {series_uid}: put {series_uid}.nii.gz or .dcm into the folder of label "
        "maps, then send the CT again."
    )


def _on_grid(found: _LabelsInSpace, geometry: Geometry) -> LabelArray:
    return found.labels if found.geometry.same_grid(geometry) else resample_labels(*_with_rim(found), geometry)


def _with_rim(found: _LabelsInSpace) -> tuple[LabelArray, Geometry]:
    """The map with its outermost labels repeated over COVERAGE_TOLERANCE_MM along the axes where its grid ends it."""
    d, h, w = (
        int(np.ceil(COVERAGE_TOLERANCE_MM / s)) if ends else 0
        for s, ends in zip(found.geometry.spacing_mm, found.bounded, strict=True)
    )
    padded = np.pad(found.labels, [(d, d), (h, h), (w, w)], mode="edge")
    i, j, k = padded.shape
    return padded, replace(found.geometry, shape=(i, j, k), origin_lps_mm=found.geometry.position_lps_mm((-d, -h, -w)))
