"""Pairs of CT and PET in model space, from phantoms or files, made by the very steps that serve a hospital's CT."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from training.config import DataConfig
from training.phantom import Phantom, draw_options, make_phantom
from twin_scanner import preprocess
from twin_scanner.districts.landmarks import LandmarkSegmenter
from twin_scanner.errors import Rejected
from twin_scanner.networks import WINDOW
from twin_scanner.preprocess import Plan
from twin_scanner.volume import (
    FloatArray,
    LabelArray,
    Shape,
    Volume,
    canonical_labels,
    read_nifti,
    resample,
    resample_labels,
)

Segment = Callable[[Volume], LabelArray]
"""The districts of a CT in HU, on its own grid."""


@dataclass(frozen=True, eq=False)
class Pair:
    """CT and PET (D, H, W) in model space and the districts, on the Plan's grid, cut to the body.

    ``shape`` is the whole field of view (no axis below one window) and ``corner`` the first voxel of the cut in it:
    windows are placed in the whole, as in service. Outside the cut every label is 0.
    """

    ct: FloatArray
    pet: FloatArray
    labels: LabelArray
    shape: Shape
    corner: Shape


def make_pair(ct: Volume, suv: Volume, segment: Segment, plan: Plan, *, keep_air: bool = False) -> Pair:
    """A CT in HU and its PET in SUV as a Pair; the PET is resampled (linear) to the CT's Plan grid.

    ``keep_air`` leaves the volumes whole, for a partition without masks. Raises Rejected where the CT shows no body.
    """
    labels = canonical_labels(segment(ct), ct.geometry)
    upright = ct.canonical()
    ct_on_grid = preprocess.ct_on_grid(upright, plan)
    districts = resample_labels(labels, upright.geometry, ct_on_grid.geometry)
    suv_on_grid = resample(suv, ct_on_grid.geometry, outside=0.0)
    ct_model_space = preprocess.ct_to_model(ct_on_grid.array, plan)
    pet_model_space = preprocess.suv_to_model(suv_on_grid.array, plan)
    return _cut(ct_model_space, pet_model_space, districts, keep_air=keep_air)


def _cut(ct: FloatArray, pet: FloatArray, labels: LabelArray, *, keep_air: bool) -> Pair:
    found = ndimage.find_objects((labels > 0).astype(np.uint8))
    if not found:
        raise Rejected("The CT of a training pair shows no body: check its districts.")
    box = tuple(slice(0, n) for n in ct.shape) if keep_air else found[0]
    shape, corner = [], []
    for length, part in zip(ct.shape, box, strict=True):
        padding = max(0, WINDOW - length)
        shape.append(length + padding)
        corner.append(part.start + padding // 2)
    d, h, w = shape
    return Pair(ct[box].copy(), pet[box].copy(), labels[box].copy(), (d, h, w), (corner[0], corner[1], corner[2]))


def make_pairs(
    config: DataConfig, plan: Plan, *, keep_air: bool, progress: Callable[[int, int], None] | None = None
) -> list[Pair]:
    """Every pair of a configuration, the held-out ones last; ``progress`` receives (pairs made, pairs in all)."""
    sources = _phantoms(config, plan) if config.kind == "phantoms" else _studies(config)
    pairs: list[Pair] = []
    for ct, suv, segment in sources:
        pairs.append(make_pair(ct, suv, segment, plan, keep_air=keep_air))
        if progress is not None:
            progress(len(pairs), config.count)
    return pairs


def fingerprint(pairs: Sequence[Pair]) -> str:
    """SHA-256 over everything the networks can see of the pairs."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(repr((pair.shape, pair.corner, pair.ct.shape)).encode())
        for array in (pair.ct, pair.pet, pair.labels):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _phantoms(config: DataConfig, plan: Plan) -> Iterator[tuple[Volume, Volume, Segment]]:
    """Patients of all sizes, poses, fields of view and diagnoses, drawn on the Plan's own spacing."""
    for seed in range(config.seed, config.seed + config.count):
        phantom = make_phantom(seed, draw_options(seed, world=config.world, spacing_mm=plan.spacing_mm))
        yield phantom.ct, phantom.pet, _truth(phantom) if config.segmenter == "truth" else _landmarks


def _studies(config: DataConfig) -> Iterator[tuple[Volume, Volume, Segment]]:
    """Studies in the autoPET layout: a folder with SUV.nii.gz beside CT.nii.gz, or CTres.nii.gz on the PET's grid."""
    folder = config.folder
    found = sorted(folder.rglob("SUV.nii.gz")) if folder is not None else []
    if len(found) < config.count:
        raise Rejected(f"{folder} holds {len(found)} studies with SUV.nii.gz, data.count asks for {config.count}.")
    for suv in found[: config.count]:
        ct = next((suv.with_name(n) for n in ("CT.nii.gz", "CTres.nii.gz") if suv.with_name(n).is_file()), None)
        if ct is None:
            raise Rejected(f"{suv.parent} has SUV.nii.gz but neither CT.nii.gz nor CTres.nii.gz: complete the study.")
        yield read_nifti(ct), read_nifti(suv), _landmarks


def _landmarks(ct: Volume) -> LabelArray:
    return LandmarkSegmenter().segment(ct).labels


def _truth(phantom: Phantom) -> Segment:
    def segment(ct: Volume) -> LabelArray:
        return resample_labels(phantom.districts, phantom.ct.geometry, ct.geometry)

    return segment
