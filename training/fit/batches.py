"""The patches of each step: sampled from (seed, network, step) alone, and ahead of time while the networks compute."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from training.data.sampling import Patch, Sampler
from training.fit.augmentation import augment, sample_augmentation
from training.fit.config import TrainConfig
from training.fit.distributed import process_count, process_rank
from twin_scanner.errors import Rejected

ORDER, PATCH, POOL = range(3)
"""What a random number is for: each use has a sequence of its own."""


@dataclass(frozen=True, eq=False)
class Batch:
    """This process's augmented windows of one step in model space: CT (N, C, 32, 32, 32) and PET (N, 1, 32, 32, 32).

    ``origins`` names the study and the first voxel of each window. ``context``, where the generator sees one, has the
    CT's shape.
    """

    ct: Tensor
    pet: Tensor
    origins: tuple[str, ...]
    context: Tensor | None = None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the generator is given."""
        return (self.ct,) if self.context is None else (self.ct, self.context)

    def pinned(self) -> "Batch":
        """The same in memory that a GPU copies from while it computes."""
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return self._each(lambda images: images.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        context = None if self.context is None else change(self.context)
        return Batch(change(self.ct), change(self.pet), self.origins, context)


def step_random(config: TrainConfig, network: str, purpose: int, number: int) -> np.random.Generator:
    """Random numbers of one use at one step, sample or round, whoever asks and in whatever order."""
    return np.random.default_rng(np.random.SeedSequence([config.seed, *network.encode()], spawn_key=(purpose, number)))


def sample_batch(config: TrainConfig, network: str, sampler: Sampler, step: int) -> Batch:
    """This process's share of the patches of a step; raises Rejected where a CycleGAN has only one patient."""
    share, rest = divmod(config.optimiser.batch_size, process_count())
    if rest:
        raise Rejected(
            f"optimiser.batch_size {config.optimiser.batch_size} does not divide among {process_count()} processes: "
            "choose a multiple."
        )
    first = step * config.optimiser.batch_size + process_rank() * share
    sample_one = _paired if config.method == "pix2pix" else _unpaired
    samples = [sample_one(config, network, sampler, sample) for sample in range(first, first + share)]
    return _stacked([patch for patch, _ in samples], tuple(origin for _, origin in samples))


def batches(
    config: TrainConfig, network: str, sampler: Sampler, steps: range, *, pin: bool = False
) -> Generator[Batch, None, None]:
    """The batches of some steps, in order, ``compute.prefetch`` of them sampled ahead by ``compute.workers`` threads.

    Close it where it is not exhausted: that ends the threads.
    """
    sample = partial(_pinned if pin else sample_batch, config, network, sampler)
    if not config.compute.prefetch:
        yield from map(sample, steps)
        return
    ahead: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(config.compute.workers, "patches") as threads:
        try:
            for step in steps:
                ahead.append(threads.submit(sample, step))
                if len(ahead) > config.compute.prefetch:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


def study_of(config: TrainConfig, network: str, sample: int, studies: int) -> int:
    """Which study a sample is taken from: round after round all of them, each round in an order of its own.

    An epoch of n patches a study is n rounds, so it holds exactly n patches of each.
    """
    turn, place = divmod(sample, studies)
    return int(step_random(config, network, ORDER, turn).permutation(studies)[place])


def _pinned(config: TrainConfig, network: str, sampler: Sampler, step: int) -> Batch:
    return sample_batch(config, network, sampler, step).pinned()


def _stacked(patches: Sequence[Patch], origins: tuple[str, ...]) -> Batch:
    ct, pet = np.stack([patch.ct for patch in patches]), np.stack([patch.pet for patch in patches])[:, None]
    contexts = [patch.context for patch in patches if patch.context is not None]
    context = torch.from_numpy(np.stack(contexts)) if contexts else None
    return Batch(torch.from_numpy(ct), torch.from_numpy(pet), origins, context)


def _paired(config: TrainConfig, network: str, sampler: Sampler, sample: int) -> tuple[Patch, str]:
    """CT and PET of one place, moved together."""
    random = step_random(config, network, PATCH, sample)
    patch = sampler.sample(random, study_of(config, network, sample, sampler.studies))
    return augment(sample_augmentation(random, config.augmentation), patch), _origin(patch)


def _unpaired(config: TrainConfig, network: str, sampler: Sampler, sample: int) -> tuple[Patch, str]:
    """A CT of one patient and a PET of another, each moved on its own."""
    random = step_random(config, network, PATCH, sample)
    study = study_of(config, network, sample, sampler.studies)
    of_ct = sampler.sample(random, study)
    of_pet = sampler.sample(random, sampler.other_patients_study(random, study))
    of_the_ct, of_the_pet = (sample_augmentation(random, config.augmentation) for _ in range(2))
    ct, pet = augment(of_the_ct, of_ct), augment(of_the_pet, of_pet).pet
    return replace(ct, pet=pet), f"CT {_origin(of_ct)}, PET {_origin(of_pet)}"


def _origin(patch: Patch) -> str:
    return f"{patch.study} at {list(patch.start)}"
