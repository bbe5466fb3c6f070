"""Random changes of a pair of patches; sampling is apart from applying, so a sample can be recorded and replayed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

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
    turn = None if (found := turn_of(augmentation, patch.mask.shape, spacing_mm)) is None else torch.from_numpy(found)
    images, mask = moved(augmentation, _tensor(np.stack((*patch.ct, patch.pet))), _tensor(patch.mask), turn)
    ct, noise = images[:-1], noise_of(augmentation, patch.ct.shape)
    if noise is not None:
        ct = noisy(ct, mask, torch.from_numpy(noise))
    context = None if patch.context is None else moved_context(augmentation, _tensor(patch.context), turn).numpy()
    return replace(patch, ct=ct.numpy(), pet=images[-1].numpy(), mask=mask.numpy(), context=context)


def move(
    augmentation: Augmentation, images: tuple[FloatArray, ...], mask: BoolArray, spacing_mm: Triple
) -> tuple[tuple[FloatArray, ...], BoolArray]:
    """Patches of one place mirrored and turned together, 0 outside the mask that moved with them, and that mask.

    The angles are those of the body in mm, whatever the voxels' edges.
    """
    turn = None if (found := turn_of(augmentation, mask.shape, spacing_mm)) is None else torch.from_numpy(found)
    together, moved_mask = moved(augmentation, _tensor(np.stack(images)), _tensor(mask), turn)
    return tuple(together.numpy()), moved_mask.numpy()


def turn_of(augmentation: Augmentation, shape: tuple[int, ...], spacing_mm: Triple) -> FloatArray | None:
    """The rotation of patches of a shape as ``moved`` takes it, (1, 3, 4); None where the angles are 0.

    The turn is about the axes D, H and W, one after the other, as bodies turn. grid_sample counts in half edges; the
    turn is one in mm, for in voxels of unequal edges it would shear.
    """
    if not any(augmentation.angles_deg):
        return None
    turn = np.asarray(Rotation.from_euler("xyz", augmentation.angles_deg, degrees=True).as_matrix(), np.float64)
    edges_mm = np.asarray(spacing_mm) * np.maximum(np.asarray(shape, np.float64) - 1.0, 1.0) / 2.0
    normalised = turn * edges_mm[None, :] / edges_mm[:, None]
    return np.concatenate([normalised[::-1, ::-1], np.zeros((3, 1))], axis=1).astype(np.float32)[None]


def noise_of(augmentation: Augmentation, shape: tuple[int, ...]) -> FloatArray | None:
    """What is added to a CT patch (C, D, H, W), in model space; None where that is nothing."""
    if not augmentation.noise_sigma:
        return None
    noise = np.random.default_rng(augmentation.noise_seed).standard_normal(shape, np.float32)
    scaled: FloatArray = np.float32(augmentation.noise_sigma) * noise
    return scaled


def moved(augmentation: Augmentation, images: Tensor, mask: Tensor, turn: Tensor | None) -> tuple[Tensor, Tensor]:
    """Images (C, D, H, W) and their mask (D, H, W) on any device, mirrored and turned; images are 0 outside the mask.

    One sampling grid serves all: PyTorch's grid_sample takes a little more than half of the time of SciPy's
    affine_transform, and a fifth of that of MONAI's RandAffine (training/LOG.md).
    """
    axes = _mirrored_axes(augmentation)
    images, mask = images.flip([1 + axis for axis in axes]), mask.flip(axes)
    if turn is not None:
        points = _turned_grid(turn, mask.shape)
        region = mask.float()[None, None]
        inside = functional.grid_sample(region, points, mode="nearest", padding_mode="zeros", align_corners=True)[0, 0]
        images, mask = _turned(images, points), (inside > 0.5) & (points[0].abs() <= EDGE).all(-1)
    return images * mask, mask


def moved_context(augmentation: Augmentation, context: Tensor, turn: Tensor | None) -> Tensor:
    """A context (C, D, H, W) mirrored and turned; all of it, for it has no mask. Its cells have the voxels' shape."""
    mirrored = context.flip([1 + axis for axis in _mirrored_axes(augmentation)])
    return mirrored if turn is None else _turned(mirrored, _turned_grid(turn, context.shape[1:]))


def noisy(ct: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
    """The channels of a CT patch (C, D, H, W) with noise inside the mask, within [0, 1]."""
    return (ct + noise).clamp(0.0, 1.0) * mask


def _mirrored_axes(augmentation: Augmentation) -> tuple[int, ...]:
    return tuple(axis for axis, flip in enumerate(augmentation.flips) if flip)


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _turned(images: Tensor, points: Tensor) -> Tensor:
    """Images (C, D, H, W) at the points of a sampling grid, trilinear and filled with 0."""
    return functional.grid_sample(images[None], points, mode="bilinear", padding_mode="zeros", align_corners=True)[0]


def _turned_grid(turn: Tensor, shape: Sequence[int]) -> Tensor:
    """Where each voxel of the turned patch lies in the patch, (1, D, H, W, 3), as grid_sample counts: W, H, D.

    The same bits as PyTorch's affine_grid, which lays the plain grid anew each time.
    """
    return torch.bmm(_plain_grid(tuple(shape), turn.device), turn.transpose(1, 2)).view(1, *shape, 3)


@lru_cache(maxsize=8)
def _plain_grid(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Where each voxel lies, (1, D H W, 4), with a 1 after it."""
    same = torch.eye(3, 4, device=device)[None]
    points = functional.affine_grid(same, [1, 1, *shape], align_corners=True).view(1, -1, 3)
    return torch.cat([points, torch.ones_like(points[..., :1])], -1)
