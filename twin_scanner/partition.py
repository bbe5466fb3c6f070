"""Which district labels each network covers: the four districts, the competitor, finer ones by configuration."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from twin_scanner.errors import Rejected

DISTRICT_LABELS: Final = MappingProxyType({"head": 1, "trunk": 2, "arms": 3, "legs": 4})
"""Labels of the district map, in the paper's order (equation 5); 0 is outside the body."""
DISTRICT_NAMES: Final = MappingProxyType({label: name for name, label in DISTRICT_LABELS.items()})

DISTRICT_COLOURS: Final = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#cc79a7")
"""Background, head, trunk, arms, legs: the Okabe-Ito palette, told apart by colour-blind readers too."""


@dataclass(frozen=True)
class Partition:
    """Named networks and the labels each one covers; a network with no labels covers the whole volume, air included."""

    name: str
    networks: MappingProxyType[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        covered = [label for labels in self.networks.values() for label in labels]
        if len(covered) != len(set(covered)):
            raise Rejected(f"Partition '{self.name}' gives one label to two networks: each label belongs to one.")

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


def partition(name: str, networks: dict[str, list[int] | tuple[int, ...]]) -> Partition:
    """A Partition from plain values, as a configuration or a card holds them."""
    return Partition(name, MappingProxyType({key: tuple(labels) for key, labels in networks.items()}))


DISTRICTS: Final = partition("districts", {name: [label] for name, label in DISTRICT_LABELS.items()})
WHOLE_BODY: Final = partition("whole-body", {"body": [1, 2, 3, 4]})
WHOLE_VOLUME: Final = partition("whole-volume", {"volume": []})
PARTITIONS: Final = MappingProxyType({p.name: p for p in (DISTRICTS, WHOLE_BODY, WHOLE_VOLUME)})
