"""What ``torchrun`` starts in test_distributed.py: four steps of each run; every process saves its weights."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from tests.samples.small_pairs import small_config, small_sampler
from training.fit.distributed import local_device, process_group, process_rank
from training.fit.fit import fit
from training.fit.state import TrainState, fresh_state

RUNS = (("pix2pix", "window"), ("cyclegan", "window"), ("pix2pix", "mask"))
"""Methods, and over what their L1 losses are means."""
STEPS = 4
BATCH = 2


def four_steps(method: str, l1_over: str, out: Path) -> TrainState:
    """The state after four steps of BATCH patches each, over all processes of the group that there is."""
    config = replace(small_config(out, STEPS, pool=3, l1_over=l1_over), method=method)
    state = fresh_state(config, "trunk", {})
    fit(config, state, small_sampler(0, 1, labels=(2,)))
    return state


def weights(state: TrainState) -> dict[str, torch.Tensor]:
    """Of all networks, and the images of the pools."""
    modules = {f"{kind}.{name}": value for kind in KINDS for name, value in getattr(state, kind).state_dict().items()}
    pools = {f"{name}.{at}": i for name, pool in state.pools.items() for at, i in enumerate(pool.images)}
    return {**modules, **pools}


KINDS = ("generators", "discriminators")


def main(out: Path) -> None:
    """Everything that this process of the group does."""
    with process_group(local_device("cpu")):
        states = {run: weights(four_steps(*run, out)) for run in RUNS}
        torch.save(states, out / f"process-{process_rank()}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
