"""Everything that changes between two training steps, and how it begins."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from training.fit.config import TrainConfig
from training.fit.distributed import local_device
from twin_scanner.errors import Rejected
from twin_scanner.models.card import Architecture
from twin_scanner.models.networks import INITIAL_LOGIT, PatchDiscriminator
from twin_scanner.models.package import build_network, load_package

CT_TO_PET: Final = "ct_to_pet"
PET_TO_CT: Final = "pet_to_ct"
CT_INITIAL_LOGIT: Final = 0.0
"""The untrained way back says 0.5 of model space, water, which most of a body is close to."""


@dataclass
class ImagePool:
    """Synthetic images of earlier steps, which a discriminator sees now and then instead of the latest ones.

    Shrivastava et al. 2017, section 2.3; Zhu et al. 2017, section 4, with 50 images.
    """

    size: int
    images: list[Tensor] = field(default_factory=list)

    def exchange(self, generated: Tensor, random: np.random.Generator) -> Tensor:
        """The images (N, 1, 32, 32, 32) to show it: while the pool fills, the new ones; later each with even chances.

        An image that is held back takes the place of the one that is returned.
        """
        chosen = []
        for image in generated.detach():
            if len(self.images) < self.size:
                self.images.append(image.clone())
            elif self.size and random.random() < 0.5:
                at = int(random.integers(self.size))
                self.images[at], image = image.clone(), self.images[at]
            chosen.append(image)
        return torch.stack(chosen)


@dataclass
class TrainState:
    """Everything that changes between two steps, so that a checkpoint of it continues bit for bit on one processor.

    ``network`` and ``step`` say where the run stands, ``validated`` the step of the last validation, ``finished`` the
    weights of the networks before this one. What is sampled at a step depends on the run's seed, the network's name and
    the step, so no random state is kept beside PyTorch's own.
    """

    network: str
    device: torch.device
    generators: nn.ModuleDict
    discriminators: nn.ModuleDict
    generator_optimiser: torch.optim.Adam
    discriminator_optimiser: torch.optim.Adam
    scaler: torch.amp.GradScaler
    pools: dict[str, ImagePool]
    step: int = 0
    validated: int = 0
    shown: dict[str, float] = field(default_factory=dict)
    finished: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def generator(self) -> nn.Module:
        """CT to PET: the network that the package gets."""
        return self.generators[CT_TO_PET]


def architecture(config: TrainConfig) -> Architecture:
    """What the package's card says of its generators."""
    network = config.network
    return Architecture(network.generator, network.features, network.soft_tissue, network.context)


def fresh_state(config: TrainConfig, network: str, finished: dict[str, dict[str, Tensor]]) -> TrainState:
    """The state before the first step; its seeds depend on the run's seed and the network's name alone.

    Raises Rejected where the warm start's package has no such network, or another architecture, Plan or partition, and
    where the device or a compiler that is asked for is missing.
    """
    torch.manual_seed(int(np.random.SeedSequence([config.seed, *network.encode()]).generate_state(1)[0]))
    device = local_device(config.compute.device)
    if device.type == "cpu" and config.compute.precision == "float16":
        raise Rejected("float16 needs a GPU and there is none: choose compute.precision 'bfloat16' or 'float32'.")
    generators, discriminators = nn.ModuleDict(dict(_generators(config))), nn.ModuleDict(dict(_discriminators(config)))
    if config.warm_start is not None:
        generators[CT_TO_PET].load_state_dict(warm_start(config, network))
    for module in (*generators.values(), *discriminators.values()):
        _place(config, module, device)
    return TrainState(
        network,
        device,
        generators,
        discriminators,
        _adam(config, generators),
        _adam(config, discriminators),
        torch.amp.GradScaler(device.type, enabled=config.compute.precision == "float16"),
        {name: ImagePool(config.optimiser.pool) for name in discriminators} if config.method == "cyclegan" else {},
        finished=finished,
    )


def _generators(config: TrainConfig) -> Iterator[tuple[str, nn.Module]]:
    yield CT_TO_PET, build_network(architecture(config), INITIAL_LOGIT)
    if config.method == "cyclegan":
        yield PET_TO_CT, build_network(architecture(config), CT_INITIAL_LOGIT)


def _discriminators(config: TrainConfig) -> Iterator[tuple[str, nn.Module]]:
    """Pix2Pix has one of CT and PET side by side; CycleGAN has one of each."""
    channels_of = {"pair": 2} if config.method == "pix2pix" else {"ct": 1, "pet": 1}
    sizes = config.network
    for name, channels in channels_of.items():
        yield name, PatchDiscriminator(sizes.discriminator_features, sizes.discriminator_layers, channels)


def warm_start(config: TrainConfig, network: str) -> dict[str, Tensor]:
    """The weights of a network of the warm start's package.

    Raises Rejected where that has no such network, or another architecture, Plan or partition.
    """
    assert config.warm_start is not None
    package = load_package(config.warm_start)
    if package.architecture != architecture(config) or not package.plan.serves_like(config.plan):
        raise Rejected(
            f"The warm start {config.warm_start.name} has another architecture or Plan than this run: give a package "
            "that was trained with the same ones, or none."
        )
    if package.partition.networks.get(network) != config.covered.networks[network]:
        raise Rejected(
            f"The warm start {config.warm_start.name} has no network '{network}' for the same labels: give a package "
            "of the same partition, or none."
        )
    return dict(package.networks[network].state_dict())


def _place(config: TrainConfig, module: nn.Module, device: torch.device) -> None:
    """To the device; three-dimensional convolutions run several times faster on processors with channels last."""
    layout = torch.channels_last_3d if config.compute.channels_last else torch.contiguous_format
    module.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    if config.compute.compile:
        if shutil.which(os.environ.get("CXX", "g++")) is None:
            raise Rejected(
                "compute.compile needs a C++ compiler (g++, or what CXX names): install it, or leave it out."
            )
        module.compile()


def _adam(config: TrainConfig, networks: nn.Module) -> torch.optim.Adam:
    """Fused: one pass over the weights instead of ten, a seventh off the step on processors (training/LOG.md)."""
    optimiser = config.optimiser
    betas = (optimiser.beta1, optimiser.beta2)
    return torch.optim.Adam(networks.parameters(), optimiser.learning_rate, betas, fused=True)
