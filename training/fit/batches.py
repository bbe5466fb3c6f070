"""The patches of each step: sampled from (seed, network, step) alone, and ahead of time while the networks compute."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.data.sampling import Patch, Sampler
from training.fit.augmentation import Augmentation, augment, sample_augmentation
from training.fit.config import TrainConfig
from training.fit.distributed import process_count, process_rank
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import Shape

ORDER, PATCH, POOL = range(3)
"""What a random number is for: each use has a sequence of its own."""


@dataclass(frozen=True, eq=False)
class Batch:
    """This process's augmented windows of one step in model space: CT (N, C, 32, 32, 32) and PET (N, 1, 32, 32, 32).

    ``ct_mask`` and ``pet_mask`` say where in them the network's region lies; CT and PET of one place share theirs.
    ``origins`` names the study and the first voxel of each window. ``context``, where the generator sees one, has the
    CT's shape.
    """

    ct: Tensor
    pet: Tensor
    ct_mask: Tensor
    pet_mask: Tensor
    origins: tuple[str, ...]
    context: Tensor | None = None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the generator is given."""
        return (self.ct,) if self.context is None else (self.ct, self.context)

    def pinned(self) -> "Batch":
        """The same in memory that a GPU copies from while it computes."""
        return self._mapped(Tensor.pin_memory)

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return self._mapped(lambda part: part.to(device, non_blocking=True))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        tensors: dict[str, Any] = {name: change(part) for name, part in vars(self).items() if isinstance(part, Tensor)}
        return replace(self, **tensors)


@dataclass(frozen=True)
class Draw:
    """All that is random about one window: which study it is of, its first voxel (d, h, w), and how it is moved."""

    study: int
    start: Shape
    augmentation: Augmentation


Cut: TypeAlias = Callable[[Sequence[tuple[Draw, Draw]]], Batch]
"""Makes a batch of what was drawn for its CT and its PET windows; the same draw for both is one place."""


def step_random(config: TrainConfig, network: str, purpose: int, number: int) -> np.random.Generator:
    """Random numbers of one use at one step, sample or round, whoever asks and in whatever order."""
    return np.random.default_rng(np.random.SeedSequence([config.seed, *network.encode()], spawn_key=(purpose, number)))


def sample_batch(config: TrainConfig, network: str, sampler: Sampler, step: int, *, cut: Cut | None = None) -> Batch:
    """This process's share of the patches of a step, cut by ``cut`` or here; raises Rejected where a CycleGAN has only
    one patient."""
    share, rest = divmod(config.optimiser.batch_size, process_count())
    if rest:
        raise Rejected(
            f"optimiser.batch_size {config.optimiser.batch_size} does not divide among {process_count()} processes: "
            "choose a multiple."
        )
    first = step * config.optimiser.batch_size + process_rank() * share
    draw_one = _paired if config.method == "pix2pix" else _unpaired
    draws = [draw_one(config, network, sampler, sample) for sample in range(first, first + share)]
    return _cut_here(config, sampler, draws) if cut is None else cut(draws)


def origins(sampler: Sampler, draws: Sequence[tuple[Draw, Draw]]) -> tuple[str, ...]:
    """The names of the windows that were drawn."""
    names = [[f"{sampler.pairs[one.study].name} at {list(one.start)}" for one in both] for both in draws]
    alike = [of_ct is of_pet for of_ct, of_pet in draws]
    return tuple(ct if same else f"CT {ct}, PET {pet}" for (ct, pet), same in zip(names, alike, strict=True))


def _cut_here(config: TrainConfig, sampler: Sampler, draws: Sequence[tuple[Draw, Draw]]) -> Batch:
    """The windows cut from the pairs in the processor's memory; a draw for CT and PET is cut once."""
    pairs = []
    for ct_draw, pet_draw in draws:
        of_one = _moved(config, sampler, ct_draw)
        pairs.append((of_one, of_one if pet_draw is ct_draw else _moved(config, sampler, pet_draw)))
    of_ct, of_pet = [one for one, _ in pairs], [other for _, other in pairs]
    contexts = [patch.context for patch in of_ct if patch.context is not None]
    return Batch(
        _stacked([patch.ct for patch in of_ct]),
        _stacked([patch.pet[None] for patch in of_pet]),
        _stacked([patch.mask[None] for patch in of_ct]),
        _stacked([patch.mask[None] for patch in of_pet]),
        origins(sampler, draws),
        _stacked(contexts) if contexts else None,
    )


def batches(
    config: TrainConfig, network: str, sampler: Sampler, steps: range, *, pin: bool = False, cut: Cut | None = None
) -> Generator[Batch, None, None]:
    """The batches of some steps, in order, ``compute.prefetch`` of them sampled ahead by ``compute.workers`` threads.

    Close it where it is not exhausted: that ends the threads.
    """
    sample = partial(_pinned if pin and cut is None else sample_batch, config, network, sampler, cut=cut)
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


def _pinned(config: TrainConfig, network: str, sampler: Sampler, step: int, *, cut: Cut | None) -> Batch:
    return sample_batch(config, network, sampler, step, cut=cut).pinned()


def _stacked(images: Sequence[npt.NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.stack(images))


def _moved(config: TrainConfig, sampler: Sampler, draw: Draw) -> Patch:
    return augment(draw.augmentation, sampler.patch(draw.study, draw.start), config.plan.spacing_mm)


def _paired(config: TrainConfig, network: str, sampler: Sampler, sample: int) -> tuple[Draw, Draw]:
    """CT and PET of one place, moved together: one draw for both."""
    random = step_random(config, network, PATCH, sample)
    study = study_of(config, network, sample, sampler.studies)
    draw = Draw(study, sampler.place(random, study), sample_augmentation(random, config.augmentation))
    return draw, draw


def _unpaired(config: TrainConfig, network: str, sampler: Sampler, sample: int) -> tuple[Draw, Draw]:
    """A draw for the CT and one of another patient for the PET, each moved on its own."""
    random = step_random(config, network, PATCH, sample)
    study = study_of(config, network, sample, sampler.studies)
    of_ct = sampler.place(random, study)
    other = sampler.other_patients_study(random, study)
    of_pet = sampler.place(random, other)
    of_the_ct, of_the_pet = (sample_augmentation(random, config.augmentation) for _ in range(2))
    return Draw(study, of_ct, of_the_ct), Draw(other, of_pet, of_the_pet)
