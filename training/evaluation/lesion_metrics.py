"""Lesions one by one: how much uptake, whether it shows, and uptake that no real one explains."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

from twin_scanner.imaging.suv import region_suv
from twin_scanner.imaging.volume import FloatArray, Geometry, LabelArray, Volume

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Box: TypeAlias = tuple[slice, ...]

HOT_SUV: Final = 4.0
"""What counts as hot: the fixed threshold SUV 4, as for metabolic volumes in lymphoma."""
LEAST_FALSE_ML: Final = 0.5
"""Less than this of hot uptake is noise, not a finding that a reader would report."""
NEAR_MM: Final = 10.0
"""A hot real voxel with its centre this near explains a hot synthetic one, which merely lies a little aside."""
OWN_SHARE: Final = 0.41
"""This share of its own SUVmax bounds a lesion (Boellaard et al., EANM guidelines 2.0, EJNMMI 2015; 42:328)."""
CONNECTED: Final = np.ones((3, 3, 3), np.bool_)
"""Voxels that touch by a face, an edge or a corner are one lesion."""
EDGE_VOXELS: Final = 0.5 + 1e-6
"""Where a field of view ends beyond its outer voxels' centres, and rounding."""
ROUNDING_MM: Final = 1e-6
"""Exactly 10 mm is within 10 mm, however its square is rounded."""
PEAK_REACH_MM: Final = 8.0
"""More than the radius of the 1 ml sphere of SUVpeak, which may reach beyond the lesion."""


@dataclass(frozen=True)
class Uptake:
    """One PET in one lesion: SUV in g/ml, TLG (SUVmean times volume) in g; ``peak`` is None where no sphere fits."""

    mean: float
    maximum: float
    peak: float | None
    tlg: float


@dataclass(frozen=True)
class AnnotatedLesion:
    """One annotated lesion in both PETs.

    ``own_ml`` are the volumes (real, synthetic) at or above 41 % of the lesion's real SUVmax, inside the lesion.
    ``detected`` says whether a voxel of the synthetic PET inside the annotation reaches SUV 4; None where no real one
    does, for such a lesion cannot be asked for at that threshold. ``detected_own`` asks every lesion whether the
    synthetic PET reaches 41 % of the real SUVmax inside the annotation; below a SUVmax of about 8 that threshold lies
    in the range of normal tissue, so it is the easier question. ``number`` counts the lesions of the annotation from 1,
    those that are not scored included: a lesion keeps its number in every field of view.
    """

    number: int
    real: Uptake
    synthetic: Uptake
    voxels: int
    volume_ml: float
    own_ml: tuple[float, float]
    detected: bool | None

    @property
    def detected_own(self) -> bool:
        """Whether the synthetic PET reaches 41 % of the real SUVmax in the lesion."""
        return self.own_ml[1] > 0


@dataclass(frozen=True)
class FalseUptake:
    """Hot components of the synthetic PET with no hot real voxel nearby: how many, and their volume in ml."""

    components: int
    volume_ml: float


def lesions_of(
    real: FloatArray, synthetic: FloatArray, lesions: LabelArray, geometry: Geometry, field: Geometry | None = None
) -> list[AnnotatedLesion]:
    """Each component (26 neighbours) of an annotation (D, H, W), in scanning order; images in SUV (g/ml) on its grid.

    ``field`` is the field of view of the CT that was translated: a lesion that reaches beyond it is not scored, for no
    model could have shown it. None takes every lesion.
    """
    return [
        _lesion(number, real, synthetic, inside, box, geometry)
        for number, (box, inside) in enumerate(_components(lesions > 0, _margin(geometry, PEAK_REACH_MM)), start=1)
        if field is None or _in_view(inside, box, geometry, field)
    ]


def false_uptake(real: FloatArray, synthetic: FloatArray, body: BoolArray, geometry: Geometry) -> FalseUptake:
    """Components of the synthetic PET in the body at SUV 4 or more, 0.5 ml or larger, that no real voxel explains.

    A real voxel at SUV 4 or more within 10 mm of any of its voxels explains a component: brain and bladder are no
    false uptake. Images (D, H, W) in SUV.
    """
    count, volume_ml = 0, 0.0
    for box, inside in _components((synthetic >= HOT_SUV) & body, _margin(geometry, NEAR_MM)):
        component_ml = int(np.count_nonzero(inside)) * geometry.voxel_ml
        if component_ml >= LEAST_FALSE_ML and not _explained(real[box] >= HOT_SUV, inside, geometry):
            count, volume_ml = count + 1, volume_ml + component_ml
    return FalseUptake(count, volume_ml)


def _components(mask: BoolArray, margin: Sequence[int]) -> Iterator[tuple[Box, BoolArray]]:
    """Each component with the box around it, ``margin`` voxels wider where the image allows."""
    found = ndimage.find_objects(mask.view(np.uint8))
    if not found:
        return
    whole = _widened(found[0], margin, mask.shape)
    numbered, _ = ndimage.label(mask[whole], structure=CONNECTED)
    for number, part in enumerate(ndimage.find_objects(numbered), start=1):
        wide = _widened(part, margin, numbered.shape)
        box = tuple(slice(a.start + b.start, a.start + b.stop) for a, b in zip(whole, wide, strict=True))
        yield box, numbered[wide] == number


def _widened(box: Box, margin: Sequence[int], shape: Sequence[int]) -> Box:
    return tuple(
        slice(max(0, part.start - more), min(length, part.stop + more))
        for part, more, length in zip(box, margin, shape, strict=True)
    )


def _margin(geometry: Geometry, reach_mm: float) -> list[int]:
    return [int(np.ceil(reach_mm / spacing)) + 1 for spacing in geometry.spacing_mm]


def _lesion(
    number: int, real: FloatArray, synthetic: FloatArray, inside: BoolArray, box: Box, geometry: Geometry
) -> AnnotatedLesion:
    voxels = int(np.count_nonzero(inside))
    volume_ml = voxels * geometry.voxel_ml
    of_real = _uptake(real[box], inside, geometry, volume_ml)
    of_synthetic = _uptake(synthetic[box], inside, geometry, volume_ml)
    own = OWN_SHARE * of_real.maximum
    own_voxels = [int(np.count_nonzero(image[box][inside] >= own)) for image in (real, synthetic)]
    return AnnotatedLesion(
        number=number,
        real=of_real,
        synthetic=of_synthetic,
        voxels=voxels,
        volume_ml=volume_ml,
        own_ml=(own_voxels[0] * geometry.voxel_ml, own_voxels[1] * geometry.voxel_ml),
        detected=of_synthetic.maximum >= HOT_SUV if of_real.maximum >= HOT_SUV else None,
    )


def _uptake(suv: FloatArray, inside: BoolArray, geometry: Geometry, volume_ml: float) -> Uptake:
    """A crop's uptake; only its spacing matters to the sphere, so it keeps the image's axes and forgets its place."""
    crop = Geometry(suv.shape, geometry.spacing_mm, (0.0, 0.0, 0.0))
    found = region_suv(Volume(np.ascontiguousarray(suv), crop), inside.view(np.uint8))[1]
    return Uptake(found.mean, found.maximum, found.peak, found.mean * volume_ml)


def _in_view(inside: BoolArray, box: Box, geometry: Geometry, field: Geometry) -> bool:
    """Whether every voxel's centre lies in the field of view, which ends half a voxel beyond its outer centres."""
    if geometry.same_grid(field):
        return True
    at = np.argwhere(inside) + [part.start for part in box]
    to_field = np.linalg.inv(field.affine) @ geometry.affine
    index = at @ to_field[:3, :3].T + to_field[:3, 3]
    return bool(((index >= -EDGE_VOXELS) & (index <= np.asarray(field.shape) - 1 + EDGE_VOXELS)).all())


def _explained(hot: BoolArray, inside: BoolArray, geometry: Geometry) -> bool:
    """Whether a hot real voxel is in the component or within 10 mm of it, centre to centre.

    Two trees instead of a map of distances: that map takes 40 bytes a voxel, and a poor model's hot component may span
    the body.
    """
    if (hot & inside).any():
        return True
    if not hot.any():
        return False
    trees = [KDTree(np.argwhere(mask) * np.asarray(geometry.spacing_mm)) for mask in (hot, inside)]
    return bool(trees[0].count_neighbors(trees[1], NEAR_MM + ROUNDING_MM) > 0)
