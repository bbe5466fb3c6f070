"""What the two networks of Pix2Pix minimise; each loss cites its paper and knows no file."""

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


def generator_loss(fake_logits: Tensor, fake: Tensor, real: Tensor, lambda_l1: float) -> GeneratorLoss:
    """Isola et al. 2017, equation 4: fool the discriminator, and stay within L1 of the real PET.

    The generator maximises log D(fake) instead of minimising log(1 - D(fake)) (section 3.3 there). ``fake`` and
    ``real`` are PET in model space; lambda is 100 in both papers.
    """
    adversarial = adversarial_loss(fake_logits, real=True)
    l1 = functional.l1_loss(fake, real)
    return GeneratorLoss(adversarial + lambda_l1 * l1, adversarial, l1)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Tell real pairs from made ones; halved, so that it learns more slowly than the generator (Isola, section 3.3)."""
    return 0.5 * (adversarial_loss(real_logits, real=True) + adversarial_loss(fake_logits, real=False))
