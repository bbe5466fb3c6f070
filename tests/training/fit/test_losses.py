"""The losses against their formulas, written out in numpy."""

import math

import numpy as np
import pytest
import torch

from training.fit.losses import (
    adversarial_loss,
    cycle_generator_loss,
    cycle_loss,
    discriminator_loss,
    generator_loss,
    identity_loss,
    l1_distance,
    least_squares_discriminator_loss,
    least_squares_loss,
)

pytestmark = pytest.mark.loop

RANDOM = np.random.default_rng(8)
REAL_LOGITS, FAKE_LOGITS = RANDOM.normal(0, 3, (2, 2, 1, 6, 6, 6))


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-values))


def test_the_adversarial_loss_is_the_cross_entropy_of_the_verdict() -> None:
    """Goodfellow et al. 2014, equation 1: -log D where the verdict is real, -log(1 - D) where it is not."""
    logits = torch.from_numpy(FAKE_LOGITS)
    assert math.isclose(float(adversarial_loss(logits, real=True)), -np.log(sigmoid(FAKE_LOGITS)).mean(), rel_tol=1e-9)
    assert math.isclose(
        float(adversarial_loss(logits, real=False)), -np.log(1 - sigmoid(FAKE_LOGITS)).mean(), rel_tol=1e-9
    )


def test_an_undecided_discriminator_costs_the_logarithm_of_two() -> None:
    zeros = torch.zeros(1, 1, 6, 6, 6)
    assert math.isclose(float(discriminator_loss(zeros, zeros)), math.log(2), rel_tol=1e-6)


def test_the_discriminator_pays_half_of_both_verdicts() -> None:
    loss = discriminator_loss(torch.from_numpy(REAL_LOGITS), torch.from_numpy(FAKE_LOGITS))
    oracle = -0.5 * (np.log(sigmoid(REAL_LOGITS)).mean() + np.log(1 - sigmoid(FAKE_LOGITS)).mean())
    assert math.isclose(float(loss), oracle, rel_tol=1e-9)


def test_the_generator_pays_for_being_caught_and_lambda_times_l1() -> None:
    """Isola et al. 2017, equation 4, with the non-saturating first term."""
    fake, real = RANDOM.random((2, 1, 1, 4, 4, 4))
    loss = generator_loss(torch.from_numpy(FAKE_LOGITS), torch.from_numpy(fake), torch.from_numpy(real), 100.0)
    adversarial, l1 = -np.log(sigmoid(FAKE_LOGITS)).mean(), np.abs(fake - real).mean()
    assert math.isclose(float(loss.l1), l1, rel_tol=1e-9)
    assert math.isclose(float(loss.adversarial), adversarial, rel_tol=1e-9)
    assert math.isclose(float(loss.total), adversarial + 100.0 * l1, rel_tol=1e-9)


def test_a_weighted_l1_counts_what_has_weight_alone() -> None:
    """Weights of 1/n in n voxels give the mean over them, whatever lies outside."""
    fake, real = RANDOM.random((2, 2, 1, 4, 4, 4))
    mask = RANDOM.random(fake.shape) < 0.3
    fake[~mask] = 99.0
    weight = torch.from_numpy(mask / mask.sum())
    expected = np.abs(fake - real)[mask].mean()
    assert math.isclose(float(l1_distance(torch.from_numpy(fake), torch.from_numpy(real), weight)), expected)
    loss = generator_loss(torch.from_numpy(FAKE_LOGITS), torch.from_numpy(fake), torch.from_numpy(real), 100.0, weight)
    assert math.isclose(float(loss.l1), expected, rel_tol=1e-9)
    assert math.isclose(float(loss.total), float(loss.adversarial) + 100.0 * expected, rel_tol=1e-9)


def test_a_certain_verdict_stays_finite() -> None:
    """Where a probability would have rounded to 0 or 1 and its logarithm to infinity."""
    certain = torch.full((1, 1, 6, 6, 6), -200.0, requires_grad=True)
    loss = adversarial_loss(certain, real=True)
    loss.backward()
    assert math.isclose(float(loss.detach()), 200.0, rel_tol=1e-6)
    assert certain.grad is not None and bool((certain.grad != 0).all())


def test_least_squares_are_the_distance_from_the_verdict() -> None:
    """Mao et al. 2017, equation 9; a confident mistake of -2 costs 4, whatever libraries' activations make of it."""
    logits = torch.from_numpy(FAKE_LOGITS)
    assert math.isclose(float(least_squares_loss(logits, real=True)), ((FAKE_LOGITS - 1) ** 2).mean(), rel_tol=1e-9)
    assert math.isclose(float(least_squares_loss(logits, real=False)), (FAKE_LOGITS**2).mean(), rel_tol=1e-9)
    assert float(least_squares_loss(torch.full((1, 1, 6, 6, 6), -2.0), real=False)) == 4.0


def test_the_least_squares_discriminator_pays_half_of_both_verdicts() -> None:
    loss = least_squares_discriminator_loss(torch.from_numpy(REAL_LOGITS), torch.from_numpy(FAKE_LOGITS))
    oracle = 0.5 * (((REAL_LOGITS - 1) ** 2).mean() + (FAKE_LOGITS**2).mean())
    assert math.isclose(float(loss), oracle, rel_tol=1e-9)


def test_the_cycle_and_the_identity_are_mean_distances_with_their_weights() -> None:
    """Zhu et al. 2017, equations 2 and 3 and section 5.2: 10 for the cycle, half of it for the identity."""
    original, again, same = (torch.from_numpy(values) for values in RANDOM.random((3, 1, 1, 4, 4, 4)))
    cycle, identity = cycle_loss(original, again), identity_loss(original, same)
    assert math.isclose(float(cycle), np.abs(original.numpy() - again.numpy()).mean(), rel_tol=1e-9)
    assert math.isclose(float(identity), np.abs(original.numpy() - same.numpy()).mean(), rel_tol=1e-9)
    loss = cycle_generator_loss(torch.tensor(0.25), cycle, identity, lambda_cycle=10.0, lambda_identity=5.0)
    assert math.isclose(float(loss.total), 0.25 + 10.0 * float(cycle) + 5.0 * float(identity), rel_tol=1e-6)
