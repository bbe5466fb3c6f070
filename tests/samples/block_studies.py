"""Studies of blocks of tissue and of phantoms: references that a worker process can load, good ones and faulty ones."""

import os
import signal
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from training.data.study import TrainingStudy
from training.phantom.phantom import Phantom, make_phantom, sample_options
from twin_scanner.districts.district_map import DistrictMap
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import Geometry, Triple, Volume
from twin_scanner.models.plan import Plan

COARSE = Plan(spacing_mm=(12.0, 11.0, 10.0))
"""Not the grid of the blocks."""
GRID = Geometry((24, 30, 28), (6.0, 4.0, 5.0), (-70.0, -60.0, 10.0), ((0, 0, -1), (0, 1, 0), (1, 0, 0)))
HOT_SUV = 3.0
Fault = Literal["none", "unreadable", "cold", "hot", "flat", "short pet", "no body", "kills its process"]


@dataclass(frozen=True)
class Block:
    """A block of tissue on a grid of 20,000 voxels, or one that a ``fault`` spoils; ``files`` is its source."""

    name: str
    patient: str
    diagnosis: str = "NEGATIVE"
    seed: int = 0
    fault: Fault = "none"
    files: Path | None = None
    annotated: bool = True

    def load(self) -> TrainingStudy:
        if self.fault == "unreadable":
            raise Rejected("SUV.nii.gz cannot be read: copy the study again.")
        if self.fault == "kills its process":
            os.kill(os.getpid(), signal.SIGKILL)
        random = np.random.default_rng(self.seed)
        ct = np.full(GRID.shape, -1000.0, np.float32)
        suv = np.zeros(GRID.shape, np.float32)
        body = (slice(2, 22), slice(5, 25), slice(4, 20))
        if self.fault != "no body":
            ct[body] = random.normal(40.0, 30.0, ct[body].shape)
        suv[body] = random.uniform(0.2, 2.5, suv[body].shape)
        suv[body] *= {"cold": 0.01, "hot": 1000.0}.get(self.fault, 1.0)
        if self.fault == "flat":
            suv[body] = 0.9
        lesions = (suv > 2.4).astype(np.uint8) if self.annotated else None
        truth = (ct > -500).astype(np.uint8)
        truth[12:] *= 2
        pet = Volume(suv, GRID)
        if self.fault == "short pet":
            pet, lesions = pet.cropped((slice(0, 12), slice(0, 30), slice(0, 28))), None
        return TrainingStudy(Volume(ct, GRID), pet, "phantom", lesions, truth)


@cache
def trunk() -> Phantom:
    """Thighs to neck, arms up, coarse but enough for a registration."""
    options = replace(sample_options(5, spacing_mm=(6.0, 5.0, 5.0)), field_of_view=(950.0, 1500.0), arms="up")
    return make_phantom(5, options)


@dataclass(frozen=True)
class MovedPhantom:
    """A phantom of a trunk whose patient moved between CT and PET: turned about the field's middle, then shifted.

    Its hot organs stand for lesions.
    """

    angle_deg: float
    shift_mm: Triple
    name: str = "moved"
    patient: str = "phantom-5"
    diagnosis: str = "NEGATIVE"

    def load(self) -> TrainingStudy:
        phantom = trunk()
        pet = Volume(phantom.pet.array, self.moved(phantom.geometry))
        return TrainingStudy(
            phantom.ct, pet, "phantom", (phantom.pet.array > HOT_SUV).astype(np.uint8), phantom.districts
        )

    def moved(self, geometry: Geometry) -> Geometry:
        """Where the voxels of a PET lie that shows the tissue of this grid after the motion."""
        turn = Rotation.from_euler("z", self.angle_deg, degrees=True)
        d, h, w = ((n - 1) / 2 for n in geometry.shape)
        middle = np.asarray(geometry.position_lps_mm((d, h, w)))
        origin = turn.apply(np.asarray(geometry.origin_lps_mm) - middle) + middle + np.asarray(self.shift_mm)
        depth, height, width = turn.apply(np.asarray(geometry.direction))
        axes = (_triple(depth), _triple(height), _triple(width))
        return replace(geometry, origin_lps_mm=_triple(origin), direction=axes)


def _triple(values: npt.NDArray[np.float64]) -> Triple:
    x, y, z = (float(value) for value in values)
    return x, y, z


class DensitySegmenter:
    """Everything denser than air is trunk."""

    name = "density"
    segmenter_hash = "d" * 64

    def segment(self, ct: Volume) -> DistrictMap:
        return DistrictMap((ct.array > -500).astype(np.uint8) * 2, ct.geometry, self.name, self.segmenter_hash)


def some(count: int, fault: Fault = "none") -> list[Block]:
    """Studies of ``count`` patients."""
    return [Block(f"study-{seed}", f"patient-{seed}", seed=seed, fault=fault) for seed in range(count)]
