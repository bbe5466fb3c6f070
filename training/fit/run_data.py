"""What a run is trained on and what it is validated on: phantoms in memory, or a training store and its split."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Final

from training.data.pairs import Pair, fingerprint
from training.data.splits import Split, read_split
from training.data.training_store import Entry, TrainingStore, open_store
from training.fit.config import TrainConfig
from training.fit.phantom_pairs import make_pairs
from twin_scanner.districts.landmarks.segmenter import LandmarkSegmenter
from twin_scanner.errors import Rejected
from twin_scanner.models.ranges import UNKNOWN, CtFacts, Range
from twin_scanner.progress import Progress

LOOKED_AT: Final = ("train", "validation")
"""The parts of a split that a run sees; its other two are kept from it."""


@dataclass(frozen=True, eq=False)
class RunData:
    """Pairs that are trained on, pairs that are only validated on, and what the package's card says of both.

    ``sha256`` names all of them; a run is resumed only on the same ones.
    """

    trained_on: Sequence[Pair]
    validated: Sequence[Pair]
    kind: str
    sha256: str
    segmenter: str
    segmenter_hash: str
    phantoms: int
    """So many of the pairs that are trained on are phantoms."""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """Of the patients and CTs that are trained on, for what is known of each of them; phantoms alone have none."""

    def as_json(self) -> dict[str, object]:
        """The card's entry."""
        counts = {"pairs": len(self.trained_on), "phantoms": self.phantoms, "held_out": len(self.validated)}
        stated = {"ranges": {name: list(bounds) for name, bounds in self.ranges.items()}} if self.ranges else {}
        return {"kind": self.kind, **counts, "sha256": self.sha256, **stated}


def load_data(config: TrainConfig, progress: Progress | None = None) -> RunData:
    """The data that a configuration names; ``progress`` receives (phantoms made, phantoms in all).

    Raises Rejected where a store or split is not one, or the store was made with another Plan.
    """
    data = config.data
    if data.folder is None or data.split is None:
        return phantom_data(
            config, make_pairs(data, config.plan, keep_air=config.covered.whole_volume, progress=progress)
        )
    store = open_store(data.folder)
    return stored(config, store, read_split(data.split, store.entries))


def stored(config: TrainConfig, store: TrainingStore, split: Split) -> RunData:
    """A store's studies: the split's ``train`` is trained on, its ``validation`` validated on, the rest is not read.

    Raises Rejected where the store was made with another Plan than the configuration's, holds no air for a network of
    the whole volume, or the split has nothing to train on.
    """
    if store.plan.training_grid != config.plan.training_grid:
        raise Rejected(
            f"The pairs of the store {store.folder.name} lie on grids laid on the {store.plan.training_grid.upper()}, "
            f"and this configuration's are laid on the {config.plan.training_grid.upper()} (plan.training_grid): run "
            "'twin-scanner prepare' again, into a new folder."
        )
    if store.plan != config.plan:
        raise Rejected(
            f"The store {store.folder.name} was made with another Plan than this configuration: give [plan] as in the "
            "store's store.json, or prepare another store."
        )
    if not split.train:
        raise Rejected("The split has no study in its train part: write or make one that has.")
    keep_air = config.covered.whole_volume
    known = {part: store.fingerprint_of(names) for part, names in split.parts.items() if part in LOOKED_AT}
    return RunData(
        store.pairs(split.train, keep_air=keep_air),
        store.pairs(split.validation, keep_air=keep_air),
        "store",
        hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest(),
        store.segmenter,
        store.segmenter_hash,
        sum(entry.is_phantom for entry in store.entries if entry.name in set(split.train)),
        _ranges([entry for entry in store.entries if entry.name in set(split.train)]),
    )


def _ranges(entries: Sequence[Entry]) -> dict[str, Range]:
    """The least and the greatest of each fact that is known of every patient's study."""
    facts = [entry.ct_facts or UNKNOWN for entry in entries if not entry.is_phantom]
    found = {}
    for name in (one.name for one in fields(CtFacts)):
        values: list[float | None] = [getattr(one, name) for one in facts]
        known = [value for value in values if value is not None]
        if known and len(known) == len(values):
            found[name] = (round(min(known), 3), round(max(known), 3))
    return found


def phantom_data(config: TrainConfig, pairs: Sequence[Pair]) -> RunData:
    """Phantoms in memory, of which the last ``data.held_out`` are validated on."""
    held_out, landmarks = config.data.held_out, config.data.segmenter == "landmarks"
    return RunData(
        pairs[:-held_out],
        pairs[-held_out:],
        "phantoms",
        fingerprint(pairs),
        LandmarkSegmenter.name if landmarks else "phantom-truth",
        LandmarkSegmenter().segmenter_hash if landmarks else "",
        len(pairs) - held_out,
    )
