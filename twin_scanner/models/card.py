"""The card of a model package: what it says, reading and checking it, and its weights as bytes; it knows no torch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, get_args

from twin_scanner.errors import Misconfigured, Rejected
from twin_scanner.files.durable_file import whole_folder, write_durably
from twin_scanner.models.partition import Partition, partition
from twin_scanner.models.plan import Plan, plan_from_json
from twin_scanner.models.ranges import Range, ranges_of

CARD: Final = "card.json"
SCHEMA: Final = 1
"""Raised when a card's meaning changes; an older program refuses a newer card."""
PHANTOMS: Final = "phantoms"
"""The kind of training data that is phantoms alone, as a card says it."""
LARGEST_FEATURES: Final = 256
"""A card asking for wider networks than this is a mistake: the paper's size is 64."""

ArchitectureKind = Literal["unet", "resnet9"]
Precision = Literal["float16", "float32"]
Stitching = Literal["uniform", "gaussian"]
"""How the windows that cover a voxel are weighted: all alike (paper eq. 14), or less the nearer it is to their edge."""
StitchingChoice = Literal["package", "uniform", "gaussian"]
"""A site's choice: the package's own, or another one."""


@dataclass(frozen=True)
class Architecture:
    """What to build before the weights are filled in, and what it is given; part of the package's name.

    The paper's networks see one channel, the CT of their labels. ``soft_tissue`` lays the same CT in a soft-tissue
    window beside it, ``context`` adds the whole body around the window at a quarter of the resolution.
    """

    kind: ArchitectureKind
    features: int
    soft_tissue: bool = False
    context: bool = False

    def __post_init__(self) -> None:
        if self.context and self.kind != "unet":
            raise ValueError(f"the context joins a U-Net at its bottleneck, which '{self.kind}' does not have")

    @property
    def channels(self) -> int:
        """Channels of the CT that a network is given."""
        return 2 if self.soft_tissue else 1

    def as_json(self) -> dict[str, object]:
        """The plain form; an option that is off is left out, so packages from before it existed keep their hash."""
        return {key: value for key, value in asdict(self).items() if value is not False}


PAPER: Final = Architecture("unet", 64)
"""The paper's Pix2Pix generator: one channel, no context."""


@dataclass(frozen=True)
class Card:
    """What a package says of itself.

    ``weights_sha256`` has one entry per network of the partition, and none where the networks were never written.
    ``about`` holds all that does not enter the hash: training data, metrics, intended use, licence.
    """

    name: str
    model_hash: str
    plan: Plan
    partition: Partition
    architecture: Architecture
    precision: Precision = "float32"
    weights_sha256: Mapping[str, str] = field(default_factory=dict)
    segmenter: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    stitching: Stitching = "uniform"

    def stitching_for(self, choice: StitchingChoice) -> Stitching:
        """The stitching that a site's choice comes to."""
        return self.stitching if choice == "package" else choice

    @property
    def intended_use(self) -> str:
        """What the package may be used for, empty where its maker said nothing."""
        return str(self.about.get("intended_use", ""))

    @property
    def training_data(self) -> Mapping[str, Any]:
        """What the networks were trained on: kind, counts and fingerprint; empty where the card does not say."""
        return dict(self.about.get("training_data") or {})

    @property
    def ranges(self) -> Mapping[str, Range]:
        """Of which patients and CTs the training data were; empty where the card does not say."""
        return ranges_of(self.training_data)

    @property
    def phantom_only(self) -> bool:
        """Whether the networks were trained on phantoms alone, no patient among them."""
        data = self.training_data
        phantoms = data.get("phantoms")
        return data.get("kind") == PHANTOMS or (bool(phantoms) and phantoms == data.get("pairs"))

    def as_json(self) -> dict[str, object]:
        """The plain form of the file."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "model_hash": self.model_hash,
            "partition": self.partition.as_json(),
            "architecture": self.architecture.as_json(),
            "plan": self.plan.as_json(),
            "plan_hash": self.plan.plan_hash,
            "precision": self.precision,
            "weights_sha256": dict(self.weights_sha256),
            "segmenter": self.segmenter,
            **_unless_uniform(self.stitching),
            **self.about,
        }

    def as_bytes(self) -> bytes:
        """The content of the file."""
        return (json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n").encode()


def check_serves_patients(card: Card, *, accept_phantom_only: bool) -> None:
    """Raise Misconfigured where a model that was trained on phantoms only would serve patients unasked."""
    if card.phantom_only and not accept_phantom_only:
        raise Misconfigured(
            f"Model '{card.name}' ({card.model_hash[:12]}) was trained on phantoms only, so it serves no patient: "
            "import or train a model of patients, or, for a demonstration or a test, set model.accept_phantom_only."
        )


def model_hash_of(
    weights_sha256: Mapping[str, str],
    plan: Plan,
    partition: Partition,
    architecture: Architecture,
    stitching: Stitching = "uniform",
) -> str:
    """SHA-256 of what decides the output: weights, Plan, partition, architecture and stitching; no date, no metric."""
    content = {
        "weights": dict(weights_sha256),
        "plan": plan.plan_hash,
        "partition": partition.as_json(),
        "architecture": architecture.as_json(),
        **_unless_uniform(stitching),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_card(folder: Path) -> Card:
    """The card of a package; raises Rejected, naming the package and the fault, where this version cannot use it."""
    values, where = _values(folder), f"Model package '{folder.name}'"
    plan, covered, architecture = _plan(values, where), _partition(values, where), _architecture(values, where)
    weights = values.pop("weights_sha256", None)
    if not isinstance(weights, dict) or set(weights) != set(covered.networks):
        raise Rejected(f"{where} does not hold one network for each of its partition: export it again.")
    if values.get("precision") not in get_args(Precision):
        raise Rejected(f"{where} has weights of a precision that this version does not know: update the program.")
    stitching = values.pop("stitching", "uniform")
    if stitching not in get_args(Stitching):
        raise Rejected(f"{where} was made for a stitching that this version does not know: update the program.")
    _check_ranges(values, where)
    return Card(
        name=values.pop("name"),
        model_hash=values.pop("model_hash"),
        plan=plan,
        partition=covered,
        architecture=architecture,
        precision=values.pop("precision"),
        weights_sha256={network: str(digest) for network, digest in weights.items()},
        segmenter=str(values.pop("segmenter", "")),
        about=values,
        stitching=stitching,
    )


def read_weights(folder: Path, card: Card) -> dict[str, bytes]:
    """The safetensors content of each network of a package.

    Raises Rejected, naming the file, where one is missing or was changed, or where the card is not what its hash says.
    """
    where = f"Model package '{folder.name}'"
    weights = {network: _weights(folder, network, digest, where) for network, digest in card.weights_sha256.items()}
    decides = card.weights_sha256, card.plan, card.partition, card.architecture, card.stitching
    if card.model_hash != model_hash_of(*decides):
        raise Rejected(f"{where} is not the model that its hash names: its card was changed, export it again.")
    return weights


def write_package_files(folder: Path, card: bytes, weights: Mapping[str, bytes]) -> None:
    """Write a package as a new folder, whole and fsynced or not at all.

    Raises Rejected where the folder exists, OSError where the disk fails.
    """
    if folder.exists():
        raise Rejected(f"{folder} already exists: packages are never overwritten, give a new folder.")
    with whole_folder(folder) as scratch:
        for network, content in weights.items():
            write_durably(scratch / weights_file(network), content)
        write_durably(scratch / CARD, card)


def _unless_uniform(stitching: Stitching) -> dict[str, str]:
    """Nothing for the paper's average, so that packages from before there was a choice keep card and hash."""
    return {} if stitching == "uniform" else {"stitching": stitching}


def weights_file(network: str) -> str:
    """The file of a package that holds a network's weights."""
    return f"{network}.safetensors"


def _values(folder: Path) -> dict[str, Any]:
    path = folder / CARD
    if not path.is_file():
        raise Rejected(f"{folder} is not a model package: it has no {CARD}.")
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise Rejected(f"Model package '{folder.name}' has a {CARD} that is not JSON: export it again.") from error
    if not isinstance(values, dict) or values.pop("schema", None) != SCHEMA:
        raise Rejected(f"Model package '{folder.name}' has a card of an unknown schema: this version reads {SCHEMA}.")
    if not all(isinstance(values.get(key), str) and values[key] for key in ("name", "model_hash")):
        raise Rejected(f"Model package '{folder.name}' has a card without name or model_hash: export it again.")
    return values


def _plan(values: dict[str, Any], where: str) -> Plan:
    try:
        plan = plan_from_json(values.pop("plan"))
    except (KeyError, TypeError, ValueError) as error:
        raise Rejected(f"{where} has a Plan that this version does not understand: export it again.") from error
    if plan.plan_hash != values.pop("plan_hash", None):
        raise Rejected(f"{where} has a Plan that was changed after training: export it again.")
    return plan


def _partition(values: dict[str, Any], where: str) -> Partition:
    try:
        entries = values.pop("partition")
        return partition(str(entries["name"]), dict(entries["networks"]))
    except Rejected as error:
        raise Rejected(f"{where} cannot be used: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise Rejected(f"{where} has a partition that this version does not understand: export it again.") from error


def _architecture(values: dict[str, Any], where: str) -> Architecture:
    entries = values.pop("architecture", None)
    known = isinstance(entries, dict) and {"kind", "features"} <= set(entries) <= {f.name for f in fields(Architecture)}
    if not known or entries["kind"] not in get_args(ArchitectureKind):
        raise Rejected(f"{where} has an architecture that this version cannot build: update the program.")
    options = {key: value for key, value in entries.items() if key not in ("kind", "features")}
    if not all(isinstance(value, bool) for value in options.values()):
        raise Rejected(f"{where} has an option of its architecture that is neither true nor false: export it again.")
    if not isinstance(entries["features"], int) or not 0 < entries["features"] <= LARGEST_FEATURES:
        raise Rejected(
            f"{where} asks for networks of {entries['features']} features: 1 to {LARGEST_FEATURES} are possible."
        )
    try:
        return Architecture(entries["kind"], entries["features"], **options)
    except ValueError as error:
        raise Rejected(f"{where} cannot be built: {error}; export it again.") from error


def _check_ranges(values: dict[str, Any], where: str) -> None:
    try:
        ranges_of(dict(values.get("training_data") or {}))
    except (TypeError, ValueError) as error:
        raise Rejected(f"{where} states ranges of its training data that cannot be read: {error}.") from error


def _weights(folder: Path, network: str, digest: str, where: str) -> bytes:
    path = folder / weights_file(network)
    if not path.is_file():
        raise Rejected(f"{where} lacks {path.name}: copy the whole folder again.")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise Rejected(f"{where} has a damaged or changed {path.name}: copy the whole folder again.")
    return data
