"""One step of CycleGAN: two generators go there and back, then the two discriminators of CT and of PET."""

import torch
from torch import Tensor

from training.fit.batches import POOL, Batch, step_random
from training.fit.config import TrainConfig
from training.fit.distributed import gathered, mean_over_processes, process_rank
from training.fit.gradient_step import check_finite, l1_weight, precision, take_gradient_step
from training.fit.losses import (
    CycleLoss,
    cycle_generator_loss,
    cycle_loss,
    identity_loss,
    least_squares_discriminator_loss,
    least_squares_loss,
)
from training.fit.state import CT_TO_PET, PET_TO_CT, TrainState


def cyclegan_step(config: TrainConfig, state: TrainState, batch: Batch) -> dict[str, float]:
    """Zhu et al. 2017, sections 3 and 4, on CT and PET windows of different patients; the losses by name.

    Least-squares losses; the discriminators see images of the pool. Raises Rejected where a loss is not finite.
    """
    state.discriminators.requires_grad_(False)
    made_ct, made_pet, generators = _translate_both_ways(config, state, batch)
    check_finite(config, state, batch, "generator", generators.total)
    take_gradient_step(config, state, state.generators, state.generator_optimiser, generators.total)

    state.discriminators.requires_grad_(True)
    loss = _discriminator_loss(config, state, "ct", batch.ct, made_ct) + _discriminator_loss(
        config, state, "pet", batch.pet, made_pet
    )
    check_finite(config, state, batch, "discriminator", loss)
    take_gradient_step(config, state, state.discriminators, state.discriminator_optimiser, loss)

    state.scaler.update()
    return mean_over_processes(
        {
            "cycle": generators.cycle,
            "identity": generators.identity,
            "adversarial": generators.adversarial,
            "discriminator": loss,
        }
    )


def _translate_both_ways(config: TrainConfig, state: TrainState, batch: Batch) -> tuple[Tensor, Tensor, CycleLoss]:
    """The made CT and PET, and what both generators pay for them."""
    ct, pet, to_pet, to_ct = batch.ct, batch.pet, state.generators[CT_TO_PET], state.generators[PET_TO_CT]
    with precision(config, state):
        # Windows stand alone, so a generator takes both of its inputs in one pass.
        made_pet, same_pet = to_pet(torch.cat([ct, pet])).chunk(2)
        made_ct, same_ct = to_ct(torch.cat([pet, ct])).chunk(2)
        again_ct, again_pet = to_ct(made_pet), to_pet(made_ct)
        ct_verdicts = state.discriminators["ct"](made_ct).float()
        pet_verdicts = state.discriminators["pet"](made_pet).float()
    optimiser = config.optimiser
    of_ct, of_pet = l1_weight(config, batch.ct_mask), l1_weight(config, batch.pet_mask)
    return (
        made_ct,
        made_pet,
        cycle_generator_loss(
            least_squares_loss(ct_verdicts, real=True) + least_squares_loss(pet_verdicts, real=True),
            cycle_loss(ct, again_ct, of_ct) + cycle_loss(pet, again_pet, of_pet),
            identity_loss(ct, same_ct, of_ct) + identity_loss(pet, same_pet, of_pet),
            lambda_cycle=optimiser.lambda_cycle,
            lambda_identity=optimiser.lambda_identity,
        ),
    )


def _discriminator_loss(config: TrainConfig, state: TrainState, which: str, real: Tensor, generated: Tensor) -> Tensor:
    """The loss of one discriminator on real images and on images of the pool.

    The pool sees the images of all processes in the order of the samples, so every process holds the same pool and
    takes its own share of what comes out.
    """
    random = step_random(config, f"{state.network}/{which}", POOL, state.step)
    pooled = state.pools[which].exchange(gathered(generated), random)
    share = pooled[process_rank() * len(real) :][: len(real)]
    discriminator = state.discriminators[which]
    with precision(config, state):
        verdicts = discriminator(real).float(), discriminator(share).float()
    return least_squares_discriminator_loss(*verdicts)
