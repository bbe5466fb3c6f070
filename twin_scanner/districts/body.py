"""The body mask: what of a CT is the patient, without table, blankets and the air around, with all the gas inside."""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from twin_scanner.districts.coarse_grid import CoarseCt, fine_slabs
from twin_scanner.districts.morphology import (
    SECTION,
    BoolArray,
    IntArray,
    dilated,
    eroded,
    grown,
    opened,
    section_holes,
)
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import Triple

SKIN_HU: Final = -250.0
"""Fat (-120) is above, the foam and carbon of tables (-300 to -900) below; half-way from skin to air is about -480."""
PLATE_MM: Final = 8.0
"""Opening radius: table shells, cables, blankets and the rims of headrests are thinner than twice this."""
REGROWTH_MM: Final = 10.0
"""What the opening cut off grows back this far: fingers, ears, the nose around its cavity, a thin chest wall."""
SMALLEST_PART_ML: Final = 60.0
"""A forearm or a foot cut by the field of view has more; what has less is a cable, a tube or a cushion's rim."""
SMALLEST_HAND_ML: Final = 15.0
"""What the end of the image leaves of a hand."""
HAND_BONE: Final = 0.03
"""Share of bone from which so small a part is a hand; a cushion has none."""
METAL: Final = 0.5
"""The share of bone in a hand is less; cables and the metal in a table have more."""
SMALLEST_BODY_ML: Final = 300.0
"""An infant's head has about 500 ml."""
LEAST_BONE: Final = 0.002
"""Share of bone in a body: 2 to 15 % in patients, still 1 % in an obese abdomen; none in a water phantom."""
LEAST_WALL: Final = 0.5
"""Thick wall, mediastinum and diaphragm are more than this share of a lung's surface; a table's hollow has less."""
AIRWAY_MM: Final = 8.0
"""Air outside the body is reached through openings wider than twice this; nostrils, pharynx and glottis are not."""
LUNG_HU: Final = (-940.0, -500.0)
"""Block means of lung; gas in the bowel and air outside lie below, fat and consolidation above."""
LEAST_CUT_LUNG_ML: Final = 15.0
"""What the end or the side of the image leaves of a lung; smaller pieces are stool with gas, or a fold of foam."""
TISSUE_HU: Final = (-150.0, 250.0)
"""Fat to enhanced tissue: a patient is mostly this."""


def find_body(ct: CoarseCt) -> BoolArray:
    """The body on the coarse grid (D, H, W), lungs and bowel gas included; raises Rejected where there is none."""
    tissue = ct.hu > SKIN_HU
    thick = opened(tissue, PLATE_MM, ct.spacing_mm) & tissue
    body = _human_parts(thick, ct)
    if float(body.sum()) * ct.voxel_ml < SMALLEST_BODY_ML:
        raise Rejected("The CT shows no human body: no tissue of a patient's size was found; check what was scanned.")
    body |= _gas_within(tissue, body, ct)
    body |= tissue & dilated(body, REGROWTH_MM, ct.spacing_mm)
    body = fill_gas(body, ct.spacing_mm)
    cut = _lung_open_to_the_side(body, ct)
    if cut.any():
        body = fill_gas(body | cut, ct.spacing_mm)
    if float(ct.bone[body].mean()) < LEAST_BONE:
        raise Rejected(
            "The CT shows no human body: it holds no skeleton; a phantom of water or plastic has no districts."
        )
    return body


def refine_body(coarse: BoolArray, ct: CoarseCt) -> BoolArray:
    """The body on the upright CT's own grid: all that lies inside the coarse mask, and what is dense at its rim."""
    structure = ndimage.generate_binary_structure(3, 1)
    rim, inside = ndimage.binary_dilation(coarse, structure), ndimage.binary_erosion(coarse, structure, border_value=1)
    fine = np.empty(ct.fine.shape, np.bool_)
    for (slices, of_rim), (_, of_inside) in zip(fine_slabs(rim, ct), fine_slabs(inside, ct), strict=True):
        np.greater(ct.fine[slices], SKIN_HU, out=fine[slices])
        fine[slices] &= of_rim.astype(np.bool_, copy=False)
        fine[slices] |= of_inside.astype(np.bool_, copy=False)
    return fine


def fill_gas(body: BoolArray, spacing_mm: Triple) -> BoolArray:
    """The mask with lungs, airways and bowel gas filled, also where the field of view cuts them open.

    Gas lies in a hole of an axial slice and is not reached from the sides of the image by a cube of AIRWAY_MM: so
    the lungs stay inside although they are open to the nose, and the gap between an arm and the chest stays outside.
    """
    closed = ndimage.binary_dilation(body, SECTION)
    holes = section_holes(body) | section_holes(closed)
    wide = eroded(~body, AIRWAY_MM, spacing_mm)
    outside = dilated(_reached_from_the_sides(wide), AIRWAY_MM, spacing_mm)
    return body | (holes & ~outside)


def _human_parts(thick: BoolArray, ct: CoarseCt) -> BoolArray:
    """Parts that are large and of tissue: trunk, head, limbs; not the table, a cushion or a cable."""
    labels, count = ndimage.label(thick)
    if count == 0:
        return np.zeros_like(thick)
    parts = labels[thick]
    voxels = np.maximum(np.bincount(parts, minlength=count + 1), 1)
    volume_ml = voxels * ct.voxel_ml
    in_tissue = ((ct.hu > TISSUE_HU[0]) & (ct.hu < TISSUE_HU[1])) | (ct.bone > 0)
    tissue = np.bincount(parts, weights=in_tissue[thick], minlength=count + 1) / voxels
    bone = np.bincount(parts, weights=ct.bone[thick], minlength=count + 1) / voxels
    large = (volume_ml >= SMALLEST_PART_ML) & ((bone > LEAST_BONE) | (volume_ml == volume_ml[1:].max()))
    small = (volume_ml >= SMALLEST_HAND_ML) & (bone > HAND_BONE) & (bone < METAL)
    human = (large | (small & _between_front_and_back(labels, large))) & (tissue > 0.5)
    human[0] = False
    return np.asarray(human[labels])


def _between_front_and_back(labels: IntArray, large: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which parts lie, by their middle row, between front and back of the large ones: a hand does, a table does not."""
    large = large.copy()
    large[0] = False
    rows = np.flatnonzero(large[labels].any(axis=(0, 2)))
    inside = np.zeros(large.size, np.bool_)
    for number, part in enumerate(ndimage.find_objects(labels), 1):
        middle = (part[1].start + part[1].stop - 1) / 2.0
        inside[number] = rows.size > 0 and rows[0] <= middle <= rows[-1]
    return inside


def _gas_within(tissue: BoolArray, body: BoolArray, ct: CoarseCt) -> BoolArray:
    """Lungs and nasal cavity behind a wall so thin that the opening took it; not the hollow of a table at the back."""
    gas = fill_gas(tissue, ct.spacing_mm) & ~tissue
    labels, count = ndimage.label(gas)
    wall = np.where(gas, 0, ndimage.maximum_filter(labels, size=3, mode="nearest"))
    around = np.bincount(wall.ravel(), minlength=count + 1)
    of_body = np.bincount(wall[body], minlength=count + 1)
    inside = of_body > LEAST_WALL * np.maximum(around, 1)
    inside[0] = False
    return np.asarray(inside[labels])


def _lung_open_to_the_side(body: BoolArray, ct: CoarseCt) -> BoolArray:
    """Lung that a field of view narrower than the chest cuts open, with its rims towards what it shows of the wall.

    It is known by its HU, and by the wall, mediastinum and diaphragm around most of it and on two opposite sides of
    it; foam and blankets lie on one side of the patient.
    """
    in_range = ct.seen & ~body & (ct.hu > LUNG_HU[0]) & (ct.hu < LUNG_HU[1])
    structure = ndimage.generate_binary_structure(3, 1)
    core = ndimage.binary_dilation(ndimage.binary_erosion(in_range, structure, border_value=1), structure) & in_range
    labels, count = ndimage.label(core)
    around = np.where(core | ~ct.seen, 0, ndimage.maximum_filter(labels, size=3, mode="nearest"))
    wall = np.bincount(around[ndimage.binary_dilation(body, structure)], minlength=count + 1)
    enclosed = np.bincount(labels[_between_parts(body)], minlength=count + 1)
    surface, voxels = (np.bincount(numbers.ravel(), minlength=count + 1) for numbers in (around, labels))
    lung = np.zeros(count + 1, np.bool_)
    lung[labels[:, at_the_side(ct)]] = True
    lung &= (voxels * ct.voxel_ml >= LEAST_CUT_LUNG_ML) & (wall > LEAST_WALL * surface)
    lung &= enclosed > LEAST_WALL * voxels
    lung[0] = False
    return np.asarray(grown(lung[labels]) & ct.seen & (ct.hu > LUNG_HU[0]))


def _between_parts(body: BoolArray) -> BoolArray:
    """What has the body before and behind it, or to its right and left, in its axial slice."""
    between = np.zeros_like(body)
    for axis in (1, 2):
        beyond = np.flip(np.logical_or.accumulate(np.flip(body, axis), axis), axis)
        between |= np.logical_or.accumulate(body, axis) & beyond
    return between


def _reached_from_the_sides(air: BoolArray) -> BoolArray:
    """Air connected to the sides of the image; its top and bottom do not count, there the lungs lie open."""
    labels, count = ndimage.label(air)
    if count == 0:
        return np.zeros_like(air)
    sides = np.concatenate([labels[:, (0, -1), :].ravel(), labels[:, :, (0, -1)].ravel()])
    reached = np.zeros(count + 1, np.bool_)
    reached[sides] = True
    reached[0] = False
    return np.asarray(reached[labels])


def at_the_side(ct: CoarseCt) -> BoolArray:
    """The rim (H, W) of the field of view: the sides of the image, or those of the circle inside it."""
    return np.asarray(ct.seen & ~ndimage.binary_erosion(ct.seen, ndimage.generate_binary_structure(2, 2)))
