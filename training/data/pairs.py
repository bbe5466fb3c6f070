"""Pairs of CT and PET on one grid, made by the very steps that serve a hospital's CT."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from training.data.study import TrainingStudy
from twin_scanner.districts.landmarks.segmenter import LandmarkSegmenter
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import (
    Geometry,
    Interpolation,
    LabelArray,
    Shape,
    canonical_labels,
    resample,
    resample_labels,
)
from twin_scanner.models import plan as preprocess
from twin_scanner.models.networks import WINDOW
from twin_scanner.models.plan import Plan

HuArray: TypeAlias = npt.NDArray[np.int16]
SuvArray: TypeAlias = npt.NDArray[np.float16]
Box: TypeAlias = tuple[slice, slice, slice]
Segment: TypeAlias = Callable[[TrainingStudy], LabelArray]
"""The districts of a study's CT, on the CT's own grid."""

SPACING_TOLERANCE: Final = 0.01
"""Relative: autoPET's PET has 2.036 mm and its Plan 2.04. A window of 32 voxels ends a third of a voxel elsewhere."""
_HU: Final = np.iinfo(np.int16)


@dataclass(frozen=True, eq=False)
class Pair:
    """One study's CT, PET and districts (D, H, W) on its training grid, cut to the body: arrays or memory maps.

    ``ct`` is in whole HU (int16), ``pet`` in SUV by body weight, unclipped (float16: 11 bits, so 0.05 % of the value),
    ``labels`` and ``lesions`` (None where nobody annotated) are uint8. ``hu_range`` is the lowest and the highest HU
    of the whole CT on the grid, which per-volume scaling needs. ``shape`` is the whole field of view (no axis below
    one window) and ``corner`` the first voxel of the cut in it: windows are placed in the whole, as in service.
    Outside the cut every label is 0.

    ``name`` is unique among the studies, ``patient`` a pseudonym that all studies of a person share.
    """

    name: str
    patient: str
    diagnosis: str
    ct: HuArray
    pet: SuvArray
    labels: LabelArray
    lesions: LabelArray | None
    hu_range: tuple[int, int]
    shape: Shape
    corner: Shape


@dataclass(frozen=True, eq=False)
class GridStudy:
    """A study's arrays (D, H, W) on its training grid over the CT's whole field of view; types as in a Pair.

    ``labels`` are 0 where the PET has no value: what nobody measured is neither trained on nor scored. ``covered``
    is the share of the body's voxels that the PET shows, 1 where there is no body.
    """

    ct: HuArray
    pet: SuvArray
    labels: LabelArray
    lesions: LabelArray | None
    covered: float

    @property
    def hu_range(self) -> tuple[int, int]:
        """Lowest and highest HU."""
        return int(self.ct.min()), int(self.ct.max())

    @property
    def body_box(self) -> Box:
        """The smallest box that holds every district; raises Rejected where there is none."""
        found = ndimage.find_objects((self.labels > 0).view(np.uint8))
        if not found:
            raise Rejected("The CT of a training pair shows no body where its PET has values: check its districts.")
        d, h, w = found[0]
        return d, h, w


def make_pair(
    study: TrainingStudy,
    segment: Segment,
    plan: Plan,
    *,
    name: str,
    patient: str,
    diagnosis: str = "",
    keep_air: bool = False,
) -> Pair:
    """A study as a Pair on its training grid.

    ``keep_air`` leaves the volumes whole, for a partition without masks. Raises Rejected where the CT shows no body
    or an image holds values that are none.
    """
    whole = on_plan_grid(study, segment, plan)
    box = whole_box(whole.ct.shape) if keep_air else whole.body_box
    shape, corner = placed(whole.ct.shape, box)
    lesions = None if whole.lesions is None else whole.lesions[box].copy()
    ct, pet, labels = whole.ct[box].copy(), whole.pet[box].copy(), whole.labels[box].copy()
    return Pair(name, patient, diagnosis, ct, pet, labels, lesions, whole.hu_range, shape, corner)


def on_plan_grid(study: TrainingStudy, segment: Segment, plan: Plan) -> GridStudy:
    """A study on its training grid: every CT by the steps of service, the districts those of the CT as it came.

    Raises Rejected for values that are not finite or beyond what HU and SUV can be.
    """
    _check_values(study)
    upright, upright_pet = study.ct.canonical(), study.pet.canonical()
    districts = canonical_labels(segment(study), study.ct.geometry)
    grid, interpolation = training_grid(upright.geometry, upright_pet.geometry, plan)
    ct = preprocess.resampled_ct(upright, grid)
    labels = resample_labels(districts, upright.geometry, grid)
    pet = resample(upright_pet, grid, outside=float("nan"), interpolation=interpolation).array
    measured = np.isfinite(pet)
    body = int(np.count_nonzero(labels))
    labels = np.where(measured, labels, np.uint8(0))
    covered = np.count_nonzero(labels) / body if body else 1.0
    lesions = None if study.lesions is None else resample_labels(study.lesions, study.pet.geometry, grid)
    suv = np.where(measured, pet, np.float32(0.0)).astype(np.float16)
    return GridStudy(ct.array.astype(np.int16), suv, labels, lesions, covered)


def training_grid(ct: Geometry, pet: Geometry, plan: Plan) -> tuple[Geometry, Interpolation]:
    """The grid of a pair over the CT's field of view (both upright), and how its PET comes there.

    Where the PET has the Plan's spacing, these are its own voxels, as in the paper (II-B), and its values are taken as
    they are. Another PET, or any for a Plan that wants so, is interpolated on the grid that service lays on the CT.
    """
    agrees = np.allclose(pet.spacing_mm, plan.spacing_mm, rtol=SPACING_TOLERANCE, atol=0.0)
    if plan.training_grid == "ct" or not agrees:
        return preprocess.grid(ct, plan), "linear"
    return pet.continued_over(ct), "nearest"


def whole_box(shape: Sequence[int]) -> Box:
    """The box that cuts nothing off."""
    d, h, w = (slice(0, length) for length in shape)
    return d, h, w


def placed(grid: Sequence[int], box: Box) -> tuple[Shape, Shape]:
    """A Pair's ``shape`` and ``corner`` for a cut of a grid: axes shorter than a window are padded, as in service."""
    padding = [max(0, WINDOW - length) for length in grid]
    d, h, w = (length + more for length, more in zip(grid, padding, strict=True))
    corner = [part.start + more // 2 for part, more in zip(box, padding, strict=True)]
    return (d, h, w), (corner[0], corner[1], corner[2])


def fingerprint(pairs: Sequence[Pair]) -> str:
    """SHA-256 over everything that a run can see of the pairs."""
    digest = hashlib.sha256()
    for pair in pairs:
        known = (pair.name, pair.patient, pair.hu_range, pair.shape, pair.corner, pair.ct.shape)
        digest.update(repr(known).encode())
        for array in (pair.ct, pair.pet, pair.labels, pair.lesions):
            digest.update(b"" if array is None else np.ascontiguousarray(array).data)
    return digest.hexdigest()


def landmarks(study: TrainingStudy) -> LabelArray:
    """The districts as the embedded segmenter makes them."""
    return LandmarkSegmenter().segment(study.ct).labels


def phantom_truth(study: TrainingStudy) -> LabelArray:
    """The districts that a phantom was generated with; raises Rejected for a patient, whose are unknown."""
    if study.truth is None:
        raise Rejected("Only a phantom has true districts: choose a segmenter for the studies of patients.")
    return study.truth


def _check_values(study: TrainingStudy) -> None:
    """HU that int16 cannot hold and SUV that float16 cannot are no measurements; nothing is clipped in silence."""
    ct, pet = study.ct.array, study.pet.array
    if not (np.isfinite(ct).all() and ct.min() >= _HU.min and ct.max() <= _HU.max):
        raise Rejected("The CT of a training pair holds values that are no HU: check its rescale slope and intercept.")
    if not (np.isfinite(pet).all() and np.abs(pet).max() <= np.finfo(np.float16).max):
        raise Rejected("The PET of a training pair holds values that are no SUV: check its units and rescale slope.")
