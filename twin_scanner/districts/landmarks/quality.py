"""How sure the landmark segmenter is of each part: what of it the image shows, how its border was set, how well."""

from typing import Final

import numpy as np

from twin_scanner.districts.body import at_the_side
from twin_scanner.districts.coarse_grid import CoarseCt
from twin_scanner.districts.district_map import BorderState, Extent, PartQuality
from twin_scanner.districts.landmarks.arms import Arms
from twin_scanner.districts.landmarks.axial_skeleton import LegsLevel
from twin_scanner.districts.landmarks.skull import Skull
from twin_scanner.districts.morphology import BoolArray
from twin_scanner.imaging.district_labels import DISTRICT_LABELS
from twin_scanner.imaging.volume import FloatArray, LabelArray

LEAST_ML: Final = 5.0
"""A part of which the image shows less is absent: a rim at its edge."""
SMALL_ML: Final = 400.0
"""Where the image shows less of a part, its border is a large share of it."""
FOUND: Final = 0.95
"""Confidence where every landmark of the border was found; all of these were set on phantoms."""
ESTIMATED: Final = 0.7
"""Confidence where one of two landmarks is missing and the usual proportions stand for it."""
LONE: Final = 0.6
"""Confidence where only a mandible is seen, or an arm that touches the trunk and whose shoulder is not in the image."""
NOT_IN_VIEW: Final = 0.9
"""Confidence where the border lies beyond the image, so that all of the part that is seen is one district."""
NEAR_THE_END_MM: Final = 25.0
"""A border nearer than this to the end of the image may be that end itself."""
LOSS: Final = 0.15
"""What each doubt takes off: a border near the end, a small part, an arm cut at its side or laid on the trunk."""


def part_qualities(
    ct: CoarseCt,
    labels: LabelArray,
    lateral: FloatArray,
    head: Skull,
    legs: LegsLevel,
    arms: Arms,
    lungs: BoolArray,
) -> tuple[PartQuality, ...]:
    """Head, right arm, left arm and legs, and the trunk where its lungs are cut at the side of the image.

    ``labels`` are the districts on the coarse grid (D, H, W).
    """
    return (
        *_trunk(ct, lungs),
        _head(ct, labels == DISTRICT_LABELS["head"], head),
        _arm(ct, labels == DISTRICT_LABELS["arms"], lateral, arms, "right arm"),
        _arm(ct, labels == DISTRICT_LABELS["arms"], lateral, arms, "left arm"),
        _legs(ct, labels == DISTRICT_LABELS["legs"], legs),
    )


def _trunk(ct: CoarseCt, lungs: BoolArray) -> tuple[PartQuality, ...]:
    if not lungs[:, at_the_side(ct)].any():
        return ()
    remark = "A lung is cut at the side of the image: what is seen of it counts as body."
    return (PartQuality("trunk", "cut", "found", FOUND - LOSS, remark),)


def _head(ct: CoarseCt, mask: BoolArray, head: Skull) -> PartQuality:
    extent = _extent(ct, mask, ends=(len(mask) - 1,))
    seen = (head.chin, head.occiput)
    if extent == "absent":
        return PartQuality("head", extent, "not in view", NOT_IN_VIEW)
    if seen == ("found", "found"):
        return PartQuality("head", extent, "found", FOUND)
    if "found" not in seen:
        return PartQuality("head", extent, "not in view", NOT_IN_VIEW)
    if head.vault_slices:
        missing = "mandible" if head.occiput == "found" else "occiput"
        return PartQuality("head", extent, "estimated", ESTIMATED, f"The {missing} was not found.")
    return PartQuality("head", extent, "estimated", LONE, "The mandible alone was found.")


def _arm(ct: CoarseCt, mask: BoolArray, lateral: FloatArray, arms: Arms, part: str) -> PartQuality:
    side = lateral < 0 if part == "right arm" else lateral >= 0
    mine = mask & side
    extent = _extent(ct, mine, ends=(0, len(mask) - 1))
    if extent == "absent":
        return PartQuality(part, extent, "not in view", NOT_IN_VIEW)
    heads = [one.head for one in arms.humeri if one.has_head]
    columns = [round(head[2] / ct.spacing_mm[2]) for head in heads]
    slices = [round(head[0] / ct.spacing_mm[0]) for head in heads]
    found = any(side[d, 0, w] for d, w in zip(slices, columns, strict=True))
    touching = float((mine & arms.touching).sum()) / float(mine.sum())
    border: BorderState = "found" if found else "estimated" if touching > 0 else "not in view"
    confidence = {"found": FOUND, "estimated": LONE, "not in view": NOT_IN_VIEW}[border]
    remarks = []
    if touching > 0 and not found:
        remarks.append("The shoulder joint was not found.")
    confidence -= LOSS * touching
    if bool(mine[:, at_the_side(ct)].any()):
        confidence -= LOSS
        remarks.append("It is cut at the side.")
    if float(mine.sum()) * ct.voxel_ml < SMALL_ML:
        confidence -= LOSS
    return PartQuality(part, extent, border, round(confidence, 2), " ".join(remarks))


def _legs(ct: CoarseCt, mask: BoolArray, legs: LegsLevel) -> PartQuality:
    extent = _extent(ct, mask, ends=(0,))
    if extent == "absent" or legs.view == "no legs":
        return PartQuality("legs", "absent", "not in view", NOT_IN_VIEW)
    if legs.view == "legs only":
        return PartQuality("legs", extent, "not in view", NOT_IN_VIEW)
    near = min(legs.first_trunk_slice, len(mask) - legs.first_trunk_slice) * ct.spacing_mm[0] < NEAR_THE_END_MM
    remark = "Their border lies near the end of the image." if near else ""
    return PartQuality("legs", extent, "found", round(FOUND - LOSS * near, 2), remark)


def _extent(ct: CoarseCt, mask: BoolArray, ends: tuple[int, ...]) -> Extent:
    """Whether a part reaches the given end slices of the image or its side."""
    if float(mask.sum()) * ct.voxel_ml < LEAST_ML:
        return "absent"
    cut = any(bool(mask[end].any()) for end in ends) or bool(np.asarray(mask[:, at_the_side(ct)]).any())
    return "cut" if cut else "whole"
