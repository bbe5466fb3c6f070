"""The store of model packages: folders named by hash, aliases, promotions; it knows no torch and loads no network."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from twin_scanner.errors import Rejected
from twin_scanner.files.durable_file import write_durably, writing
from twin_scanner.files.file_lock import take_lock
from twin_scanner.models.card import CARD, read_card, read_weights, write_package_files
from twin_scanner.models.promotions import By, Promotion, read_promotions, write_promotion

DEMONSTRATION_FOLDER: Final = Path(__file__).resolve().parent.parent / "demonstration"
"""The package that comes with the program: the champion where nothing was trained."""
HASH_PREFIX: Final = re.compile(r"[0-9a-f]{8,64}")
ALIASES: Final = ("champion", "challenger", "previous")


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


def check_files(package: Path) -> None:
    """Raise Rejected where a package's card or weights are not what its hash says; the networks are not built."""
    read_weights(package, read_card(package))


def copy_package(package: Path, folder: Path) -> str:
    """Copy a package as a new folder, whole or not at all, and return its hash; other files stay behind.

    Raises Rejected where the package is not what its hash says, or the folder exists; OSError where the disk fails.
    """
    card = read_card(package)
    write_package_files(folder, (package / CARD).read_bytes(), read_weights(package, card))
    return card.model_hash


class ModelStore:
    """A folder with one immutable package per sub-folder, named by hash; beside them ``aliases.json`` and promotions.

    The aliases change in one step and under a lock, so whoever resolves one sees the old model or the new one.
    A package enters when its card and weights are what its hash says; that its networks can be built is the business
    of whoever brings it in (``package.load_package``).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, package: Path) -> Path:
        """Copy a checked package into the store, whole or not at all; a package that is there already stays."""
        target = self.folder / read_card(package).model_hash
        check_files(package)
        if not target.exists():
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
            folders.setdefault(read_card(DEMONSTRATION_FOLDER).model_hash, DEMONSTRATION_FOLDER)
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

        The record is written before the alias: one whose alias was never written, after a crash, is left out here, and
        the next change overwrites it.
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
        with writing("The change of models", self.folder), take_lock(self.folder / "lock", None):
            yield

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
            if (folder / CARD).is_file() and read_card(folder).model_hash == model_hash:
                return folder
        raise Rejected(f"The {alias} is model {model_hash[:12]}, which is not in the store: import it again.")

    def _summary(self, folder: Path) -> PackageSummary:
        card = read_card(folder)
        aliases = tuple(alias for alias in ALIASES if self.aliases().get(alias) == card.model_hash)
        if folder == DEMONSTRATION_FOLDER and "champion" not in self.aliases():
            aliases = ("champion", *aliases)
        return PackageSummary(card.name, card.model_hash, aliases, card.partition.name, card.intended_use, folder)
