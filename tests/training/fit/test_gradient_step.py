"""One step down a gradient: the paper's learning rate and clipping, and precisions other than float32."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.samples.small_pairs import small_config, small_pair, small_sampler
from training.fit.batches import sample_batch
from training.fit.config import AugmentationConfig, NetworkConfig, ScheduleConfig
from training.fit.gradient_step import learning_rate, set_learning_rate
from training.fit.pix2pix import pix2pix_step
from training.fit.state import TrainState, architecture, fresh_state
from twin_scanner.errors import Rejected

pytestmark = pytest.mark.loop


def weights(state: TrainState) -> list[torch.Tensor]:
    return [*state.generators.parameters(), *state.discriminators.parameters()]


def test_the_learning_rate_is_constant_then_falls_linearly_epoch_by_epoch(tmp_path: Path) -> None:
    """Paper section IV-B: 100 epochs at 2e-4, 50 down to 0; the last epoch still learns."""
    config = replace(small_config(tmp_path), schedule=ScheduleConfig(100, 50, 10))
    rates = [learning_rate(config, epoch) for epoch in range(150)]
    assert rates[:100] == [2e-4] * 100
    np.testing.assert_allclose(rates[100:], 2e-4 * (1 - np.arange(1, 51) / 51), rtol=1e-12)
    state = fresh_state(config, "trunk", {})
    set_learning_rate(config, state, 120)
    for optimiser in (state.generator_optimiser, state.discriminator_optimiser):
        assert [group["lr"] for group in optimiser.param_groups] == [rates[120]]


def test_gradients_are_clipped_to_a_norm_of_five(tmp_path: Path) -> None:
    config = small_config(tmp_path, lambda_l1=1e9)
    state = fresh_state(config, "trunk", {})
    pix2pix_step(config, state, sample_batch(config, "trunk", small_sampler(0), 0))
    norm = torch.linalg.vector_norm(
        torch.cat([p.grad.flatten() for p in state.generator.parameters() if p.grad is not None])
    )
    assert math.isclose(float(norm), 5.0, rel_tol=1e-4)


def test_the_discriminator_sees_the_cts_first_channel_beside_the_pet(tmp_path: Path) -> None:
    config = replace(small_config(tmp_path), network=NetworkConfig(2, 2, 2, soft_tissue=True, context=True))
    state, seen = fresh_state(config, "trunk", {}), []
    batch = sample_batch(config, "trunk", small_sampler(0, architecture=architecture(config)), 0)
    assert batch.ct.shape == (2, 2, 32, 32, 32) and batch.context is not None
    assert batch.context.shape == batch.ct.shape and float(batch.context.std()) > 0.0
    state.discriminators["pair"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    pix2pix_step(config, state, batch)
    assert len(seen) == 3
    for images in seen:
        assert torch.equal(images[:, :1], batch.ct[:, :1]) and images.shape[1] == 2
    assert torch.equal(seen[0][:, 1:], batch.pet)


@pytest.mark.parametrize("method", ["pix2pix", "cyclegan"])
def test_a_batch_says_where_the_region_lies_in_each_image(tmp_path: Path, method: str) -> None:
    """Nothing of an image lies outside its mask, and the masks are those of the places that the batch names."""
    config = replace(small_config(tmp_path), method=method, augmentation=AugmentationConfig((), 0.0, 0.0))
    batch = sample_batch(config, "trunk", small_sampler(0, 1, labels=(2,)), 0)
    for number, origin in enumerate(batch.origins):
        places = re.findall(r"study-(\d) at \[(\d+), (\d+), (\d+)\]", origin)
        for (seed, *start), mask in zip(places, (batch.ct_mask, batch.pet_mask), strict=False):
            cube = tuple(slice(int(first), int(first) + 32) for first in start)
            np.testing.assert_array_equal(mask[number, 0].numpy(), small_pair(int(seed)).labels[cube] == 2)
    assert batch.ct_mask.any() and not batch.ct[~batch.ct_mask].any() and not batch.pet[~batch.pet_mask].any()


def test_l1_over_the_mask_is_the_mean_over_the_regions_voxels_of_the_batch(tmp_path: Path) -> None:
    config = small_config(tmp_path, l1_over="mask")
    state = fresh_state(config, "trunk", {})
    batch = sample_batch(config, "trunk", small_sampler(0, labels=(2,)), 0)
    with torch.no_grad():
        difference = (state.generator(batch.ct) - batch.pet).abs()
    losses = pix2pix_step(config, state, batch)
    assert math.isclose(losses["L1"], float(difference[batch.pet_mask].mean()), rel_tol=1e-5)
    assert abs(losses["L1"] - float(difference.mean())) > 1e-3


def test_the_discriminator_is_not_moved_by_the_generators_step(tmp_path: Path) -> None:
    """Its gradients after a step are those of its own loss alone, clipped."""
    config = small_config(tmp_path)
    state, twin = fresh_state(config, "trunk", {}), fresh_state(config, "trunk", {})
    batch = sample_batch(config, "trunk", small_sampler(0, labels=(2,)), 0)
    pix2pix_step(config, state, batch)
    made = twin.generator(batch.ct).detach()
    for pet, verdict in ((batch.pet, 1.0), (made, 0.0)):
        logits = twin.discriminators["pair"](torch.cat([batch.ct, pet], 1))
        target = torch.full_like(logits, verdict)
        (0.5 * torch.nn.functional.binary_cross_entropy_with_logits(logits, target)).backward()
    torch.nn.utils.clip_grad_norm_(twin.discriminators.parameters(), 5.0)
    for ours, oracle in zip(state.discriminators.parameters(), twin.discriminators.parameters(), strict=True):
        assert ours.grad is not None and oracle.grad is not None
        torch.testing.assert_close(ours.grad, oracle.grad, rtol=1e-4, atol=1e-6)


def test_bfloat16_computes_coarsely_and_keeps_weights_and_losses_fine(tmp_path: Path) -> None:
    """The losses are those of float32 to the 8 bits of bfloat16, and not the same."""
    fine = small_config(tmp_path)
    coarse = replace(fine, compute=replace(fine.compute, precision="bfloat16"))
    losses = []
    for config in (fine, coarse):
        state = fresh_state(config, "trunk", {})
        losses.append(pix2pix_step(config, state, sample_batch(config, "trunk", small_sampler(0), 0)))
        assert all(value.dtype == torch.float32 and bool(torch.isfinite(value).all()) for value in weights(state))
    assert losses[0] != losses[1]
    for name, value in losses[0].items():
        assert math.isclose(value, losses[1][name], rel_tol=0.02)


def test_weights_may_lie_in_either_layout(tmp_path: Path) -> None:
    """Channels last is a matter of speed: the losses are the same to rounding."""
    losses = []
    for channels_last in (True, False):
        config = small_config(tmp_path)
        config = replace(config, compute=replace(config.compute, channels_last=channels_last))
        state = fresh_state(config, "trunk", {})
        losses.append(pix2pix_step(config, state, sample_batch(config, "trunk", small_sampler(0), 0)))
    for name, value in losses[0].items():
        assert math.isclose(value, losses[1][name], rel_tol=1e-4)


def test_compiling_without_a_compiler_is_rejected_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    config = small_config(tmp_path)
    with pytest.raises(Rejected, match=r"compute\.compile needs a C\+\+ compiler"):
        fresh_state(replace(config, compute=replace(config.compute, compile=True)), "trunk", {})
