"""The numbers, names and colours of the body districts in a label map: what every room means by 1, 2, 3 and 4."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

DISTRICT_LABELS: Final = MappingProxyType({"head": 1, "trunk": 2, "arms": 3, "legs": 4})
"""Labels of the district map, in the paper's order (equation 5); 0 is outside the body."""
DISTRICT_NAMES: Final = MappingProxyType({label: name for name, label in DISTRICT_LABELS.items()})

DISTRICT_COLOURS: Final = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#cc79a7")
"""Background, head, trunk, arms, legs: the Okabe-Ito palette, which colour-blind readers can distinguish too."""

LARGEST_LABEL: Final = 254
"""A label map is uint8, and 255 is left to the programs that mean 'not looked at' by it."""


def label_name(label: int, names: Mapping[int, str] = DISTRICT_NAMES) -> str:
    """What a label is called; one without a name goes by its number."""
    return names.get(label, f"label {label}")
