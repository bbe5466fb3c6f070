"""The head's border: the plane through the lowest points of mandible and occiput, or what of it the image shows."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from twin_scanner.districts.coarse_grid import CoarseCt
from twin_scanner.districts.landmarks.axial_skeleton import CENTRAL_MM, IS_BONE, MEDIAN_MM
from twin_scanner.districts.morphology import SECTION, BoolArray, section_holes
from twin_scanner.imaging.volume import FloatArray

VAULT_MM2: Final = 4000.0
"""What the skull encloses in a slice: 12000 to 20000 mm2 in an adult's vault, 8000 in an infant's; a knee has none."""
VAULT_MARGIN_MM: Final = 35.0
"""Skull, scalp and a double chin's fat around the brain."""
VAULT_SHARE: Final = 0.4
"""The brain fills more than this share of the body within that margin; no hole in pelvis, chest or knee does."""
SKULL_REACH_MM: Final = 160.0
"""The chin is at most this far below the vault's lowest slice."""
SKULL_WIDTH_SHARE: Final = 0.62
"""The skull's base with its mastoids is wider than this share of the vault, the atlas (80 mm of 145) narrower."""
FACE_MM: Final = 35.0
"""The mandible's body lies farther in front of the vault's middle than this; vertebrae and hyoid do not."""
BEFORE_SPINE_MM: Final = 70.0
"""The mandible's body also lies farther than this in front of the back of the cervical spine."""
BETWEEN_SPINES_MM: Final = 12.0
"""A spinous process lies at most this far above or below any level of the neck."""
LARGEST_NECK_MM2: Final = 31000.0
"""Section of jaw and neck within SKULL_HALF_MM of the midline: 15000 to 28000 mm2; of an adult's trunk 35000."""
UNDER_CHIN_MM: Final = 50.0
"""Skin and fat under the chin are thinner, a double chin included."""
MANDIBLE_ASIDE_MM: Final = 45.0
"""The mean distance of a mandible from the midline is less, even where the field of view leaves one half of it."""
LEAST_MANDIBLE_ML: Final = 6.0
"""The hyoid has 2 to 4 ml, a whole mandible 30 to 60."""
CHIN_SLOPE: Final = 0.55
"""Rise of the plane from chin to occiput for each mm to the back: 60 to 70 mm over 115 mm in a head held straight."""
SKULL_HALF_MM: Final = 87.0
"""Nothing of skull and mandible lies farther from their middle; shoulders and raised arms do."""
SLOPES: Final = (-0.3, 1.8)
"""The slopes of a head bent back or forward; beyond, one of the two landmarks is not what it was taken for."""

Landmark: TypeAlias = tuple[float, float]
"""(slice, row) of a lowest point, in indices of the coarse grid."""
Seen: TypeAlias = Literal["found", "cut", "not seen"]


@dataclass(frozen=True, eq=False)
class Skull:
    """``head``: voxels above the border (D, H), the same for every W; what of its two landmarks was seen.

    ``vault_slices`` counts the slices whose bone encloses a brain.
    """

    head: BoolArray
    vault_slices: int
    chin: Seen
    occiput: Seen


def find_skull(ct: CoarseCt, body: BoolArray, lateral: FloatArray, lungs: BoolArray) -> Skull:
    """The head's border; ``lateral`` (D, 1, W) is the signed distance from the midline in mm, ``lungs`` (D, H, W)."""
    bone = np.where(body, ct.bone, np.float32(0))
    aside = np.abs(lateral)
    vault, row = _vault(ct, bone, body, aside)
    chin: Landmark | None
    occiput: Landmark | None
    if vault.size:
        chin, chin_seen = _chin(ct, bone, body, aside, lungs, int(vault[0]), row)
        occiput, occiput_seen = _occiput(ct, bone, body, aside, int(vault[0]), row)
    else:
        chin, occiput, occiput_seen = _lone_mandible(ct, bone, body, aside, lungs), None, "not seen"
        chin_seen = "found" if chin else "not seen"
    if chin is None and occiput is None:
        head = np.full(ct.hu.shape[:2], bool(vault.size))
    else:
        head = _above_plane(ct, chin, occiput)
    return Skull(head, int(vault.size), chin_seen, occiput_seen)


def _above_plane(ct: CoarseCt, chin: Landmark | None, occiput: Landmark | None) -> BoolArray:
    """The part above the line from chin to occiput; a missing one is put where the usual slope has it."""
    step = ct.spacing_mm[1] / ct.spacing_mm[0]
    slope = CHIN_SLOPE * step
    anchor = chin or occiput
    assert anchor is not None
    if chin and occiput and occiput[1] > chin[1]:
        slope = float(np.clip((occiput[0] - chin[0]) / (occiput[1] - chin[1]), SLOPES[0] * step, SLOPES[1] * step))
    slices, rows = np.meshgrid(*(np.arange(n) for n in ct.hu.shape[:2]), indexing="ij")
    return np.asarray(slices >= anchor[0] + slope * (rows - anchor[1]))


def _vault(ct: CoarseCt, bone: FloatArray, body: BoolArray, aside: FloatArray) -> tuple[npt.NDArray[np.intp], float]:
    """Slices whose bone encloses a brain, lowest first, and the middle row of what it encloses."""
    near = body & (aside < 2 * CENTRAL_MM)
    enclosed = section_holes(ndimage.binary_closing(bone >= IS_BONE, SECTION)) & near
    found, rows = [], []
    for k in np.flatnonzero(enclosed.sum(axis=(1, 2)) * ct.voxel_mm2 > VAULT_MM2):
        labels, _ = ndimage.label(enclosed[k])
        brain = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
        if float(brain.sum()) * ct.voxel_mm2 > max(VAULT_MM2, VAULT_SHARE * _flesh_around_mm2(brain, near[k], ct)):
            found.append(int(k))
            rows.append(float(np.mean(np.flatnonzero(brain.any(axis=1)))))
    return np.asarray(found, dtype=np.intp), float(np.median(rows)) if rows else 0.0


def _flesh_around_mm2(hole: BoolArray, body: BoolArray, ct: CoarseCt) -> float:
    """Area of the body within VAULT_MARGIN_MM of a hole in one slice (H, W), taken as a circle; raised arms are not."""
    row, column = (float(np.mean(np.flatnonzero(hole.any(axis=axis))[[0, -1]])) for axis in (1, 0))
    rows, columns = np.indices(hole.shape)
    far = np.hypot((rows - row) * ct.spacing_mm[1], (columns - column) * ct.spacing_mm[2])
    reach = np.sqrt(float(hole.sum()) * ct.voxel_mm2 / np.pi) + VAULT_MARGIN_MM
    return float((body & (far < reach)).sum()) * ct.voxel_mm2


def _chin(
    ct: CoarseCt, bone: FloatArray, body: BoolArray, aside: FloatArray, lungs: BoolArray, vault: int, row: float
) -> tuple[Landmark | None, Seen]:
    """Lowest point of the mandible under the vault's lowest slice; None where the field of view cuts it.

    In a neck that is stretched the spine comes forward under the face: the mandible lies well in front of it. Where a
    chin lies on the chest or on the image's end, so that no bone has air below, every bone of the face counts.
    """
    first = max(0, vault - round(SKULL_REACH_MM / ct.spacing_mm[0]))
    rows = np.arange(ct.hu.shape[1])[:, None]
    face = _before_the_spine(ct, bone, aside, lungs) & (rows < row - FACE_MM / ct.spacing_mm[1])
    face[:first] = False
    pieces = _large_pieces(face, ct)
    jaws = [piece for piece in pieces if _is_jaw(piece, body, aside, ct)]
    return _lowest_point(np.any(jaws or pieces, axis=0), body) if pieces else (None, "not seen")


def _occiput(
    ct: CoarseCt, bone: FloatArray, body: BoolArray, aside: FloatArray, vault: int, row: float
) -> tuple[Landmark | None, Seen]:
    """Lowest slice of the skull's base, and its hindmost row; None where the field of view cuts it."""
    rows = np.arange(ct.hu.shape[1])[:, None]
    back = (bone >= IS_BONE) & (aside < SKULL_HALF_MM) & (rows >= row)
    width = back.any(axis=1).sum(axis=1) * ct.spacing_mm[2]
    wide = np.flatnonzero(width[: vault + 1] >= SKULL_WIDTH_SHARE * float(width[vault:].max()))
    run = _lowest_of_run(wide, vault)
    hindmost = np.flatnonzero(back[run].any(axis=1))
    if run <= 1 or not hindmost.size or not body[run - 1][back[run]].any():
        return None, "cut"
    return (float(run), float(hindmost[-1])), "found"


def _lowest_of_run(slices: npt.NDArray[np.intp], start: int) -> int:
    """The lowest slice reached from ``start`` downwards without leaving ``slices``."""
    present = set(slices.tolist())
    while start - 1 in present:
        start -= 1
    return start


def _lowest_point(mask: BoolArray, body: BoolArray) -> tuple[Landmark | None, Seen]:
    """Slice and mean row of the mask's lowest slice; None where the image ends there, level or oblique."""
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if not slices.size:
        return None, "not seen"
    lowest = int(slices[0])
    if lowest <= 1 or not body[lowest - 1][mask[lowest]].any():
        return None, "cut"
    return (float(lowest), float(np.mean(np.nonzero(mask[lowest])[0]))), "found"


def _lone_mandible(
    ct: CoarseCt, bone: FloatArray, body: BoolArray, aside: FloatArray, lungs: BoolArray
) -> Landmark | None:
    """The lowest point of a mandible over which the field of view ends, so that no vault is seen."""
    front = _before_the_spine(ct, bone, aside, lungs) & (aside < CENTRAL_MM)
    jaws = [
        piece
        for piece in _large_pieces(front, ct)
        if float(np.broadcast_to(aside, piece.shape)[piece].mean()) < MANDIBLE_ASIDE_MM
        and _is_jaw(piece, body, aside, ct)
    ]
    return _lowest_point(np.any(jaws, axis=0), body)[0] if jaws else None


def _before_the_spine(ct: CoarseCt, bone: FloatArray, aside: FloatArray, lungs: BoolArray) -> BoolArray:
    """Bone of the face's width that lies well in front of the back of the spine, and above the lungs.

    Below their tops lie sternum and clavicles. The back of the spine is that of the nearest spinous process.
    """
    hard = (bone >= IS_BONE) & (aside < SKULL_HALF_MM)
    median: BoolArray = np.asarray((hard & (aside < MEDIAN_MM)).any(axis=2))
    back = np.where(median.any(axis=1), ct.hu.shape[1] - 1 - np.argmax(median[:, ::-1], axis=1), -1)
    back = ndimage.maximum_filter1d(back, 2 * round(BETWEEN_SPINES_MM / ct.spacing_mm[0]) + 1)
    rows = np.arange(ct.hu.shape[1])[None, :, None]
    front = hard & (rows < back[:, None, None] - BEFORE_SPINE_MM / ct.spacing_mm[1])
    chest = np.flatnonzero(lungs.any(axis=(1, 2)))
    if chest.size:
        front[: int(chest[-1]) + 1] = False
    return np.asarray(front)


def _large_pieces(mask: BoolArray, ct: CoarseCt) -> list[BoolArray]:
    """Its pieces that are as large as a mandible may be."""
    labels, count = ndimage.label(mask)
    volumes = np.bincount(labels.ravel(), minlength=count + 1) * ct.voxel_ml
    return [labels == number for number in np.flatnonzero(volumes >= LEAST_MANDIBLE_ML) if number]


def _is_jaw(piece: BoolArray, body: BoolArray, aside: FloatArray, ct: CoarseCt) -> bool:
    """Whether a bone in front of the spine ends in a neck, with air below: no larynx and no sternum does."""
    return _in_a_neck(piece, body, aside, ct) and _has_air_below(piece, body, ct)


def _in_a_neck(piece: BoolArray, body: BoolArray, aside: FloatArray, ct: CoarseCt) -> bool:
    """Whether the section at the bone's lowest slice is a neck's, raised arms left out; that of a belly is larger."""
    lowest = int(np.flatnonzero(piece.any(axis=(1, 2)))[0])
    return float((body[lowest] & (aside[lowest] < SKULL_HALF_MM)).sum()) * ct.voxel_mm2 < LARGEST_NECK_MM2


def _has_air_below(jaw: BoolArray, body: BoolArray, ct: CoarseCt) -> bool:
    """Whether most of what lies under the front of a bone is air within UNDER_CHIN_MM."""
    lowest = int(np.flatnonzero(jaw.any(axis=(1, 2)))[0])
    rows = np.flatnonzero(jaw.any(axis=(0, 2)))
    columns = np.asarray(jaw.any(axis=0))
    columns[(rows[0] + rows[-1] + 1) // 2 :] = False
    under = body[max(0, lowest - round(UNDER_CHIN_MM / ct.spacing_mm[0])) : lowest]
    if not under.size or not columns.any():
        return False
    return float(np.asarray((~under).any(axis=0))[columns].mean()) > 0.5
