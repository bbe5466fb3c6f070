"""Random changes of a pair of patches; sampling is apart from applying, so a sample can be recorded and replayed."""

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from training.data.sampling import Patch
from training.fit.config import AugmentationConfig
from twin_scanner.imaging.volume import FloatArray, Triple

BoolArray: TypeAlias = npt.NDArray[np.bool_]
EDGE: float = 1.0 + 1e-5
"""A point of the sampling grid beyond the outermost voxel centres (at -1 and 1) lies outside the patch."""


@dataclass(frozen=True)
class Augmentation:
    """One sample: which axes (D, H, W) are mirrored, angles about them in degrees, and the seed of the CT's noise."""

    flips: tuple[bool, bool, bool]
    angles_deg: Triple
    noise_sigma: float
    noise_seed: int


def sample_augmentation(random: np.random.Generator, config: AugmentationConfig) -> Augmentation:
    """A sample as paper section IV-B describes it: flips, rotations up to +-10 degrees, Gaussian noise."""
    d, h, w = (bool(random.random() < 0.5) and axis in config.flip_axes for axis in "DHW")
    about_d, about_h, about_w = (float(random.uniform(-1.0, 1.0)) * config.rotation_deg for _ in range(3))
    return Augmentation((d, h, w), (about_d, about_h, about_w), config.noise_sigma, int(random.integers(2**32)))


def augment(augmentation: Augmentation, patch: Patch, spacing_mm: Triple) -> Patch:
    """A patch after the augmentation, CT and PET 0 outside the mask that moved with them.

    Mirroring and rotation move all of it, trilinear and filled with 0, and the mask by the nearest neighbour, which is
    applied again to CT and PET. The context is mirrored and turned by the same angles about its own centre, which is
    the window's to within half of a cell. The noise is the CT's alone and stays inside the mask and within [0, 1]: each
    channel has its own, of one deviation in model space; the context has none, for the mean of 64 voxels keeps an
    eighth of it.
    """
    (*channels, pet), mask = move(augmentation, (*patch.ct, patch.pet), patch.mask, spacing_mm)
    ct = add_noise(augmentation, np.stack(channels), mask)
    context = None if patch.context is None else _moved_context(augmentation, patch.context, spacing_mm)
    return replace(patch, ct=ct, pet=pet, mask=mask, context=context)


def move(
    augmentation: Augmentation, images: tuple[FloatArray, ...], mask: BoolArray, spacing_mm: Triple
) -> tuple[tuple[FloatArray, ...], BoolArray]:
    """Patches of one place mirrored and turned together, 0 outside the mask that moved with them, and that mask.

    The angles are those of the body in mm, whatever the voxels' edges.
    """
    axes = _mirrored_axes(augmentation)
    images, mask = tuple(np.flip(image, axes) for image in images), np.flip(mask, axes)
    if any(augmentation.angles_deg):
        images, mask = _rotated(images, mask, augmentation.angles_deg, spacing_mm)
    return tuple(np.ascontiguousarray(image * mask) for image in images), np.ascontiguousarray(mask)


def add_noise(augmentation: Augmentation, ct: FloatArray, mask: BoolArray) -> FloatArray:
    """The channels of a CT patch (C, D, H, W) with Gaussian noise inside the mask, within [0, 1]."""
    if not augmentation.noise_sigma:
        return ct
    noise = np.random.default_rng(augmentation.noise_seed).standard_normal(ct.shape, np.float32)
    noisy: FloatArray = np.clip(ct + np.float32(augmentation.noise_sigma) * noise, 0.0, 1.0) * mask
    return noisy


def _mirrored_axes(augmentation: Augmentation) -> tuple[int, ...]:
    return tuple(axis for axis, flip in enumerate(augmentation.flips) if flip)


def _moved_context(augmentation: Augmentation, context: FloatArray, spacing_mm: Triple) -> FloatArray:
    """A context (C, D, H, W) mirrored and turned; all of it, for it has no mask. Its cells have the voxels' shape."""
    mirrored = np.flip(context, tuple(1 + axis for axis in _mirrored_axes(augmentation)))
    if not any(augmentation.angles_deg):
        return np.ascontiguousarray(mirrored)
    points = _turned_grid(context.shape[1:], augmentation.angles_deg, spacing_mm)
    return _turned(np.ascontiguousarray(mirrored), points)


def _rotated(
    images: tuple[FloatArray, ...], mask: BoolArray, angles_deg: Triple, spacing_mm: Triple
) -> tuple[tuple[FloatArray, ...], BoolArray]:
    """Patches turned about their centre by the angles about the axes D, H and W, one after the other, as bodies turn.

    One sampling grid serves all: PyTorch's grid_sample takes a little more than half of the time of SciPy's
    affine_transform, and a fifth of that of MONAI's RandAffine (training/LOG.md).
    """
    points = _turned_grid(mask.shape, angles_deg, spacing_mm)
    turned = _turned(np.stack(images), points)
    region = torch.from_numpy(mask.astype(np.float32))[None, None]
    inside = functional.grid_sample(region, points, mode="nearest", padding_mode="zeros", align_corners=True)[0, 0]
    turned_mask: BoolArray = ((inside > 0.5) & (points[0].abs() <= EDGE).all(-1)).numpy()
    return tuple(turned), turned_mask


def _turned(images: FloatArray, points: Tensor) -> FloatArray:
    """Images (C, D, H, W) at the points of a sampling grid, trilinear and filled with 0."""
    values = torch.from_numpy(images)[None]
    turned = functional.grid_sample(values, points, mode="bilinear", padding_mode="zeros", align_corners=True)[0]
    found: FloatArray = turned.numpy()
    return found


def _turned_grid(shape: tuple[int, ...], angles_deg: Triple, spacing_mm: Triple) -> Tensor:
    """Where each voxel of the turned patch lies in the patch, (1, D, H, W, 3), as grid_sample counts: W, H, D.

    grid_sample counts in half edges; the turn is one in mm, for in voxels of unequal edges it would shear.
    """
    turn = np.asarray(Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix(), np.float64)
    edges_mm = np.asarray(spacing_mm) * np.maximum(np.asarray(shape, np.float64) - 1.0, 1.0) / 2.0
    normalised = turn * edges_mm[None, :] / edges_mm[:, None]
    affine = np.concatenate([normalised[::-1, ::-1], np.zeros((3, 1))], axis=1)
    return functional.affine_grid(torch.from_numpy(affine.astype(np.float32))[None], [1, 1, *shape], align_corners=True)
