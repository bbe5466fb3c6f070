"""A model package in memory: a card and the networks that it describes, ready to run; saving and loading it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import safetensors
import safetensors.torch
import torch
from torch import nn

from twin_scanner.errors import Rejected
from twin_scanner.models.card import (
    Architecture,
    Card,
    Precision,
    Stitching,
    model_hash_of,
    read_card,
    read_weights,
    write_package_files,
)
from twin_scanner.models.compute import ComputePrecision
from twin_scanner.models.networks import INITIAL_LOGIT, ResNetGenerator, UNetGenerator
from twin_scanner.models.partition import Partition
from twin_scanner.models.plan import Plan

DTYPES: Final = MappingProxyType[Precision, torch.dtype]({"float16": torch.float16, "float32": torch.float32})


@dataclass(frozen=True, eq=False)
class ModelPackage:
    """A loaded package: one generator for each network of the partition, ready to run (evaluation mode).

    The weights are float32, on the device that the networks are to compute on; ``computes_in`` is their precision.
    ``arithmetic`` holds the same networks as this device computes them in the least time, for as long as the package
    is resident; it is empty where the weights still change, and in a copy with other networks or another precision.
    """

    card: Card
    networks: dict[str, nn.Module]
    computes_in: ComputePrecision = "float32"
    arithmetic: dict[str, nn.Module] = field(default_factory=dict, init=False)

    @property
    def device(self) -> torch.device:
        """Where the networks compute."""
        return next(parameter.device for network in self.networks.values() for parameter in network.parameters())

    @property
    def name(self) -> str:
        """The name that its maker gave."""
        return self.card.name

    @property
    def model_hash(self) -> str:
        """SHA-256 of weights, Plan, partition, architecture and stitching."""
        return self.card.model_hash

    @property
    def plan(self) -> Plan:
        """How images enter and leave the networks."""
        return self.card.plan

    @property
    def partition(self) -> Partition:
        """The labels that each network covers."""
        return self.card.partition

    @property
    def architecture(self) -> Architecture:
        """What every network was built as."""
        return self.card.architecture


def build_network(architecture: Architecture, initial_logit: float = INITIAL_LOGIT) -> nn.Module:
    """An untrained generator; it says ``initial_logit`` of model space."""
    features, channels = architecture.features, architecture.channels
    if architecture.kind == "resnet9":
        return ResNetGenerator(features, initial_logit, channels=channels)
    return UNetGenerator(features, initial_logit, channels=channels, context=architecture.context)


def save_package(
    folder: Path,
    *,
    name: str,
    plan: Plan,
    partition: Partition,
    architecture: Architecture,
    networks: Mapping[str, nn.Module],
    segmenter: str,
    precision: Precision = "float16",
    stitching: Stitching = "uniform",
    about: Mapping[str, object],
) -> str:
    """Write a package as a new folder, whole or not at all, and return its hash.

    ``about`` is whatever else the card says: training data, metrics, intended use, licence; it is not hashed. Raises
    Rejected where the folder exists, or networks do not fit the partition; OSError where the disk fails.
    """
    if set(networks) != set(partition.networks):
        raise Rejected(f"The networks {sorted(networks)} are not those of partition '{partition.name}'.")
    weights = {key: _serialised(network, DTYPES[precision]) for key, network in networks.items()}
    digests = {key: hashlib.sha256(content).hexdigest() for key, content in weights.items()}
    model_hash = model_hash_of(digests, plan, partition, architecture, stitching)
    card = Card(name, model_hash, plan, partition, architecture, precision, digests, segmenter, about, stitching)
    write_package_files(folder, card.as_bytes(), weights)
    return model_hash


def load_package(folder: Path) -> ModelPackage:
    """Read and check a package; nothing that it brings is executed.

    Raises Rejected, naming the package and the fault, where the card, the Plan, the architecture or the weights are
    not what the package's hash says.
    """
    card = read_card(folder)
    where = f"Model package '{folder.name}'"
    weights = read_weights(folder, card)
    networks = {key: _network(card, content, f"{where}, network '{key}',") for key, content in weights.items()}
    return ModelPackage(card, networks)


def _network(card: Card, content: bytes, where: str) -> nn.Module:
    """A generator in float32, its weights channels-last: several times faster on processors (training/LOG.md)."""
    network = build_network(card.architecture)
    try:
        state = {key: tensor.float() for key, tensor in safetensors.torch.load(content).items()}
        network.load_state_dict(state)
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise Rejected(f"{where} holds weights of another shape than its architecture: export it again.") from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise Rejected(f"{where} holds weights that are not finite: train it again.")
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def _serialised(network: nn.Module, dtype: torch.dtype) -> bytes:
    state = {key: tensor.detach().cpu().to(dtype).contiguous() for key, tensor in network.state_dict().items()}
    return safetensors.torch.save(state)
