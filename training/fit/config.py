"""The configuration of a training run: one frozen TrainConfig read from a TOML file, every fault named at once."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias, TypeVar

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError

from twin_scanner.errors import Rejected
from twin_scanner.models.card import Precision, Stitching
from twin_scanner.models.compute import DEVICES
from twin_scanner.models.partition import NETWORK_NAME, PARTITIONS, Partition, partition
from twin_scanner.models.plan import Plan

STRICT = ConfigDict(extra="forbid")
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Axis = Literal["D", "H", "W"]
Config = TypeVar("Config")
NAMED: Final = "(a name)"
CONFIGURED: Final = "(a table)"


@dataclass(frozen=True)
class DataConfig:
    """Where the pairs come from: phantoms generated in memory, or a training store and its split.

    Phantoms: ``count`` of them from ``seed`` on, of which the last ``held_out`` are validated on, not trained on;
    ``segmenter`` makes the training masks, ``landmarks`` as in service or ``truth``, the phantom's own districts;
    ``world`` is the phantom's. A store (``folder``) brings its districts and must have the run's Plan; its ``split``
    says which studies are trained on and which are validated on.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["phantoms", "store"] = "phantoms"
    folder: Path | None = None
    split: Path | None = None
    count: Count = 24
    held_out: Count = 2
    seed: Annotated[int, Field(ge=0)] = 1000
    world: Literal["district-dependent", "appearance-only"] = "district-dependent"
    segmenter: Literal["landmarks", "truth"] = "landmarks"

    def __post_init__(self) -> None:
        for key in ("folder", "split"):
            if (self.kind == "store") == (getattr(self, key) is None):
                raise ValueError(f"data.{key} is given with kind 'store', and only then")
        if self.kind == "store" and self.segmenter == "truth":
            raise ValueError("a store holds its districts already: leave data.segmenter out")
        if self.kind == "phantoms" and self.held_out >= self.count:
            raise ValueError("data.held_out leaves no pair to train on")


@dataclass(frozen=True)
class SamplingConfig:
    """How many patches of each study an epoch holds, and where they are placed.

    32 patches a study is ours, the paper names no number; the other defaults are the paper's: every place that touches
    the network's region has the same probability. ``lesion_share`` of the patches hold a randomly chosen voxel of an
    annotated lesion, ``hot_share`` one above ``hot_suv``, and with ``inside`` the rest one of the region.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    patches_per_study: Count = 32
    lesion_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    inside: bool = False
    hot_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    hot_suv: Positive = 4.0

    def __post_init__(self) -> None:
        if self.lesion_share + self.hot_share > 1:
            raise ValueError("sampling.lesion_share and sampling.hot_share together are more than all patches")


@dataclass(frozen=True)
class NetworkConfig:
    """Widths of generator and discriminator, the discriminator's depth, the kind of generator, and what it is given.

    ``soft_tissue`` lays the CT in a soft-tissue window beside it, ``context`` shows the U-Net the body around its
    window; the paper has neither.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    features: Count = 64
    discriminator_features: Count = 64
    discriminator_layers: Annotated[int, Field(ge=1, le=2)] = 2
    generator: Literal["unet", "resnet9"] = "unet"
    soft_tissue: bool = False
    context: bool = False

    def __post_init__(self) -> None:
        if self.context and self.generator != "unet":
            raise ValueError("network.context joins a U-Net at its bottleneck: choose network.generator 'unet'")


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam, clipping and the weights of the losses; the defaults are the paper's (section IV-B).

    ``batch_size`` counts the patches of a step over all processes. ``lambda_l1`` is Pix2Pix's; ``lambda_cycle``,
    ``lambda_identity`` and the ``pool`` of earlier images are CycleGAN's, where the paper is silent and the reference
    implementation's values stand (Zhu et al. 2017, section 7.1). ``l1_over``: L1 losses are means over whole windows,
    as in the paper, or over the voxels of the network's region in them alone.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    learning_rate: Positive = 2e-4
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    clip_norm: Positive = 5.0
    lambda_l1: Positive = 100.0
    batch_size: Count = 1
    lambda_cycle: Positive = 10.0
    lambda_identity: Annotated[float, Field(ge=0)] = 5.0
    pool: Annotated[int, Field(ge=0)] = 50
    l1_over: Literal["window", "mask"] = "window"


@dataclass(frozen=True)
class ScheduleConfig:
    """Epochs at the full learning rate, then epochs of linear decay to 0 (the paper's 100 + 50).

    An epoch is ``sampling.patches_per_study`` patches of every study that shows the network's region, or
    ``steps_per_epoch`` steps where that is given.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    constant_epochs: Count = 100
    decay_epochs: Annotated[int, Field(ge=0)] = 50
    steps_per_epoch: Count | None = None

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self.constant_epochs + self.decay_epochs


@dataclass(frozen=True)
class AugmentationConfig:
    """Paper section IV-B: mirrored axes, largest rotation about each axis, noise in model space."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    flip_axes: tuple[Axis, ...] = ("D", "H", "W")
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 10.0
    noise_sigma: Annotated[float, Field(ge=0, le=1)] = 0.01


@dataclass(frozen=True)
class ValidationConfig:
    """How often whole volumes are translated as in service and compared, and how many of the validation split at most.

    ``every_epochs`` 0 never does; the last epoch is always validated otherwise.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    every_epochs: Annotated[int, Field(ge=0)] = 5
    studies: Count = 8


@dataclass(frozen=True)
class ComputeConfig:
    """On what and how the steps are computed; only ``precision`` and the device change results.

    ``auto`` takes a GPU where there is one, ``cuda:1`` is the second one. float16 scales its
    losses and needs a GPU. ``compile`` is torch.compile.
    ``workers`` threads sample ``prefetch`` batches ahead; 0 samples each batch when its step begins. ``pairs`` lie in
    the GPU's memory (``device``), where patches are cut and augmented then, or in the processor's (``host``); ``auto``
    is the GPU's where they fit.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    device: Annotated[str, Field(pattern=f"^({DEVICES})$")] = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: bool = True
    compile: bool = False
    prefetch: Annotated[int, Field(ge=0)] = 4
    workers: Count = 1
    pairs: Literal["auto", "device", "host"] = "auto"

    def __post_init__(self) -> None:
        if self.device == "cpu" and self.precision == "float16":
            raise ValueError("float16 needs a GPU: choose compute.precision 'bfloat16' or 'float32'")


@dataclass(frozen=True)
class PackageConfig:
    """What the card of the finished package says beside what comes from the run itself.

    ``stitching`` is how windows are weighted where they overlap: ``uniform``, the paper's average, or ``gaussian``.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    intended_use: str
    licence: str
    precision: Precision = "float16"
    stitching: Stitching = "uniform"


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
    """One run: data, networks, optimisers and schedule for every network of one partition.

    ``warm_start`` is a model package whose generators the run begins with, instead of random weights. ``networks``
    names those that are trained, where not all are: the others are the warm start's, unchanged.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    out: Path
    package: PackageConfig
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=0)] = 0
    method: Literal["pix2pix", "cyclegan"] = "pix2pix"
    warm_start: Path | None = None
    networks: tuple[str, ...] = ()
    tensorboard: bool = False
    partition: PartitionChoice = "districts"
    plan: Plan = field(default_factory=Plan)
    data: DataConfig = field(default_factory=DataConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    checkpoint_steps: Count = 500

    def __post_init__(self) -> None:
        if self.method == "cyclegan" and (self.network.soft_tissue or self.network.context):
            raise ValueError(
                "a CycleGAN goes back from a PET, which has neither a soft-tissue window nor a body around it: leave "
                "network.soft_tissue and network.context out, or choose method 'pix2pix'"
            )
        if unknown := set(self.networks) - set(self.covered.networks):
            raise ValueError(f"networks names {', '.join(sorted(unknown))}, which the partition has not")
        if self.kept_networks and self.warm_start is None:
            raise ValueError("networks leaves some out: name the package that they come from as warm_start")

    @property
    def covered(self) -> Partition:
        """Which labels each network of the run covers."""
        if isinstance(self.partition, PartitionConfig):
            return partition(self.partition.name, self.partition.networks)
        return PARTITIONS[self.partition]

    @property
    def trained_networks(self) -> tuple[str, ...]:
        """The networks that the run trains, in the partition's order."""
        return tuple(name for name in self.covered.networks if not self.networks or name in self.networks)

    @property
    def kept_networks(self) -> tuple[str, ...]:
        """The networks that the package takes from the warm start as they are."""
        return tuple(name for name in self.covered.networks if name not in self.trained_networks)

    def steps_per_epoch(self, studies: int) -> int:
        """Steps of an epoch of a network whose region ``studies`` pairs show."""
        patches = studies * self.sampling.patches_per_study
        return self.schedule.steps_per_epoch or math.ceil(patches / self.optimiser.batch_size)

    def as_json(self) -> dict[str, Any]:
        """The configuration as plain values, without what changes no result: places, and how often is saved or shown.

        A run is resumed only by the configuration that began it, and the card of its package holds these values.
        """
        values = asdict(self)
        for key in ("out", "checkpoint_steps", "validation", "tensorboard"):
            del values[key]
        for key in ("prefetch", "workers", "pairs"):
            del values["compute"][key]
        plain: dict[str, Any] = _plain(values)
        return plain


def on_device(config: TrainConfig, device: str | None) -> TrainConfig:
    """The same run on another device, where one is named."""
    return config if device is None else replace(config, compute=replace(config.compute, device=device))


def read_config(path: Path) -> TrainConfig:
    """A TrainConfig from a TOML file; ``out`` is relative to where the program runs.

    Raises Rejected with every fault of the file in one sentence.
    """
    return read_toml(path, TrainConfig, "training")


def read_toml(path: Path, kind: type[Config], called: str) -> Config:
    """A configuration of a kind from a TOML file; raises Rejected with every fault of the file in one sentence."""
    return validated(read_table(path, called), kind, path.name, called)


def read_table(path: Path, called: str) -> dict[str, Any]:
    """What a TOML file says, not yet checked; raises Rejected where it is none."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise Rejected(f"{path} does not exist: give a {called} configuration in TOML.") from error
    except OSError as error:
        raise Rejected(f"{path} cannot be read ({error.strerror}): give a {called} configuration in TOML.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Rejected(f"{path.name} is not TOML: {error}.") from error


def merged(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """Tables laid over each other, the last one on top; where two have a table of one name, those are merged too."""
    result: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            below = result.get(key)
            result[key] = merged(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return result


def validated(values: dict[str, Any], kind: type[Config], where: str, called: str) -> Config:
    """A configuration of a kind from a table; raises Rejected with every fault of ``where`` in one sentence."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        faults = "; ".join(f"{_place(e['loc'])}: {e['msg']}" for e in error.errors())
        raise Rejected(f"{where} is no {called} configuration: {faults}.") from error


def _plain(value: Any) -> Any:
    """Tuples as lists and paths as their last name, so that a configuration equals itself after JSON, anywhere."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return value.name
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _place(location: tuple[int | str, ...]) -> str:
    """Where in the file a fault stands: the keys, without the marks of the two forms of a partition."""
    return ".".join(str(part) for part in location if part not in (NAMED, CONFIGURED)) or "file"
