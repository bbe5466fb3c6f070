"""Which district labels each network covers: four districts, one network for all, or finer parts."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from twin_scanner.errors import Rejected
from twin_scanner.imaging.district_labels import DISTRICT_LABELS, LARGEST_LABEL

NETWORK_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""Networks are files of a package: names that every file system keeps apart and as they are."""


@dataclass(frozen=True)
class Partition:
    """Named networks and the labels each one covers; a network with no labels covers the whole volume, air included.

    Raises Rejected, naming every fault, for labels that are no whole numbers from 1 to LARGEST_LABEL or that two
    networks cover, for a network without labels beside others, and for names that are no NETWORK_NAME.
    """

    name: str
    networks: MappingProxyType[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        impossible = [*_impossible_names(self.name, self.networks), *_impossible_labels(self.networks)]
        if impossible:
            raise Rejected(f"Partition '{self.name}' has impossible labels or names: {'; '.join(impossible)}.")
        times = Counter(label for labels in self.networks.values() for label in labels)
        repeated = [label for label, count in sorted(times.items()) if count > 1]
        if repeated:
            raise Rejected(
                f"Partition '{self.name}' gives one label to two networks, or twice to one: each label belongs to one "
                f"network once, which {_listed(repeated)} does not."
            )

    @property
    def labels(self) -> frozenset[int]:
        """Every label that some network covers."""
        return frozenset(label for labels in self.networks.values() for label in labels)

    @property
    def whole_volume(self) -> bool:
        """Whether the one network translates the whole volume without a mask (paper equations 16 and 17)."""
        return any(not labels for labels in self.networks.values())

    def as_json(self) -> dict[str, object]:
        """The plain form that the model card holds."""
        return {"name": self.name, "networks": {name: list(labels) for name, labels in self.networks.items()}}


def _impossible_names(name: str, networks: Mapping[str, Sequence[int]]) -> Iterator[str]:
    if not name.strip() or not name.isprintable():
        yield "it has no name"
    if not networks:
        yield "it has no network"
    for network in networks:
        if not NETWORK_NAME.fullmatch(network):
            yield f"'{network}' names a file, so it is of a-z, 0-9, - and _, and begins with a letter or digit"


def _impossible_labels(networks: Mapping[str, Sequence[int]]) -> Iterator[str]:
    for network, labels in networks.items():
        if not labels and len(networks) > 1:
            yield f"network '{network}' has no labels, so it covers the whole volume and leaves nothing to the others"
        wrong = [label for label in labels if not _is_label(label)]
        if wrong:
            yield f"network '{network}' covers {_listed(wrong)}, labels are whole numbers from 1 to {LARGEST_LABEL}"


def _is_label(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_LABEL


def _listed(values: Sequence[object]) -> str:
    return ", ".join(repr(value) for value in values[:10]) + (", ..." if len(values) > 10 else "")


def partition(name: str, networks: Mapping[str, Sequence[int]]) -> Partition:
    """A Partition from plain values, as a configuration or a card holds them."""
    return Partition(name, MappingProxyType({key: tuple(labels) for key, labels in networks.items()}))


DISTRICTS: Final = partition("districts", {name: [label] for name, label in DISTRICT_LABELS.items()})
WHOLE_BODY: Final = partition("whole-body", {"body": [1, 2, 3, 4]})
WHOLE_VOLUME: Final = partition("whole-volume", {"volume": []})
PARTITIONS: Final = MappingProxyType({p.name: p for p in (DISTRICTS, WHOLE_BODY, WHOLE_VOLUME)})
