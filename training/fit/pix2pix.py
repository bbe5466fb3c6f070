"""One step of Pix2Pix: the discriminator of CT and PET side by side takes a step, then the generator."""

import torch

from training.fit.batches import Batch
from training.fit.config import TrainConfig
from training.fit.distributed import mean_over_processes
from training.fit.gradient_step import check_finite, l1_weight, precision, take_gradient_step
from training.fit.losses import discriminator_loss, generator_loss
from training.fit.state import TrainState


def pix2pix_step(config: TrainConfig, state: TrainState, batch: Batch) -> dict[str, float]:
    """Isola et al. 2017, section 3.3, on the windows of one place each; the losses by name.

    The discriminator sees the CT's first channel beside the PET, whatever else the generator is given.
    Raises Rejected where a loss is not finite, before any weight has changed by it.
    """
    ct, pet, discriminator = batch.ct[:, :1], batch.pet, state.discriminators["pair"]
    with precision(config, state):
        synthetic = state.generator(*batch.inputs)

    state.discriminators.requires_grad_(True)
    with precision(config, state):
        real_logits = discriminator(torch.cat([ct, pet], 1))
        synthetic_logits = discriminator(torch.cat([ct, synthetic.detach()], 1))
    loss = discriminator_loss(real_logits.float(), synthetic_logits.float())
    check_finite(config, state, batch, "discriminator", loss)
    take_gradient_step(config, state, state.discriminators, state.discriminator_optimiser, loss)

    state.discriminators.requires_grad_(False)
    with precision(config, state):
        logits = discriminator(torch.cat([ct, synthetic], 1))
    weight = l1_weight(config, batch.pet_mask)
    generator = generator_loss(logits.float(), synthetic, pet, config.optimiser.lambda_l1, weight)
    check_finite(config, state, batch, "generator", generator.total)
    take_gradient_step(config, state, state.generators, state.generator_optimiser, generator.total)

    state.scaler.update()
    return mean_over_processes({"L1": generator.l1, "adversarial": generator.adversarial, "discriminator": loss})
