"""The one file that a killed run goes on from: the whole TrainState, replaced atomically."""

from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any, Final

import torch

from training.fit.config import TrainConfig
from training.fit.distributed import process_rank
from training.fit.state import ImagePool, TrainState, fresh_state
from twin_scanner.errors import Rejected
from twin_scanner.files.durable_file import sync_folder, write_whole
from twin_scanner.files.writable import disk_fault

CHECKPOINT: Final = "checkpoint.pt"
MODULES: Final = ("generators", "discriminators", "generator_optimiser", "discriminator_optimiser", "scaler")
"""The parts of a state that PyTorch saves and loads itself."""


def checkpoint_file(config: TrainConfig) -> Path:
    """Where a run's checkpoint lies."""
    return config.out / CHECKPOINT


def save_checkpoint(config: TrainConfig, state: TrainState, data_sha256: str = "", curve_length: int = 0) -> None:
    """Write the state, by the first process of the run; raises Transient where the disk fails."""
    if process_rank() != 0:
        return
    content = {
        "config": config.as_json(),
        "data": data_sha256,
        "curve_length": curve_length,
        "network": state.network,
        "step": state.step,
        "validated": state.validated,
        "shown": state.shown,
        "finished": state.finished,
        "pools": {name: pool.images for name, pool in state.pools.items()},
        "torch_random": torch.get_rng_state(),
        **{part: getattr(state, part).state_dict() for part in MODULES},
    }
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        write_whole(checkpoint_file(config), partial(_save, content))
        sync_folder(config.out)
    except OSError as error:
        raise disk_fault(checkpoint_file(config), error) from error


def _save(content: dict[str, Any], stream: IO[bytes]) -> None:
    """As torch.save; where the disk fails, its own writer complains about its state and hides the OSError: not here."""
    try:
        torch.save(content, stream)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def load_checkpoint(config: TrainConfig, data_sha256: str = "") -> tuple[TrainState, int]:
    """The state that ``save_checkpoint`` wrote, and the curve's length then.

    Raises Rejected where it belongs to another configuration or to other pairs, or cannot be read.
    """
    path = checkpoint_file(config)
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise Rejected(f"{path} cannot be read as a checkpoint: begin again with a new 'out'.") from error
    if content["config"] != config.as_json():
        raise Rejected(
            f"{config.out} holds a run of another configuration: give a new 'out', or the old configuration."
        )
    if content["data"] != data_sha256:
        raise Rejected(f"{config.out} holds a run on other pairs than these: give a new 'out', or the old pairs.")
    state = fresh_state(config, content["network"], content["finished"])
    for part in MODULES:
        getattr(state, part).load_state_dict(content[part])
    for name, images in content["pools"].items():
        state.pools[name] = ImagePool(config.optimiser.pool, [image.to(state.device) for image in images])
    torch.set_rng_state(content["torch_random"])
    state.step, state.validated, state.shown = content["step"], content["validated"], content["shown"]
    return state, int(content["curve_length"])
