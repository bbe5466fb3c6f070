"""What the networks of Pix2Pix and CycleGAN minimise; each loss cites its paper and knows no file."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class GeneratorLoss:
    """The sum that is minimised, and its two parts before weighting."""

    total: Tensor
    adversarial: Tensor
    l1: Tensor


def adversarial_loss(logits: Tensor, *, real: bool) -> Tensor:
    """Binary cross-entropy of a discriminator's logits against one verdict (Goodfellow et al. 2014, equation 1).

    Logits, not probabilities: a sigmoid before the logarithm loses all gradient in half precision.
    """
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, 1.0 if real else 0.0))


def l1_distance(one: Tensor, other: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean of |one - other| over the windows, or its sum with a weight per voxel."""
    return functional.l1_loss(one, other) if weight is None else ((one - other).abs() * weight).sum()


def generator_loss(
    fake_logits: Tensor, fake: Tensor, real: Tensor, lambda_l1: float, weight: Tensor | None = None
) -> GeneratorLoss:
    """Isola et al. 2017, equation 4: fool the discriminator, and stay within L1 of the real PET.

    The generator maximises log D(fake) instead of minimising log(1 - D(fake)) (section 3.3 there). ``fake`` and
    ``real`` are PET in model space; lambda is 100 in both papers, which have no ``weight`` (``l1_distance``).
    """
    adversarial = adversarial_loss(fake_logits, real=True)
    l1 = l1_distance(fake, real, weight)
    return GeneratorLoss(adversarial + lambda_l1 * l1, adversarial, l1)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Tell real pairs from synthetic ones; halved, so that it learns more slowly than the generator (Isola, 3.3)."""
    return 0.5 * (adversarial_loss(real_logits, real=True) + adversarial_loss(fake_logits, real=False))


@dataclass(frozen=True)
class CycleLoss:
    """The sum that CycleGAN's two generators minimise, and its three parts before weighting."""

    total: Tensor
    adversarial: Tensor
    cycle: Tensor
    identity: Tensor


def least_squares_loss(verdicts: Tensor, *, real: bool) -> Tensor:
    """Mean squared distance of a discriminator's verdicts from 1 (real) or 0 (Mao et al. 2017, equation 9).

    The verdicts are the discriminator's bare outputs: an activation before the square would hide large errors.
    """
    return functional.mse_loss(verdicts, torch.full_like(verdicts, 1.0 if real else 0.0))


def least_squares_discriminator_loss(real_verdicts: Tensor, fake_verdicts: Tensor) -> Tensor:
    """Mao et al. 2017, equation 9 with b = 1 and a = 0: half of each square."""
    return 0.5 * (least_squares_loss(real_verdicts, real=True) + least_squares_loss(fake_verdicts, real=False))


def cycle_loss(original: Tensor, again: Tensor, weight: Tensor | None = None) -> Tensor:
    """Zhu et al. 2017, equation 2, one of its two terms: the way there and back ends where it began."""
    return l1_distance(again, original, weight)


def identity_loss(original: Tensor, same: Tensor, weight: Tensor | None = None) -> Tensor:
    """Zhu et al. 2017, section 5.2: an image that is of the target kind already is left as it is."""
    return l1_distance(same, original, weight)


def cycle_generator_loss(
    adversarial: Tensor, cycle: Tensor, identity: Tensor, *, lambda_cycle: float, lambda_identity: float
) -> CycleLoss:
    """Zhu et al. 2017, equation 3 and section 5.2; each part is the sum over both directions."""
    return CycleLoss(adversarial + lambda_cycle * cycle + lambda_identity * identity, adversarial, cycle, identity)
