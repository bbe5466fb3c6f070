"""The phantom's body in reference coordinates: its outline, its organs, and the borders of its districts."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from scipy import ndimage

from training import phantom_skeleton as skeleton
from training.phantom_head import chin_and_occiput, draw_head, draw_neck
from training.phantom_shapes import BoolArray, Canvas, Loft, Point, Region
from training.phantom_skeleton import ArmPose, Side, mirrored
from training.phantom_tissues import Tissue
from twin_scanner.partition import DISTRICT_LABELS
from twin_scanner.volume import FloatArray, LabelArray

Sex: TypeAlias = Literal["F", "M"]
ArmPosition: TypeAlias = Literal["up", "down"]

REFERENCE_HEIGHT_MM: Final = 1750.0
SKIN_MM: Final = 2.0
TRUNK: Final = Loft(
    ((818, 60, 40, 24), (845, 132, 78, 22), (880, 168, 100, 14), (920, 176, 110, 8), (980, 168, 106, 4), (1050, 155, 101, 3),
     (1120, 145, 98, 2), (1200, 153, 104, 1), (1280, 162, 109, 0), (1350, 166, 106, 4), (1400, 164, 95, 12),
     (1432, 146, 80, 20), (1455, 112, 70, 22), (1478, 78, 64, 20), (1500, 61, 59, 15), (1560, 57, 60, 10),
     (1615, 57, 60, 8)), 2.5,
)  # fmt: skip
FACE: Final = Loft(
    ((1516, 26, 20, -70), (1530, 44, 38, -55), (1555, 60, 60, -34), (1600, 68, 80, -16), (1640, 72, 92, -7), (1670, 74, 94, -4))
)
SKULL_CENTRE: Final[Point] = (0.0, -2.0, 1659.0)
SKULL_RADII: Final[Point] = (77.0, 97.0, 92.0)
ABDOMEN: Final = Loft(
    ((868, 36, 32, 10), (890, 50, 42, 4), (930, 62, 58, -8), (980, 100, 70, -8), (1040, 112, 64, -10), (1100, 112, 64, -8),
     (1160, 117, 73, -2), (1240, 124, 82, 2), (1262, 120, 78, 2)), 2.3,
)  # fmt: skip
DOME_TOP_MM: Final = (1250.0, 1238.0)
"""Height of the diaphragm's right and left dome."""
MID_THIGH_MM: Final = 640.0
SKULL_BASE_MM: Final = 1640.0
"""Ends of the skull-base-to-mid-thigh field of view: autoPET's show the orbits and the proximal half of the femora."""


@dataclass(frozen=True)
class Figure:
    """The person: everything of the body that a seed or an option decides, in reference millimetres."""

    sex: Sex
    arms: ArmPosition
    fat_mm: float
    """Subcutaneous fat of the trunk beyond a slim person's; limbs have less of it."""
    left: ArmPose
    right: ArmPose
    bladder_mm: float
    heart_mm: float


@dataclass(frozen=True)
class Part:
    """A piece of the outline: a solid that can be drawn smaller, and the fat under its skin."""

    shape: Literal["loft", "cone", "ellipsoid"]
    numbers: tuple[object, ...]
    slim_fat_mm: float
    fat_share: float
    is_arm: bool = False

    def region(self, canvas: Canvas, shrink_mm: float) -> Region:
        """The solid, smaller by ``shrink_mm``."""
        if self.shape == "loft":
            return canvas.loft(self.numbers[0], shrink_mm)  # type: ignore[arg-type]
        if self.shape == "ellipsoid":
            return canvas.ellipsoid(*self.numbers, shrink_mm)  # type: ignore[arg-type]
        start, end, first, last = self.numbers
        return canvas.cone(start, end, first - shrink_mm, last - shrink_mm)  # type: ignore[arg-type, operator]


def draw_figure(figure: Figure, rng: np.random.Generator) -> tuple[ArmPosition, ...]:
    raise NotImplementedError
