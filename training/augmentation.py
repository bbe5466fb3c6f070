"""Random changes of a pair of patches; drawing stands apart from applying, so a draw can be recorded and replayed."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from training.config import AugmentationConfig
from twin_scanner.volume import FloatArray, Triple

BoolArray: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Augmentation:
    """One draw: which axes (D, H, W) are mirrored, angles about them in degrees, and the seed of the CT's noise."""

    flips: tuple[bool, bool, bool]
    angles_deg: Triple
    noise_sigma: float
    noise_seed: int


def draw_augmentation(random: np.random.Generator, config: AugmentationConfig) -> Augmentation:
    """A draw as paper section IV-B describes it: flips, rotations up to +-10 degrees, Gaussian noise."""
    d, h, w = (bool(random.random() < 0.5) and axis in config.flip_axes for axis in "DHW")
    about_d, about_h, about_w = (float(random.uniform(-1.0, 1.0)) * config.rotation_deg for _ in range(3))
    return Augmentation((d, h, w), (about_d, about_h, about_w), config.noise_sigma, int(random.integers(2**32)))


def augment(
    augmentation: Augmentation, ct: FloatArray, pet: FloatArray, mask: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """CT and PET patches (D, H, W) in model space after the draw, both 0 outside the (moved) mask.

    Mirroring and rotation move both, trilinear and filled with 0; the noise is the CT's alone and stays inside the
    mask and within [0, 1].
    """
    axes = tuple(axis for axis, flip in enumerate(augmentation.flips) if flip)
    ct, pet, mask = np.flip(ct, axes), np.flip(pet, axes), np.flip(mask, axes)
    if any(augmentation.angles_deg):
        ct, pet = _rotated(ct, augmentation.angles_deg, 1), _rotated(pet, augmentation.angles_deg, 1)
        mask = _rotated(mask.astype(np.float32), augmentation.angles_deg, 0) > 0.5
    if augmentation.noise_sigma:
        noise = np.random.default_rng(augmentation.noise_seed).standard_normal(ct.shape, np.float32)
        ct = np.clip(ct + np.float32(augmentation.noise_sigma) * noise, 0.0, 1.0)
    return np.ascontiguousarray(ct * mask), np.ascontiguousarray(pet * mask)


def _rotated(patch: FloatArray, angles_deg: Triple, order: Literal[0, 1]) -> FloatArray:
    """A patch turned about its centre by the angles about the axes D, H and W, one after the other."""
    turn = np.asarray(Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix(), np.float64)
    centre = (np.asarray(patch.shape) - 1) / 2.0
    turned = ndimage.affine_transform(
        patch, turn, centre - turn @ centre, output=np.float32, order=order, mode="constant", cval=0.0
    )
    return np.asarray(turned, np.float32)
