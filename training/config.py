"""The configuration of a training run: one frozen TrainConfig read from a TOML file, every fault named at once."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError

from twin_scanner.errors import Rejected
from twin_scanner.models import Precision
from twin_scanner.partition import NETWORK_NAME, PARTITIONS, Partition, partition
from twin_scanner.preprocess import Plan

STRICT = ConfigDict(extra="forbid")
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Axis = Literal["D", "H", "W"]
NAMED: Final = "(a name)"
CONFIGURED: Final = "(a table)"


@dataclass(frozen=True)
class DataConfig:
    """Where the pairs come from: phantoms generated in memory, or studies in the autoPET layout below a folder.

    ``held_out`` pairs are kept from training and measured at the end. ``segmenter`` draws the training masks:
    ``landmarks`` as in service, ``truth`` the phantom's own districts. ``world`` is the phantom's.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["phantoms", "autopet"] = "phantoms"
    folder: Path | None = None
    count: Count = 24
    held_out: Count = 2
    seed: Annotated[int, Field(ge=0)] = 1000
    world: Literal["district-dependent", "appearance-only"] = "district-dependent"
    segmenter: Literal["landmarks", "truth"] = "landmarks"

    def __post_init__(self) -> None:
        if (self.kind == "autopet") == (self.folder is None):
            raise ValueError("data.folder is given with kind 'autopet', and only then")
        if self.kind == "autopet" and self.segmenter == "truth":
            raise ValueError("only phantoms know their true districts: choose segmenter 'landmarks'")
        if self.held_out >= self.count:
            raise ValueError("data.held_out leaves no pair to train on")


@dataclass(frozen=True)
class NetworkConfig:
    """Widths of generator and discriminator, and the discriminator's depth."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    features: Count = 64
    discriminator_features: Count = 64
    discriminator_layers: Annotated[int, Field(ge=1, le=2)] = 2


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam, clipping and the weight of L1; the defaults are the paper's (section IV-B)."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    learning_rate: Positive = 2e-4
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    clip_norm: Positive = 5.0
    lambda_l1: Positive = 100.0
    batch_size: Count = 1


@dataclass(frozen=True)
class ScheduleConfig:
    """Epochs at the full learning rate, then epochs of linear decay to 0 (the paper's 100 + 50).

    Patches are drawn at random, so an epoch is a number of steps; the paper names none.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    constant_epochs: Count = 100
    decay_epochs: Annotated[int, Field(ge=0)] = 50
    steps_per_epoch: Count = 1000

    @property
    def steps(self) -> int:
        """Steps in all."""
        return (self.constant_epochs + self.decay_epochs) * self.steps_per_epoch


@dataclass(frozen=True)
class AugmentationConfig:
    """Paper section IV-B: mirrored axes, largest rotation about each axis, noise in model space."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    flip_axes: tuple[Axis, ...] = ("D", "H", "W")
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 10.0
    noise_sigma: Annotated[float, Field(ge=0, le=1)] = 0.01


@dataclass(frozen=True)
class PackageConfig:
    """What the card of the finished package says beside what the run itself knows."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    intended_use: str
    licence: str
    precision: Precision = "float16"


@dataclass(frozen=True)
class PartitionConfig:
    """A partition of one's own: ``networks`` gives the labels that each network covers, as the label table has them."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Annotated[str, Field(pattern=f"^{NETWORK_NAME.pattern}$")]
    networks: dict[str, tuple[Annotated[int, Field(strict=True)], ...]]

    def __post_init__(self) -> None:
        if self.name in PARTITIONS:
            raise ValueError(f"'{self.name}' is a ready partition: write partition = '{self.name}', or another name")
        try:
            partition(self.name, self.networks)
        except Rejected as error:
            raise ValueError(str(error).removesuffix(".")) from error


def _is_name(value: object) -> str:
    return NAMED if isinstance(value, str) else CONFIGURED


PartitionChoice: TypeAlias = Annotated[
    Annotated[Literal["districts", "whole-body", "whole-volume"], Tag(NAMED)]
    | Annotated[PartitionConfig, Tag(CONFIGURED)],
    Discriminator(_is_name),
]
"""A ready partition by its name, or one of one's own as a table."""


@dataclass(frozen=True)
class TrainConfig:
    """One run: data, networks, optimisers and schedule for every network of one partition."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    out: Path
    package: PackageConfig
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=0)] = 0
    partition: PartitionChoice = "districts"
    plan: Plan = field(default_factory=Plan)
    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    checkpoint_steps: Count = 500

    @property
    def covered(self) -> Partition:
        """Which labels each network of the run covers."""
        if isinstance(self.partition, PartitionConfig):
            return partition(self.partition.name, self.partition.networks)
        return PARTITIONS[self.partition]


def read_config(path: Path) -> TrainConfig:
    """A TrainConfig from a TOML file; ``out`` is relative to where the program runs.

    Raises Rejected with every fault of the file in one sentence.
    """
    if not path.is_file():
        raise Rejected(f"{path} does not exist: give a training configuration in TOML.")
    try:
        return TypeAdapter(TrainConfig).validate_python(tomllib.loads(path.read_text("utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise Rejected(f"{path.name} is not TOML: {error}.") from error
    except ValidationError as error:
        faults = "; ".join(f"{_place(e['loc'])}: {e['msg']}" for e in error.errors())
        raise Rejected(f"{path.name} is no training configuration: {faults}.") from error


def _place(location: tuple[int | str, ...]) -> str:
    """Where in the file a fault stands: the keys, without the marks by which the two forms of a partition are told."""
    return ".".join(str(part) for part in location if part not in (NAMED, CONFIGURED)) or "file"
