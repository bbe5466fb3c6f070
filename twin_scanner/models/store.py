"""Model packages, folders of weights, card and Plan named by their content, and the store that keeps them."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import safetensors
import safetensors.torch
import torch
from torch import nn

from twin_scanner.errors import Rejected, Transient
from twin_scanner.files.durable_file import whole_folder, write_durably
from twin_scanner.files.file_lock import take_lock
from twin_scanner.models.networks import ResNetGenerator, UNetGenerator
from twin_scanner.models.partition import NETWORK_NAME, Partition, partition
from twin_scanner.models.plan import Plan
from twin_scanner.models.promotions import By, Promotion, read_promotions, write_promotion

CARD: Final = "card.json"
SCHEMA: Final = 1
"""Raised when a card's meaning changes; an older program refuses a newer card."""
DEMONSTRATION_FOLDER: Final = Path(__file__).resolve().parent.parent / "demonstration"
"""The package that comes with the program: the champion where nothing was trained."""
HASH_PREFIX: Final = re.compile(r"[0-9a-f]{8,64}")
ALIASES: Final = ("champion", "challenger", "previous")
LARGEST_FEATURES: Final = 256
"""A card asking for wider networks than this is a mistake: the paper's size is 64."""

GENERATORS: Final = MappingProxyType({"unet": UNetGenerator, "resnet9": ResNetGenerator})
"""Every architecture that a card may name."""

Precision = Literal["float16", "float32"]
DTYPES: Final = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Architecture:
    """What to build before the weights are filled in; part of the package's name."""

    kind: Literal["unet", "resnet9"]
    features: int

    def build(self) -> nn.Module:
        """A fresh generator."""
        return GENERATORS[self.kind](self.features)


@dataclass(frozen=True, eq=False)
class ModelPackage:
    """A loaded package: one generator for each network of the partition, ready to run (float32, evaluation mode)."""

    name: str
    model_hash: str
    plan: Plan
    partition: Partition
    architecture: Architecture
    networks: dict[str, nn.Module]
    card: dict[str, Any]


@dataclass(frozen=True)
class PackageSummary:
    """One row of ``models list``."""

    name: str
    model_hash: str
    aliases: tuple[str, ...]
    partition: str
    intended_use: str
    folder: Path

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return {**asdict(self), "aliases": list(self.aliases), "folder": str(self.folder)}


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
    about: Mapping[str, object],
) -> str:
    """Write a package as a new folder, whole or not at all, and return its hash.

    ``about`` is whatever else the card says: training data, metrics, intended use, licence; it is not hashed. Raises
    Rejected where the folder exists, or networks do not fit the partition.
    """
    if folder.exists():
        raise Rejected(f"{folder} already exists: packages are never overwritten, give a new folder.")
    if set(networks) != set(partition.networks) or not all(NETWORK_NAME.fullmatch(n) for n in networks):
        raise Rejected(f"The networks {sorted(networks)} are not those of partition '{partition.name}'.")
    files = {f"{key}.safetensors": _serialised(network, DTYPES[precision]) for key, network in networks.items()}
    weights = {key: hashlib.sha256(files[f"{key}.safetensors"]).hexdigest() for key in networks}
    model_hash = _model_hash(weights, plan, partition, architecture)
    card = {
        "schema": SCHEMA,
        "name": name,
        "model_hash": model_hash,
        "partition": partition.as_json(),
        "architecture": asdict(architecture),
        "plan": asdict(plan),
        "plan_hash": plan.plan_hash,
        "precision": precision,
        "weights_sha256": weights,
        "segmenter": segmenter,
        **about,
    }
    _write_folder(folder, {**files, CARD: (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode()})
    return model_hash


def load_package(folder: Path) -> ModelPackage:
    """Read and check a package; nothing that it brings is executed.

    Raises Rejected, naming the package and the fault, where the card, the Plan, the architecture or the weights are
    not what the package's hash says.
    """
    card = read_card(folder)
    where = f"Model package '{folder.name}'"
    plan, covered, architecture = _plan(card, where), _partition(card, where), _architecture(card, where)
    expected = card.get("weights_sha256")
    if not isinstance(expected, dict) or set(expected) != set(covered.networks):
        raise Rejected(f"{where} does not hold one network for each of its partition: export it again.")
    files = {key: _weights(folder, key, str(digest), where) for key, digest in expected.items()}
    if card.get("model_hash") != _model_hash(expected, plan, covered, architecture):
        raise Rejected(f"{where} is not the model that its hash names: its card was changed, export it again.")
    networks = {key: _network(architecture, data, f"{where}, network '{key}',") for key, data in files.items()}
    return ModelPackage(str(card["name"]), str(card["model_hash"]), plan, covered, architecture, networks, card)


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a package, its schema checked; raises Rejected where there is none that this version understands."""
    path = folder / CARD
    if not path.is_file():
        raise Rejected(f"{folder} is not a model package: it has no {CARD}.")
    try:
        card = json.loads(path.read_bytes())
    except ValueError as error:
        raise Rejected(f"Model package '{folder.name}' has a {CARD} that is not JSON: export it again.") from error
    if not isinstance(card, dict) or card.get("schema") != SCHEMA:
        raise Rejected(f"Model package '{folder.name}' has a card of an unknown schema: this version reads {SCHEMA}.")
    if not all(isinstance(card.get(key), str) and card[key] for key in ("name", "model_hash")):
        raise Rejected(f"Model package '{folder.name}' has a card without name or model_hash: export it again.")
    return card


def copy_package(package: Path, folder: Path) -> str:
    """Copy a package as a new folder, whole or not at all, and return its hash; other files stay behind.

    Raises Rejected where the package is not what its hash says, or the folder exists; OSError where the disk fails.
    """
    if folder.exists():
        raise Rejected(f"{folder} already exists: packages are never overwritten, give a new folder.")
    loaded = load_package(package)
    names = [CARD, *(f"{key}.safetensors" for key in loaded.networks)]
    _write_folder(folder, {name: (package / name).read_bytes() for name in names})
    return loaded.model_hash


class ModelStore:
    """A folder with one immutable package a sub-folder, named by hash; beside them ``aliases.json`` and promotions.

    The aliases change in one step and under a lock, so whoever resolves one sees the old model or the new one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, package: Path) -> Path:
        """Copy a checked package into the store, whole or not at all; a package that is there already stays."""
        target = self.folder / str(read_card(package)["model_hash"])
        if target.exists():
            load_package(package)
        else:
            copy_package(package, target)
        return target

    def resolve(self, reference: str) -> Path:
        """The folder of an alias, a name, the beginning of a hash, or a path; raises Rejected for none or several."""
        if reference in ALIASES:
            return self._aliased(reference)
        matches = [row for row in self.list() if row.name == reference]
        if not matches and HASH_PREFIX.fullmatch(reference):
            matches = [row for row in self.list() if row.model_hash.startswith(reference)]
        if len(matches) > 1:
            raise Rejected(f"Several models are called '{reference}': give the hash, as 'models list' shows it.")
        if matches:
            return matches[0].folder
        if (Path(reference) / CARD).is_file():
            return Path(reference).resolve()
        raise Rejected(f"There is no model '{reference}': 'models list' shows what is here.")

    def list(self) -> tuple[PackageSummary, ...]:
        """Every package of the store, and the demonstration package, by name."""
        found = (path.parent for path in sorted(self.folder.glob(f"*/{CARD}")))
        folders = {folder.name: folder for folder in found if not folder.name.startswith(".")}
        if (DEMONSTRATION_FOLDER / CARD).is_file():
            folders.setdefault(str(read_card(DEMONSTRATION_FOLDER)["model_hash"]), DEMONSTRATION_FOLDER)
        return tuple(sorted((self._summary(folder) for folder in folders.values()), key=lambda row: row.name))

    def challenge(self, reference: str) -> str:
        """Make a package the challenger, and return its hash; raises Rejected as ``resolve`` and ``add`` do."""
        with self._changing():
            model_hash = self.add(self.resolve(reference)).name
            self._write_aliases({**self.aliases(), "challenger": model_hash})
        return model_hash

    def promote(
        self,
        reference: str,
        *,
        by: By,
        reason: str,
        decision: str = "",
        instead_of: str | None = None,
        at: datetime | None = None,
    ) -> Promotion:
        """Make a package the champion and the champion the previous one, with a record of why.

        Whether it may be is decided before (``training.retraining.gate``); ``instead_of`` is the champion's hash on
        which that decision rests. Raises Rejected where the package is the champion already, where ``instead_of`` no
        longer is, or without a reason; Transient where the disk fails.
        """
        with self._changing():
            target = self.add(self.resolve(reference)).name
            standing = self._standing()
            if instead_of is not None and instead_of != standing:
                raise Rejected(
                    f"The champion is model {standing[:12]} by now, not {instead_of[:12]} which {target[:12]} was "
                    "compared with: run 'retrain' again."
                )
            if target == standing:
                raise Rejected(f"Model {target[:12]} is the champion already: nothing is to be done.")
            return self._change_champion(target, standing, by, reason, decision, at)

    def rollback(self, reason: str, *, at: datetime | None = None) -> Promotion:
        """Put the previous champion back in service, and the champion in its place.

        Raises Rejected where there is no previous one or no reason, Transient where the disk fails.
        """
        with self._changing():
            target = self.add(self._aliased("previous")).name
            return self._change_champion(target, self._standing(), "rollback", reason, "", at)

    def history(self) -> tuple[Promotion, ...]:
        """Every change of champion that took effect, oldest first.

        The record is written before the alias: one that a crash parted from its alias is not told, and overwritten by
        the next change.
        """
        records, champion = read_promotions(self.folder), self.aliases().get("champion")
        return records if not records or records[-1].champion == champion else records[:-1]

    def aliases(self) -> dict[str, str]:
        """The hash behind each alias that was ever set."""
        if not self._alias_file.is_file():
            return {}
        try:
            aliases = json.loads(self._alias_file.read_bytes())
        except ValueError as error:
            raise Rejected(
                f"{self._alias_file} is not JSON: restore it, or remove it to fall back on the demonstration."
            ) from error
        return {str(alias): str(model_hash) for alias, model_hash in aliases.items()}

    @property
    def _alias_file(self) -> Path:
        return self.folder / "aliases.json"

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One process at a time changes aliases; the lock dies with its process."""
        try:
            with take_lock(self.folder / "lock", None):
                yield
        except OSError as error:
            raise Transient(
                f"The model store {self.folder} cannot be written: check its free space and rights."
            ) from error

    def _standing(self) -> str:
        """The champion's hash; a demonstration package is copied into the store, so that it can be put back."""
        return self.aliases().get("champion") or self.add(DEMONSTRATION_FOLDER).name

    def _change_champion(
        self, target: str, standing: str, by: By, reason: str, decision: str, at: datetime | None
    ) -> Promotion:
        if not reason.strip():
            raise Rejected("A change of champion needs a reason, which is recorded: give one.")
        moment = (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
        number = len(self.history()) + 1
        promotion = Promotion(number, moment, target, standing, by, reason.strip(), decision)
        write_promotion(self.folder, promotion)
        challengers = {key: value for key, value in self.aliases().items() if key == "challenger" and value != target}
        self._write_aliases({**challengers, "champion": target, "previous": standing})
        return promotion

    def _write_aliases(self, aliases: Mapping[str, str]) -> None:
        write_durably(self._alias_file, (json.dumps(aliases, indent=1, sort_keys=True) + "\n").encode())

    def _aliased(self, alias: str) -> Path:
        model_hash = self.aliases().get(alias)
        if model_hash is None and alias == "champion":
            return DEMONSTRATION_FOLDER
        if model_hash is None:
            raise Rejected(f"No model is the {alias}: 'models list' shows what is here.")
        for folder in (self.folder / model_hash, DEMONSTRATION_FOLDER):
            if (folder / CARD).is_file() and read_card(folder)["model_hash"] == model_hash:
                return folder
        raise Rejected(f"The {alias} is model {model_hash[:12]}, which is not in the store: import it again.")

    def _summary(self, folder: Path) -> PackageSummary:
        card = read_card(folder)
        model_hash = str(card["model_hash"])
        aliases = tuple(alias for alias in ALIASES if self.aliases().get(alias) == model_hash)
        if folder == DEMONSTRATION_FOLDER and "champion" not in self.aliases():
            aliases = ("champion", *aliases)
        covered = card.get("partition")
        name = str(covered.get("name", "")) if isinstance(covered, dict) else ""
        return PackageSummary(str(card["name"]), model_hash, aliases, name, str(card.get("intended_use", "")), folder)


def _model_hash(weights_sha256: Mapping[str, str], plan: Plan, partition: Partition, architecture: Architecture) -> str:
    """SHA-256 of what decides the output: weights, Plan, partition and architecture; no date, no metric."""
    content = {
        "weights": dict(weights_sha256),
        "plan": plan.plan_hash,
        "partition": partition.as_json(),
        "architecture": asdict(architecture),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _plan(card: dict[str, Any], where: str) -> Plan:
    try:
        values = dict(card["plan"])
        d, h, w = (float(s) for s in values.pop("spacing_mm"))
        plan = Plan(spacing_mm=(d, h, w), **values)
    except (KeyError, TypeError, ValueError) as error:
        raise Rejected(f"{where} has a Plan that this version does not understand: export it again.") from error
    if plan.plan_hash != card.get("plan_hash"):
        raise Rejected(f"{where} has a Plan that was changed after training: export it again.")
    return plan


def _partition(card: dict[str, Any], where: str) -> Partition:
    try:
        return partition(str(card["partition"]["name"]), dict(card["partition"]["networks"]))
    except Rejected as error:
        raise Rejected(f"{where} cannot be used: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise Rejected(f"{where} has a partition that this version does not understand: export it again.") from error


def _architecture(card: dict[str, Any], where: str) -> Architecture:
    values = card.get("architecture")
    if not isinstance(values, dict) or set(values) != {"kind", "features"} or str(values["kind"]) not in GENERATORS:
        raise Rejected(f"{where} has an architecture that this version cannot build: update the program.")
    if not isinstance(values["features"], int) or not 0 < values["features"] <= LARGEST_FEATURES:
        raise Rejected(
            f"{where} asks for networks of {values['features']} features: 1 to {LARGEST_FEATURES} are possible."
        )
    return Architecture(values["kind"], values["features"])


def _weights(folder: Path, network: str, digest: str, where: str) -> bytes:
    path = folder / f"{network}.safetensors"
    if not path.is_file():
        raise Rejected(f"{where} lacks {path.name}: copy the whole folder again.")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise Rejected(f"{where} has a damaged or changed {path.name}: copy the whole folder again.")
    return data


def _network(architecture: Architecture, data: bytes, where: str) -> nn.Module:
    """A generator in float32, its weights channels-last: several times faster on processors (training/LOG.md)."""
    network = architecture.build()
    try:
        state = {key: tensor.float() for key, tensor in safetensors.torch.load(data).items()}
        network.load_state_dict(state)
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise Rejected(f"{where} holds weights of another shape than its architecture: export it again.") from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise Rejected(f"{where} holds weights that are not finite: train it again.")
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def _serialised(network: nn.Module, dtype: torch.dtype) -> bytes:
    state = {key: tensor.detach().cpu().to(dtype).contiguous() for key, tensor in network.state_dict().items()}
    return safetensors.torch.save(state)


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """All files on disk and fsynced, or no folder."""
    with whole_folder(folder) as scratch:
        for name, data in files.items():
            write_durably(scratch / name, data)
