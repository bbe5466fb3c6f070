"""Training pairs in the memory of the device that computes: there their windows are cut, masked, moved and noised.

Where windows lie, how they are moved and the noise itself are random numbers of the processor, as for pairs in its own
memory. So on a processor both ways give the same bytes; on a GPU the rotation differs in rounding.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.data.pairs import Pair
from training.data.sampling import Sampler, overlap, windowed
from training.fit.augmentation import moved, moved_context, noise_of, noisy, turn_of
from training.fit.batches import Batch, Draw, origins
from training.fit.config import TrainConfig
from twin_scanner.errors import Rejected
from twin_scanner.models.networks import WINDOW
from twin_scanner.models.plan import SOFT_TISSUE_WINDOW_HU, hu_divisor
from twin_scanner.synthesis.translate import Around

log = logging.getLogger(__name__)

SHARE: Final = 0.5
"""Of the memory that is free once the networks are there; the rest is for optimisers, activations and validation."""
GIGABYTE: Final = 1e9


@dataclass(frozen=True, eq=False)
class _Volumes:
    """One pair on the device: CT in HU (int16), PET in SUV (float16), districts (uint8), and the body around windows.

    ``low`` and ``range`` scale its HU to model space.
    """

    pair: Pair
    ct: Tensor
    pet: Tensor
    labels: Tensor
    around: Around | None
    low: float
    range: float


@dataclass(frozen=True, eq=False)
class _Windows:
    """CT (N, C, 32, 32, 32), PET and mask (N, 1, 32, 32, 32), and the contexts in the CT's shape."""

    ct: Tensor
    pet: Tensor
    mask: Tensor
    context: Tensor | None


class DevicePairs:
    """The pairs of one network's sampler on a device, from which ``cut`` makes batches there."""

    def __init__(self, sampler: Sampler, device: torch.device) -> None:
        self._sampler, self._device = sampler, device
        self._spacing_mm, self._channels = sampler.plan.spacing_mm, sampler.architecture.channels
        self._volumes = [self._placed(study, pair) for study, pair in enumerate(sampler.pairs)]
        covered = torch.zeros(256, dtype=torch.bool)
        covered[list(sampler.covered) if sampler.covered else slice(None)] = True
        self._covered = covered.to(device)
        low, high = SOFT_TISSUE_WINDOW_HU
        self._suv_max, self._soft_tissue = self._value(sampler.plan.suv_max), (low, self._value(high - low))

    def cut(self, draws: Sequence[tuple[Draw, Draw]]) -> Batch:
        """The batch of some draws, on the device; see ``sample_batch``."""
        of_ct = self._windows([ct for ct, _ in draws])
        of_one_place = all(ct is pet for ct, pet in draws)
        of_pet = of_ct if of_one_place else self._windows([pet for _, pet in draws])
        return Batch(of_ct.ct, of_pet.pet, of_ct.mask, of_pet.mask, origins(self._sampler, draws), of_ct.context)

    def _placed(self, study: int, pair: Pair) -> _Volumes:
        around, plan = self._sampler.surroundings(study), windowed(pair, self._sampler.plan)
        ct, pet, labels = (self._sent(np.array(volume)) for volume in (pair.ct, pair.pet, pair.labels))
        return _Volumes(
            pair,
            ct,
            pet,
            labels,
            None if around is None else Around(around, self._device),
            plan.hu_low,
            hu_divisor(plan.hu_low, plan.hu_high),
        )

    def _sent(self, values: npt.NDArray[Any]) -> Tensor:
        """On the device; to a GPU by way of memory that it copies from while it computes."""
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)

    def _value(self, value: float) -> Tensor:
        """A number on the device: there a division by it is one, and not a product with its reciprocal."""
        return torch.tensor([value], dtype=torch.float32, device=self._device)

    def _windows(self, draws: Sequence[Draw]) -> _Windows:
        """The windows as they are moved; random numbers go to the device in one copy of each kind."""
        ct, pet, mask = self._cut(draws)
        context = self._contexts(draws)
        cube = (WINDOW,) * 3
        found = [turn_of(draw.augmentation, cube, self._spacing_mm) for draw in draws]
        turns = self._sent(np.stack([np.zeros((1, 3, 4), np.float32) if turn is None else turn for turn in found]))
        noises = [noise_of(draw.augmentation, (self._channels, *cube)) for draw in draws]
        noise = self._sent(np.stack([one for one in noises if one is not None])) if noises[0] is not None else None
        for n, draw in enumerate(draws):
            turn = None if found[n] is None else turns[n]
            images, mask[n, 0] = moved(draw.augmentation, torch.cat([ct[n], pet[n]]), mask[n, 0], turn)
            ct[n], pet[n] = images[:-1], images[-1:]
            if context is not None:
                context[n] = moved_context(draw.augmentation, context[n], turn)
        return _Windows(ct if noise is None else noisy(ct, mask, noise), pet, mask, context)

    def _cut(self, draws: Sequence[Draw]) -> tuple[Tensor, Tensor, Tensor]:
        """CT and PET in model space, both 0 outside the mask, and the mask."""
        shape = (len(draws), 1, *(WINDOW,) * 3)
        hu, suv = (torch.zeros(shape, dtype=torch.float32, device=self._device) for _ in range(2))
        mask = torch.zeros(shape, dtype=torch.bool, device=self._device)
        for n, draw in enumerate(draws):
            volumes = self._volumes[draw.study]
            source, target = overlap(volumes.pair, draw.start)
            hu[n, 0][target], suv[n, 0][target] = volumes.ct[source], volumes.pet[source]
            mask[n, 0][target] = self._covered[volumes.labels[source].int()]
        scales = [(self._volumes[draw.study].low, self._volumes[draw.study].range) for draw in draws]
        low, divisor = self._sent(np.array(scales, np.float32).T.reshape(2, -1, 1, 1, 1, 1))
        channels = [((hu - low) / divisor).clamp_(0.0, 1.0)]
        if self._sampler.architecture.soft_tissue:
            channels.append(((hu - self._soft_tissue[0]) / self._soft_tissue[1]).clamp_(0.0, 1.0))
        return torch.cat(channels, 1) * mask, (suv / self._suv_max).clamp_(0.0, 1.0) * mask, mask

    def _contexts(self, draws: Sequence[Draw]) -> Tensor | None:
        around = [self._volumes[draw.study].around for draw in draws]
        contexts = [one([draw.start]) for one, draw in zip(around, draws, strict=True) if one is not None]
        return torch.cat(contexts) if contexts else None


def device_pairs(config: TrainConfig, sampler: Sampler, device: torch.device) -> DevicePairs | None:
    """The pairs on the device where ``compute.pairs`` wants them there, None where they stay with the processor.

    Raises Rejected where they must lie on a GPU and do not fit.
    """
    wanted = config.compute.pairs
    if wanted == "host" or (wanted == "auto" and device.type == "cpu"):
        return None
    needed, room = bytes_of(sampler), room_on(device)
    if room is not None and needed > room:
        sizes = f"{needed / GIGABYTE:.1f} GB, and {room / GIGABYTE:.1f} GB of {device} are theirs"
        if wanted == "device":
            raise Rejected(
                f"The training pairs take {sizes} (half of what is free): set compute.pairs to 'auto' or 'host', or "
                "train on fewer studies."
            )
        log.info("the pairs stay in the processor's memory: they take %s", sizes)
        return None
    log.info("the pairs lie on %s: %.1f GB", device, needed / GIGABYTE)
    return DevicePairs(sampler, device)


def bytes_of(sampler: Sampler) -> int:
    """What the sampler's pairs take on a device."""
    of_context = 4 * sampler.architecture.channels / 4**3 if sampler.architecture.context else 0.0
    voxels = sum(pair.labels.size for pair in sampler.pairs)
    each = sum(array.itemsize for array in (sampler.pairs[0].ct, sampler.pairs[0].pet, sampler.pairs[0].labels))
    return round(voxels * (each + of_context))


def room_on(device: torch.device) -> int | None:
    """The bytes that pairs may take of a GPU now; what PyTorch keeps for itself counts as free. None on a processor."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return round(SHARE * (free + kept))
