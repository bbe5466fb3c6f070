"""The embedded segmenter: districts from bones, lungs and the skin alone, without weights."""

import hashlib
import json
from typing import Final

import numpy as np
from scipy import ndimage

from twin_scanner.districts import body, coarse_grid, islands, morphology
from twin_scanner.districts.coarse_grid import CoarseCt, coarse_ct, fine_slabs, to_ct_grid, upright_spacing_mm
from twin_scanner.districts.district_map import DistrictMap, PartQuality
from twin_scanner.districts.landmarks import arms, axial_skeleton, flesh, long_bones, lungs, shoulders, skull
from twin_scanner.districts.landmarks.quality import part_qualities
from twin_scanner.districts.morphology import BoolArray
from twin_scanner.imaging.district_labels import DISTRICT_LABELS
from twin_scanner.imaging.volume import LabelArray, Volume

VERSION: Final = "3"
"""Raised with every change of a rule; the parameters are hashed beside it."""


class LandmarkSegmenter:
    """Head, trunk, arms and legs by anatomical landmarks (borders: docs/segmenters.md)."""

    name: Final = "landmarks"

    @property
    def segmenter_hash(self) -> str:
        """SHA-256 of name, version and every parameter of the rules."""
        modules = (coarse_grid, body, islands, axial_skeleton, arms, flesh, long_bones, lungs, shoulders, skull)
        values = {
            f"{module.__name__.rpartition('.')[2]}.{key}": value
            for module in modules
            for key, value in sorted(vars(module).items())
            if key.isupper() and isinstance(value, int | float | tuple)
        }
        text = json.dumps({"name": self.name, "version": VERSION, "parameters": values}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def segment(self, ct: Volume) -> DistrictMap:
        """The districts of a CT in HU on its own grid; raises Rejected where it shows no human body."""
        coarse = coarse_ct(ct)
        mask = body.find_body(coarse)
        districts, quality = _districts(coarse, mask)
        upright = extended_to_skin(districts, coarse, body.refine_body(mask, coarse))
        islands.join_islands(upright, upright_spacing_mm(ct.geometry))
        return DistrictMap(
            to_ct_grid(upright, ct.geometry), ct.geometry, self.name, self.segmenter_hash, quality=quality
        )


def _districts(ct: CoarseCt, mask: BoolArray) -> tuple[LabelArray, tuple[PartQuality, ...]]:
    """One label for every voxel of the body on the coarse grid, and how sure each part is."""
    depth = morphology.depth_mm(mask | ~ct.seen, ct.spacing_mm)
    middle = axial_skeleton.midline(np.where(mask, depth, np.float32(0)), ct.spacing_mm)
    lateral = axial_skeleton.off_midline_mm(ct, middle)
    lung = lungs.find_lungs(ct, mask)
    head = skull.find_skull(ct, mask, lateral, lung)
    legs = axial_skeleton.find_legs_level(ct, mask, lateral, head.vault_slices > 0)
    labels = np.where(mask, np.uint8(DISTRICT_LABELS["trunk"]), np.uint8(0))
    labels[mask & head.head[:, :, None]] = DISTRICT_LABELS["head"]
    below = legs.first_trunk_slice
    labels[:below][mask[:below]] = DISTRICT_LABELS["legs"]
    found = arms.find_arms(arms.Surroundings(ct, mask, depth, lateral, lung, bool(head.head.any()), below))
    labels[found.mask] = DISTRICT_LABELS["arms"]
    return labels, part_qualities(ct, labels, lateral, head, legs, found, lung)


def extended_to_skin(districts: LabelArray, ct: CoarseCt, skin: BoolArray) -> LabelArray:
    """Coarse districts on the upright CT's grid: every voxel of the fine body mask takes the nearest coarse label."""
    spread = np.where(districts > 0, districts, _dilated(districts))
    fine = np.empty(skin.shape, np.uint8)
    for slices, labels in fine_slabs(spread, ct):
        np.multiply(labels, skin[slices], out=fine[slices])
    return fine


def _dilated(districts: LabelArray) -> LabelArray:
    """The largest label within one voxel: what the fine mask can reach beyond the coarse one."""
    return np.asarray(ndimage.grey_dilation(districts, size=(3, 3, 3)), dtype=np.uint8)
