"""CycleGAN's step against the same formulas written out, and the pool of earlier images."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.samples.small_pairs import small_config, small_sampler
from training.fit.batches import Batch, sample_batch
from training.fit.config import TrainConfig
from training.fit.cyclegan import cyclegan_step
from training.fit.state import ImagePool, TrainState, fresh_state

pytestmark = pytest.mark.loop


def begun(folder: Path) -> tuple[TrainConfig, TrainState, Batch]:
    config = replace(small_config(folder), method="cyclegan")
    return config, fresh_state(config, "trunk", {}), sample_batch(config, "trunk", small_sampler(0, 1), 0)


def gradients(network: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def test_both_generators_pay_for_verdicts_cycles_and_identities(tmp_path: Path) -> None:
    """Oracle: Zhu et al. 2017, equation 3 and section 5.2, one forward pass a term; gradients clipped together."""
    config, state, batch = begun(tmp_path)
    _, twin, _ = begun(tmp_path)
    losses = cyclegan_step(config, state, batch)
    to_pet, to_ct = twin.generators["ct_to_pet"], twin.generators["pet_to_ct"]
    made_pet, made_ct = to_pet(batch.ct), to_ct(batch.pet)
    verdicts = ((twin.discriminators["pet"](made_pet) - 1) ** 2).mean() + (
        (twin.discriminators["ct"](made_ct) - 1) ** 2
    ).mean()
    l1 = functional.l1_loss
    cycle = l1(to_ct(made_pet), batch.ct) + l1(to_pet(made_ct), batch.pet)
    identity = l1(to_pet(batch.pet), batch.pet) + l1(to_ct(batch.ct), batch.ct)
    (verdicts + 10.0 * cycle + 5.0 * identity).backward()
    torch.nn.utils.clip_grad_norm_(twin.generators.parameters(), 5.0)
    for ours, oracle in zip(gradients(state.generators), gradients(twin.generators), strict=True):
        torch.testing.assert_close(ours, oracle, rtol=1e-3, atol=1e-5)
    by_hand = {"adversarial": verdicts, "cycle": cycle, "identity": identity}
    for name, value in by_hand.items():
        assert abs(losses[name] - float(value.detach())) < 1e-5


def test_cycle_and_identity_over_the_masks_count_each_images_own_region(tmp_path: Path) -> None:
    """Oracle: means over the chosen voxels; CT and PET of a batch have masks of different patients' windows."""
    config = replace(small_config(tmp_path, l1_over="mask"), method="cyclegan")
    state = fresh_state(config, "trunk", {})
    batch = sample_batch(config, "trunk", small_sampler(0, 1, labels=(2,)), 0)
    assert not torch.equal(batch.ct_mask, batch.pet_mask)
    to_pet, to_ct = state.generators["ct_to_pet"], state.generators["pet_to_ct"]
    with torch.no_grad():
        made_pet, made_ct = to_pet(batch.ct), to_ct(batch.pet)
        of_ct, of_pet = ((to_ct(made_pet), to_ct(batch.ct)), (to_pet(made_ct), to_pet(batch.pet)))
    losses = cyclegan_step(config, state, batch)
    for at, name in enumerate(("cycle", "identity")):
        ct_part = (of_ct[at] - batch.ct).abs()[batch.ct_mask].mean()
        pet_part = (of_pet[at] - batch.pet).abs()[batch.pet_mask].mean()
        assert abs(losses[name] - float(ct_part + pet_part)) < 1e-5


def test_each_discriminator_judges_its_own_kind_of_image(tmp_path: Path) -> None:
    """Oracle: Mao et al. 2017, equation 9, on the first step, when the pool gives back what it was given."""
    config, state, batch = begun(tmp_path)
    _, twin, _ = begun(tmp_path)
    with torch.no_grad():
        made = {"pet": twin.generator(batch.ct), "ct": twin.generators["pet_to_ct"](batch.pet)}
    cyclegan_step(config, state, batch)
    for name, real in (("ct", batch.ct), ("pet", batch.pet)):
        judge = twin.discriminators[name]
        (0.5 * (((judge(real) - 1) ** 2).mean() + (judge(made[name]) ** 2).mean())).backward()
        for pool_image, image in zip(state.pools[name].images, made[name], strict=True):
            torch.testing.assert_close(pool_image, image, rtol=0, atol=1e-6)
    torch.nn.utils.clip_grad_norm_(twin.discriminators.parameters(), 5.0)
    for ours, oracle in zip(gradients(state.discriminators), gradients(twin.discriminators), strict=True):
        torch.testing.assert_close(ours, oracle, rtol=1e-3, atol=1e-5)


def test_ct_and_pet_of_a_batch_come_from_different_patients(tmp_path: Path) -> None:
    config, sampler = replace(small_config(tmp_path), method="cyclegan"), small_sampler(0, 1, 2)
    for step in range(10):
        for origin in sample_batch(config, "trunk", sampler, step).origins:
            of_ct, of_pet = re.findall(r"study-\d", origin)
            assert of_ct != of_pet


def test_the_pool_fills_then_gives_earlier_images_half_of_the_time() -> None:
    """Zhu et al. 2017, section 4. Images are told apart by their value."""
    pool, random = ImagePool(50), np.random.default_rng(0)
    for number in range(50):
        image = torch.full((1, 1, 2, 2, 2), float(number))
        assert torch.equal(pool.exchange(image, random), image)
    given = []
    for number in range(50, 2050):
        given.append(float(pool.exchange(torch.full((1, 1, 2, 2, 2), float(number)), random).max()))
    earlier = [value for number, value in enumerate(given, 50) if value != number]
    assert abs(len(earlier) / len(given) - 0.5) < 0.05
    assert len(set(earlier)) == len(earlier) and len(pool.images) == 50


def test_a_pool_of_none_gives_back_what_it_is_given() -> None:
    images = torch.rand(3, 1, 2, 2, 2)
    pool = ImagePool(0)
    assert torch.equal(pool.exchange(images, np.random.default_rng(0)), images) and not pool.images
