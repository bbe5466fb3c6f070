"""The Plan, and the only conversions of HU and SUV to model space and back: serving and training share them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import AIR_HU, FloatArray, Geometry, Triple, Volume, resample

SOFT_TISSUE_WINDOW_HU: Final = (-160.0, 240.0)
"""What maps to [0, 1] in the soft-tissue channel, whatever the Plan's own window: muscle and liver lie .03 apart."""

SLAB_PLANES: Final = 32
"""Slices of the target that a CT is resampled to at a time."""


@dataclass(frozen=True)
class Plan:
    """How images enter and leave a network; frozen, and hashed into the model's name.

    ``spacing_mm`` is the grid along (D, H, W): autoPET's 3 x 2.04 x 2.04 mm. The CT window maps to [0, 1]
    (``window``), or each volume's own minimum and maximum do (``per-volume``, the paper's min-max). PET: SUV 0 to
    ``suv_max`` maps to [0, 1]. ``training_grid`` says on whose voxels the pairs lie that the networks are trained on:
    the PET's own where they have this spacing, so that the truth is not interpolated (paper II-B), or always on a grid
    laid on the CT, as service lays it.
    """

    spacing_mm: Triple = (3.0, 2.04, 2.04)
    ct_scaling: Literal["window", "per-volume"] = "window"
    hu_low: float = AIR_HU
    hu_high: float = 1024.0
    suv_max: float = 20.0
    training_grid: Literal["pet", "ct"] = "pet"

    def __post_init__(self) -> None:
        if self.hu_high <= self.hu_low or self.suv_max <= 0 or min(self.spacing_mm) <= 0:
            raise Rejected("The Plan is impossible: the HU window, the SUV range and the spacing must be positive.")

    @property
    def plan_hash(self) -> str:
        """SHA-256 of the Plan's canonical JSON."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()

    def serves_like(self, other: "Plan") -> bool:
        """Whether a network of one is given the same images in service as one of the other: the training grid aside."""
        return replace(self, training_grid=other.training_grid) == other

    def as_json(self) -> dict[str, Any]:
        """The Plan as files hold it and as it is hashed.

        A ``training_grid`` of the CT is left out: versions that knew no other wrote none, and their models keep their
        names.
        """
        entries = {**asdict(self), "spacing_mm": list(self.spacing_mm)}
        if self.training_grid == "ct":
            del entries["training_grid"]
        return entries


def plan_from_json(entries: Mapping[str, Any]) -> Plan:
    """The Plan that ``as_json`` wrote, in this version or an earlier one.

    Raises KeyError, TypeError or ValueError where it is none, and Rejected where it is impossible.
    """
    d, h, w = (float(spacing) for spacing in entries["spacing_mm"])
    return Plan(**{"training_grid": "ct", **entries, "spacing_mm": (d, h, w)})


def grid(geometry: Geometry, plan: Plan) -> Geometry:
    """The Plan's grid over the field of view of a canonical CT."""
    return geometry.with_spacing(plan.spacing_mm)


def ct_on_grid(ct: Volume, plan: Plan) -> Volume:
    """A CT in HU, turned to canonical axes and resampled to the Plan's grid over its own field of view."""
    upright = ct.canonical()
    return resampled_ct(upright, grid(upright.geometry, plan))


def resampled_ct(ct: Volume, target: Geometry) -> Volume:
    """A CT in HU resampled (trilinear) to a grid, in service and for training.

    The values are whole HU, as scanners store them: so a training pair kept as int16 and a CT in service give a
    network the same bytes. Zero is never negative, for -0.0 is another byte. Slab by slab, so that no second copy of
    the CT is ever held.
    """
    whole = np.empty(target.shape, np.float32)
    depth, height, width = target.shape
    for first in range(0, depth, SLAB_PLANES):
        planes = slice(first, min(first + SLAB_PLANES, depth))
        slab = target.cropped((planes, slice(0, height), slice(0, width)))
        np.rint(resample(_around(ct, slab), slab, outside=AIR_HU).array, out=whole[planes])
    whole += np.float32(0.0)
    return Volume(whole, target)


def _around(ct: Volume, slab: Geometry) -> Volume:
    """The slices of a CT that the voxels of a slab are interpolated from, and one more at each end."""
    edges = [(0, length - 1) for length in slab.shape]
    corners = np.array([[d, h, w, 1.0] for d in edges[0] for h in edges[1] for w in edges[2]]).T
    along_d = (np.linalg.inv(ct.geometry.affine) @ slab.affine @ corners)[0]
    depth, height, width = ct.geometry.shape
    first = min(max(0, int(np.floor(along_d.min())) - 1), depth - 1)
    end = max(min(depth, int(np.ceil(along_d.max())) + 2), first + 1)
    return ct.cropped((slice(first, end), slice(0, height), slice(0, width)))


def ct_to_model(hu: FloatArray, plan: Plan) -> FloatArray:
    """HU to model space [0, 1], clipped; 0 is the window's lower end, air."""
    low, high = (plan.hu_low, plan.hu_high) if plan.ct_scaling == "window" else (float(hu.min()), float(hu.max()))
    scaled = (hu - np.float32(low)) / np.float32(hu_divisor(low, high))
    return np.clip(scaled, 0.0, 1.0, dtype=np.float32)


def hu_divisor(low: float, high: float) -> float:
    """What HU above ``low`` are divided by; an image of one value all over has a range of 0."""
    return max(high - low, 1e-6)


def ct_to_soft_tissue(hu: FloatArray) -> FloatArray:
    """HU in the soft-tissue window to model space [0, 1], clipped; the same for every Plan."""
    low, high = SOFT_TISSUE_WINDOW_HU
    return np.clip((hu - np.float32(low)) / np.float32(high - low), 0.0, 1.0, dtype=np.float32)


def suv_to_model(suv: FloatArray, plan: Plan) -> FloatArray:
    """SUV in g/ml to model space [0, 1], clipped."""
    return np.clip(suv / np.float32(plan.suv_max), 0.0, 1.0, dtype=np.float32)


def model_to_suv(values: FloatArray, plan: Plan) -> FloatArray:
    """Model space [0, 1] to SUV in g/ml."""
    return np.clip(values, 0.0, 1.0, dtype=np.float32) * np.float32(plan.suv_max)
