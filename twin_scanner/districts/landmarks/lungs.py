"""The lungs: they separate chest from belly, shoulder from hip, and a raised arm from a lowered one."""

from typing import Final

import numpy as np
from scipy import ndimage

from twin_scanner.districts.body import LEAST_CUT_LUNG_ML, LUNG_HU, at_the_side
from twin_scanner.districts.coarse_grid import CoarseCt
from twin_scanner.districts.morphology import BoolArray

LUNG_MM2: Final = 800.0
"""Lung in one slice; trachea and main bronchi have 300 mm2, and partial volume at bowel gas less."""
LEAST_LUNG_ML: Final = 60.0
"""Stool mixed with gas looks alike, in smaller pieces."""


def find_lungs(ct: CoarseCt, body: BoolArray) -> BoolArray:
    """The lungs (D, H, W) but for their rims; bowel gas is darker, the trachea smaller."""
    lung = body & (ct.hu > LUNG_HU[0]) & (ct.hu < LUNG_HU[1])
    labels, count = ndimage.label(ndimage.binary_opening(lung, ndimage.generate_binary_structure(3, 1)))
    volume = np.bincount(labels.ravel(), minlength=count + 1) * ct.voxel_ml
    cut = np.zeros(count + 1, np.bool_)
    cut[labels[:2]] = True
    cut[labels[-2:]] = True
    cut[labels[:, at_the_side(ct)]] = True
    large = volume >= np.where(cut, LEAST_CUT_LUNG_ML, LEAST_LUNG_ML)
    large[0] = False
    lungs = np.asarray(large[labels])
    lungs[lungs.sum(axis=(1, 2)) * ct.voxel_mm2 <= LUNG_MM2] = False
    return lungs
