"""The patient's midline and the two levels on it: where the head ends above the neck, and the trunk above the legs."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from twin_scanner.districts.coarse_grid import CoarseCt
from twin_scanner.districts.morphology import SECTION, BoolArray, section_holes
from twin_scanner.volume import FloatArray, Triple

IS_BONE: Final = 0.3
"""A coarse voxel counts as bone from this share on: thin cortex keeps it, calcified vessels and noise do not."""
CORE_DEPTH_MM: Final = 45.0
"""Deeper than this below the skin lie only trunk, head and thighs; arms are thinner (radius 35 to 55 mm)."""
NEAR_MIDLINE_MM: Final = 90.0
"""The middle of trunk, neck and head moves by less from one slice to the next; the arms' middles lie farther out."""
FOLLOWING: Final = 0.05
"""How much of its error the line makes good for each mm of height; a tilted neck is followed within 20 mm."""
CENTRAL_MM: Final = 62.0
"""Half width of the strip that holds spine, sacrum, pubis and ischia, but not the femora (shafts at 80 to 110)."""
MEDIAN_MM: Final = 15.0
"""Here lie spine, sacrum and symphysis; between knees and feet, which reach into the central strip, is a gap."""
LEAST_CENTRAL_BONE_MM2: Final = 150.0
"""A vertebra shows 500 mm2 or more in a slice, the last of the ischial tuberosities about this."""
LARGEST_GAP_MM: Final = 25.0
"""Osteoporotic discs and the soft tissue between coccyx and pubis interrupt the bone of the midline for less."""
VAULT_MM2: Final = 4000.0
"""What the skull encloses in a slice: 12000 to 20000 mm2 in an adult's vault, 8000 in an infant's; a knee has none."""
VAULT_SHARE: Final = 0.4
"""Of a slice through head or neck the brain fills more than this; no hole in pelvis, chest or knee does."""
SKULL_REACH_MM: Final = 160.0
"""Below the vault's lowest slice the chin is at most this far."""
SKULL_WIDTH_SHARE: Final = 0.62
"""The skull's base with its mastoids is wider than this share of the vault, the atlas (80 mm of 145) narrower."""
FACE_MM: Final = 35.0
"""The mandible's body lies farther in front of the vault's middle than this; vertebrae and hyoid do not."""
LEAST_MANDIBLE_ML: Final = 6.0
"""The hyoid has 2 to 4 ml, a whole mandible 30 to 60."""
UNDER_CHIN_MM: Final = 50.0
"""Skin and fat under the chin are thinner, a double chin included."""
CHIN_SLOPE: Final = 0.55
"""Rise of the plane from chin to occiput for each mm to the back: 60 to 70 mm over 115 mm in a head held straight."""


@dataclass(frozen=True, eq=False)
class Levels:
    """Where head and legs begin, on the coarse grid.

    ``head``: voxels above the plane through the lowest points of mandible and occiput (D, H), the same for every W.
    ``legs_below``: first slice of the trunk; slices below it are legs (0: no legs).
    """

    head: BoolArray
    legs_below: int


def midline(depth: FloatArray, spacing_mm: Triple) -> FloatArray:
    """Column (W index) of the patient's median plane in every slice, from the parts deepest below the skin.

    ``depth`` is the distance to the skin in mm (D, H, W), 0 outside. The line starts in the slice that has most of
    them and follows the middle of their extent up and down as long as it lies in them: neither a thick arm beside the
    neck nor one of two legs draws it aside.
    """
    core = (depth > min(CORE_DEPTH_MM, 0.7 * float(depth.max()))).sum(axis=1).astype(np.float64)
    columns = np.arange(depth.shape[2])
    start = int(np.argmax(core.sum(axis=1)))
    line = np.full(len(core), float(core[start] @ columns / core[start].sum()))
    for order in (range(start + 1, len(core)), range(start - 1, -1, -1)):
        here = line[start]
        for k in order:
            if core[k, round(here)] > 0:
                near = np.flatnonzero((core[k] > 0) & (np.abs(columns - here) * spacing_mm[2] < NEAR_MIDLINE_MM))
                here += min(1.0, FOLLOWING * spacing_mm[0]) * ((float(near[0]) + float(near[-1])) / 2.0 - here)
            line[k] = here
    return np.asarray(ndimage.gaussian_filter1d(line, 30.0 / spacing_mm[0], mode="nearest"), dtype=np.float32)


def off_midline_mm(ct: CoarseCt, middle: FloatArray) -> FloatArray:
    """Distance of every column from the midline in mm (D, 1, W); negative on the patient's right."""
    columns = np.arange(ct.hu.shape[2], dtype=np.float32)
    return ((columns[None, :] - middle[:, None]) * np.float32(ct.spacing_mm[2]))[:, None, :]


def find_levels(ct: CoarseCt, body: BoolArray, middle: FloatArray) -> Levels:
    """The head's plane and the legs' level; either may be outside the field of view."""
    aside = np.abs(off_midline_mm(ct, middle))
    bone = np.where(body, ct.bone, np.float32(0))
    head = _head_plane(ct, bone, body, aside)
    return Levels(head, _legs_level(ct, bone, aside))


def _legs_level(ct: CoarseCt, bone: FloatArray, aside: FloatArray) -> int:
    """First slice of the trunk: down from the spine the midline's bone ends with the ischial tuberosities."""
    voxel_mm2 = ct.spacing_mm[1] * ct.spacing_mm[2]
    area = (bone * (aside < CENTRAL_MM)).sum(axis=(1, 2)) * voxel_mm2
    central = area >= LEAST_CENTRAL_BONE_MM2
    median = (bone * (aside < MEDIAN_MM)).sum(axis=(1, 2)) * voxel_mm2 >= LEAST_CENTRAL_BONE_MM2
    if not (central & median).any():
        return len(central)
    gap = max(1, round(LARGEST_GAP_MM / ct.spacing_mm[0]))
    runs, count = ndimage.label(ndimage.binary_closing(np.pad(central, gap), np.ones(gap + 1, np.bool_))[gap:-gap])
    mass = ndimage.sum_labels(area * median, runs, np.arange(1, count + 1))
    lowest = int(np.flatnonzero(runs == 1 + int(np.argmax(mass)))[0])
    return 0 if lowest <= 1 else lowest


def _head_plane(ct: CoarseCt, bone: FloatArray, body: BoolArray, aside: FloatArray) -> BoolArray:
    """Rows and slices (D, H) above the plane of the lowest points of mandible and occiput."""
    vault, rows = _vault(ct, bone, body, aside)
    if vault.size:
        chin, occiput = _skull_base(ct, bone, aside, int(vault[0]), rows)
    else:
        chin, occiput = _cut_mandible(ct, bone, body, aside), None
    if chin is None and occiput is None:
        return np.full(ct.hu.shape[:2], bool(vault.size))
    return _above_plane(ct, chin, occiput)


def _above_plane(ct: CoarseCt, chin: tuple[float, float] | None, occiput: tuple[float, float] | None) -> BoolArray:
    """Above the line from chin to occiput, each (slice, row); a missing one is put where the usual slope has it."""
    slope = CHIN_SLOPE * ct.spacing_mm[1] / ct.spacing_mm[0]
    anchor = chin or occiput
    assert anchor is not None
    if chin and occiput and occiput[1] > chin[1]:
        slope = (occiput[0] - chin[0]) / (occiput[1] - chin[1])
    slices, rows = np.meshgrid(*(np.arange(n) for n in ct.hu.shape[:2]), indexing="ij")
    return np.asarray(slices >= anchor[0] + slope * (rows - anchor[1]))


def _vault(ct: CoarseCt, bone: FloatArray, body: BoolArray, aside: FloatArray) -> tuple[npt.NDArray[np.intp], float]:
    """Slices whose bone encloses a brain, lowest first, and the middle row of what it encloses."""
    voxel_mm2 = ct.spacing_mm[1] * ct.spacing_mm[2]
    near = body & (aside < 2 * CENTRAL_MM)
    least = np.maximum(VAULT_MM2, VAULT_SHARE * near.sum(axis=(1, 2)) * voxel_mm2)
    enclosed = section_holes(ndimage.binary_closing(bone >= IS_BONE, SECTION)) & body
    found, rows = [], []
    for k in np.flatnonzero(enclosed.sum(axis=(1, 2)) * voxel_mm2 > least):
        labels, _ = ndimage.label(enclosed[k])
        brain = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
        if float(brain.sum()) * voxel_mm2 > least[k]:
            found.append(int(k))
            rows.append(float(np.mean(np.flatnonzero(brain.any(axis=1)))))
    return np.asarray(found, dtype=np.intp), float(np.median(rows)) if rows else 0.0


def _skull_base(
    ct: CoarseCt, bone: FloatArray, aside: FloatArray, vault: int, row: float
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Lowest points (slice, row) of mandible and occiput below the vault; None where the field of view cuts them."""
    first = max(0, vault - round(SKULL_REACH_MM / ct.spacing_mm[0]))
    rows = np.arange(ct.hu.shape[1])[:, None]
    hard = (bone >= IS_BONE) & (aside < 1.4 * CENTRAL_MM)
    face = hard & (rows < row - FACE_MM / ct.spacing_mm[1])
    labels, count = ndimage.label(face[first:])
    chin = None
    if count:
        volumes = np.bincount(labels.ravel())[1:] * ct.voxel_ml
        jaw = np.isin(labels, 1 + np.flatnonzero(volumes >= LEAST_MANDIBLE_ML))
        chin = _lowest(jaw, first)
    back = hard & (rows >= row)
    width = back.any(axis=1).sum(axis=1) * ct.spacing_mm[2]
    wide = np.flatnonzero(width[: vault + 1] >= SKULL_WIDTH_SHARE * float(width[vault:].max()))
    run = _lowest_of_run(wide, vault)
    occiput = None if run <= 1 else (float(run), float(np.flatnonzero(back[run].any(axis=1)).max()))
    return chin, occiput


def _lowest_of_run(slices: npt.NDArray[np.intp], start: int) -> int:
    """The lowest slice reached from ``start`` downwards without leaving ``slices``."""
    present = set(slices.tolist())
    while start - 1 in present:
        start -= 1
    return start


def _lowest(mask: BoolArray, first: int) -> tuple[float, float] | None:
    """Slice and mean row of the mask's lowest slice; None where it touches the field of view's end."""
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if not slices.size or first + slices[0] <= 1:
        return None
    return float(first + slices[0]), float(np.mean(np.nonzero(mask[slices[0]])[0]))


def _cut_mandible(ct: CoarseCt, bone: FloatArray, body: BoolArray, aside: FloatArray) -> tuple[float, float] | None:
    """The lowest point of a mandible that the top of the field of view cuts; no skull above it is seen.

    It lies well in front of the spine, and there is air below it; below sternum and clavicles lies the chest.
    """
    hard = (bone >= IS_BONE) & (aside < CENTRAL_MM)
    rows = np.flatnonzero((hard & (aside < MEDIAN_MM))[-1].any(axis=1))
    if not rows.size:
        return None
    front = np.arange(hard.shape[1])[:, None] < float(rows.max()) - 2 * FACE_MM / ct.spacing_mm[1]
    labels, count = ndimage.label(hard & front)
    volumes = np.bincount(labels.ravel(), minlength=count + 1) * ct.voxel_ml
    touching = [i for i in np.unique(labels[-1]) if i and volumes[i] >= LEAST_MANDIBLE_ML]
    jaws = [i for i in touching if _has_air_below(labels == i, body, ct)]
    return _lowest(np.isin(labels, jaws), 0) if jaws else None


def _has_air_below(jaw: BoolArray, body: BoolArray, ct: CoarseCt) -> bool:
    """Whether most of what lies under the front of a bone is air within UNDER_CHIN_MM."""
    lowest = int(np.flatnonzero(jaw.any(axis=(1, 2)))[0])
    rows = np.flatnonzero(jaw.any(axis=(0, 2)))
    columns = np.asarray(jaw.any(axis=0))
    columns[(rows[0] + rows[-1] + 1) // 2 :] = False
    under = body[max(0, lowest - round(UNDER_CHIN_MM / ct.spacing_mm[0])) : lowest]
    return bool(under.size) and float(np.asarray((~under).any(axis=0))[columns].mean()) > 0.5
