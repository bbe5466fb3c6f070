"""The phantom's head and neck: skull, brain, face, airway and glands, and the points where the head's district ends."""

from typing import Final

import numpy as np

from training.phantom_shapes import Canvas, Point, Region
from training.phantom_skeleton import SIDES, bone, knob
from training.phantom_tissues import Tissue

SKULL_CENTRE: Final[Point] = (0.0, -2.0, 1659.0)
SKULL_RADII: Final[Point] = (77.0, 97.0, 92.0)
"""The cranium's skin."""
SCALP_MM: Final = 6.0
VAULT_MM: Final = 7.0
_BASE: Final = np.array([[-95, 1640], [-20, 1632], [-4, 1618], [14, 1600], [60, 1600], [95, 1622]], np.float32)
"""Floor of the cranial cavity: y and z."""
CHIN: Final = (-78.0, 1525.5)
"""(y, z) of the mandible's lowest point."""
OCCIPUT: Final = (37.0, 1593.5)
"""(y, z) of the occipital bone's lowest point."""


def floor_of_skull(y: np.ndarray) -> np.ndarray:
    """Height of the cranial cavity's floor at y."""
    return np.interp(y, _BASE[:, 0], _BASE[:, 1]).astype(np.float32)
