"""One step down a loss's gradient: learning rate, precision, averaging over processes, clipping, and the refusal of
losses that are not finite."""

import json
from contextlib import AbstractContextManager
from typing import Final

import safetensors.torch
import torch
from torch import Tensor, nn

from training.fit.batches import Batch
from training.fit.config import TrainConfig
from training.fit.distributed import any_process, average_gradients, averaged, process_rank
from training.fit.state import TrainState
from twin_scanner.errors import Rejected
from twin_scanner.files.durable_file import write_durably

AUTOCAST: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """Constant, then linear to 0 over the decay epochs, changing once an epoch (paper section IV-B).

    Epochs count from 0; the last one still learns.
    """
    into_decay = max(0, epoch + 1 - config.schedule.constant_epochs)
    return config.optimiser.learning_rate * (1.0 - into_decay / (config.schedule.decay_epochs + 1))


def set_learning_rate(config: TrainConfig, state: TrainState, epoch: int) -> None:
    """The epoch's learning rate for all networks."""
    for optimiser in (state.generator_optimiser, state.discriminator_optimiser):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config, epoch)


def precision(config: TrainConfig, state: TrainState) -> AbstractContextManager[None]:
    """In which networks compute in the configured precision; losses are taken in float32."""
    dtype = AUTOCAST[config.compute.precision]
    return torch.autocast(state.device.type, dtype, enabled=dtype != torch.float32)


def l1_weight(config: TrainConfig, mask: Tensor) -> Tensor | None:
    """What each voxel counts in an L1 loss: None for the mean over the windows, else 1/n in the mask's n voxels.

    n is the mean over the processes, so that averaged gradients are those of one process with all windows of the step.
    """
    if config.optimiser.l1_over == "window":
        return None
    return mask / averaged(mask.sum().float()).clamp(min=1.0)


def take_gradient_step(
    config: TrainConfig, state: TrainState, networks: nn.ModuleDict, optimiser: torch.optim.Adam, loss: Tensor
) -> None:
    """Step the networks of one optimiser down the loss; the gradient of all processes' patches is clipped, once.

    Where float16 overflowed, the scaler leaves the weights as they are and lowers its scale.
    """
    optimiser.zero_grad()
    state.scaler.scale(loss).backward()
    average_gradients([networks])
    state.scaler.unscale_(optimiser)
    nn.utils.clip_grad_norm_(networks.parameters(), config.optimiser.clip_norm)
    state.scaler.step(optimiser)


def check_finite(config: TrainConfig, state: TrainState, batch: Batch, which: str, loss: Tensor) -> None:
    """Raises Rejected, in every process, where the loss is not finite in one; its batch is in the run's folder then."""
    finite = bool(torch.isfinite(loss))
    if not any_process(not finite, state.device):
        return
    if finite:
        raise Rejected(f"Training of '{state.network}' diverged at step {state.step + 1} in another process.")
    raise Rejected(
        f"Training of '{state.network}' diverged at step {state.step + 1}: the {which} loss is "
        f"{float(loss.detach())}; {_kept_batch(config, state, batch)}, or lower optimiser.learning_rate."
    )


def _kept_batch(config: TrainConfig, state: TrainState, batch: Batch) -> str:
    """Put a batch into the run's folder; what to do with it, or why it is not there."""
    path = config.out / f"diverged-{state.network}-step-{state.step + 1}-process-{process_rank()}.safetensors"
    windows = {"ct": batch.ct, "pet": batch.pet} | ({} if batch.context is None else {"context": batch.context})
    plain = {name: images.detach().cpu().contiguous() for name, images in windows.items()}
    content = safetensors.torch.save(plain, {"origins": json.dumps(batch.origins)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, content)
    except OSError:
        return f"its batch could not be written to {path}, so free space there to see it next time"
    return f"look at its batch in {path} for impossible values"
