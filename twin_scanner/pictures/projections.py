"""What stands along each line of sight: coronal and sagittal projections of CT, districts and PET, as plain arrays."""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from twin_scanner.errors import Defect
from twin_scanner.imaging.volume import FloatArray, LabelArray, Volume

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Markers: TypeAlias = tuple[str, str, str, str]

MARGIN_MM: Final = 25.0
"""Shown beyond the outermost labelled voxel: enough to notice a limb that the districts miss."""
_UPRIGHT: Final = ((2, 1.0), (1, 1.0), (0, 1.0))
"""The main LPS component of the canonical axes and its sign: D to the head, H to the back, W to the left."""


@dataclass(frozen=True, eq=False)
class View:
    """One direction's projections, each (rows, columns): the first row at the feet, columns in the order of reading.

    ``ct_body_hu`` and ``ct_hu`` are maxima inside the districts and over everything; ``suv`` is the maximum in g/ml.
    ``prevailing`` holds the district that most of the line of sight goes through, ``silhouettes`` where each district
    is met at all. ``markers`` name the left, right, upper and lower side of the picture: PS3.3 C.7.6.1.1.1.
    """

    name: str
    markers: Markers
    spacing_mm: tuple[float, float]
    ct_body_hu: FloatArray
    ct_hu: FloatArray
    suv: FloatArray
    prevailing: LabelArray
    silhouettes: dict[int, BoolArray]

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width, edge to edge."""
        rows, columns = self.prevailing.shape
        return rows * self.spacing_mm[0], columns * self.spacing_mm[1]


@dataclass(frozen=True, eq=False)
class Projections:
    """Both views of one scene, and how many voxels each label that is present has."""

    coronal: View
    sagittal: View
    voxels: dict[int, int]


def project(ct: Volume, districts: LabelArray, suv: Volume) -> Projections:
    """The coronal and the sagittal view of a CT (HU), its districts and a PET (SUV g/ml) on one canonical grid.

    Seen from the front with the patient's right on the left, and from the patient's left side with the front on the
    left; cropped across to the districts and MARGIN_MM. Raises Defect where the three do not share one upright grid.
    """
    _check(ct, districts, suv)
    body_hu = np.where(districts > 0, ct.array, ct.array.min())
    labels, counts = _counts(districts)
    return Projections(
        _view("coronal", ("R", "L", "H", "F"), 1, ct, body_hu, suv, labels, counts[0]),
        _view("sagittal", ("A", "P", "H", "F"), 2, ct, body_hu, suv, labels, counts[1]),
        {label: int(voxels) for label, voxels in zip(labels, counts[0].sum(axis=(0, 1)), strict=True)},
    )


def _check(ct: Volume, districts: LabelArray, suv: Volume) -> None:
    if districts.shape != ct.geometry.shape or not ct.geometry.same_grid(suv.geometry):
        raise Defect("CT, districts and PET do not share one grid: they cannot be shown together.")
    for axis, (main, sign) in zip(ct.geometry.direction, _UPRIGHT, strict=True):
        if int(np.argmax(np.abs(axis))) != main or axis[main] * sign < 0:
            raise Defect("CT, districts and PET do not stand upright: turn them to canonical axes first.")


def _counts(districts: LabelArray) -> tuple[list[int], tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
    """The labels that are present, and how often each line of sight meets them: (D, W, labels) and (D, H, labels)."""
    slices, rows, columns = districts.shape
    present = np.zeros(256, bool)
    for plane in districts:
        present |= np.bincount(plane.ravel(), minlength=256) > 0
    present[0] = True
    labels = np.flatnonzero(present)
    place = np.zeros(256, np.int64)
    place[labels] = np.arange(len(labels))
    coronal = np.empty((slices, columns, len(labels)), np.int32)
    sagittal = np.empty((slices, rows, len(labels)), np.int32)
    for plane, front, side in zip(districts, coronal, sagittal, strict=True):
        code = place[plane]
        across = np.arange(columns) * len(labels)
        front[:] = np.bincount((code + across).ravel(), minlength=front.size).reshape(front.shape)
        back = np.arange(rows)[:, None] * len(labels)
        side[:] = np.bincount((code + back).ravel(), minlength=side.size).reshape(side.shape)
    return [int(label) for label in labels[1:]], (coronal[:, :, 1:], sagittal[:, :, 1:])


def _view(
    name: str,
    markers: Markers,
    sight: int,
    ct: Volume,
    body_hu: FloatArray,
    suv: Volume,
    labels: list[int],
    counts: npt.NDArray[np.int32],
) -> View:
    """The view along array axis ``sight``, 1 or 2; the other of them runs across the picture."""
    spacing_mm = ct.geometry.spacing_mm[0], ct.geometry.spacing_mm[3 - sight]
    met = counts > 0
    window = _window(np.flatnonzero(met.any(axis=(0, 2))), met.shape[1], spacing_mm[1])
    shown = met[:, window]
    prevailing = np.zeros(shown.shape[:2], np.uint8)
    if labels:
        most = np.asarray(labels, np.uint8)[counts[:, window].argmax(axis=2)]
        prevailing = np.where(shown.any(axis=2), most, np.uint8(0))
    return View(
        name=name,
        markers=markers,
        spacing_mm=spacing_mm,
        ct_body_hu=body_hu.max(axis=sight)[:, window],
        ct_hu=ct.array.max(axis=sight)[:, window],
        suv=suv.array.max(axis=sight)[:, window],
        prevailing=prevailing,
        silhouettes={label: shown[:, :, place] for place, label in enumerate(labels) if shown[:, :, place].any()},
    )


def _window(occupied: npt.NDArray[np.intp], columns: int, spacing_mm: float) -> slice:
    """The columns with the body and a margin; all of them where there is no body."""
    if not len(occupied):
        return slice(0, columns)
    margin = int(np.ceil(MARGIN_MM / spacing_mm))
    return slice(max(0, int(occupied[0]) - margin), min(columns, int(occupied[-1]) + 1 + margin))
