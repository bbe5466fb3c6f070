"""Which CT evidence explains the uptake of a voxel, a lesion or a district: attributions of the served PET."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import FeatureAblation, IntegratedGradients
from torch import Tensor, nn

from twin_scanner.errors import Defect, Rejected
from twin_scanner.imaging.district_labels import DISTRICT_NAMES, label_name
from twin_scanner.imaging.volume import FloatArray, Geometry, LabelArray, Shape, Triple, Volume, read_nifti_labels
from twin_scanner.models.card import Stitching
from twin_scanner.models.inputs import ct_channels, surroundings
from twin_scanner.models.networks import WINDOW
from twin_scanner.models.package import ModelPackage
from twin_scanner.progress import Progress
from twin_scanner.synthesis.translate import (
    Around,
    cube,
    padded,
    region_of,
    total_weights,
    window_inputs,
    window_weights,
    windows_touching,
)

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Method: TypeAlias = Literal["integrated-gradients", "occlusion"]
Baseline: TypeAlias = Literal["air", "soft-tissue"]

SOFT_TISSUE_HU: Final = 40.0
"""Muscle and parenchyma without contrast."""
STEPS: Final = (32, 64, 128)
"""Points along the path, tried one after the other until the attribution is complete."""
COMPLETE: Final = 0.03
"""An attribution may miss the difference that it explains by this share of it before more steps are taken."""
BLOCK_VOXELS: Final = 8
"""Edge of what occlusion removes at once: 24 x 16 x 16 mm on the default grid."""
BATCH_WINDOWS: Final = 8
BATCH_EXAMPLES: Final = 16
"""Windows a pass forward and back: memory, not speed."""
NIFTI_NAME: Final = re.compile(r"(?P<file>.+\.nii(\.gz)?)(:(?P<label>\d{1,3}))?")
NUMBER: Final = r"\s*([+-]?\d+(?:\.\d+)?)\s*"
PLACE: Final = re.compile(rf"(?P<unit>mm|voxel):{NUMBER},{NUMBER},{NUMBER}")


@dataclass(frozen=True, eq=False)
class Target:
    """What is explained: the mean SUV over ``mask`` (D, H, W) on the Plan's grid.

    Voxels of the mask that no network covers count with the SUV 0 that is served there.
    """

    name: str
    mask: BoolArray


@dataclass(frozen=True, eq=False)
class Explanation:
    """What each voxel of the CT (Plan's grid) added to the target's mean SUV, compared with a CT of the baseline.

    Integrated gradients: SUV (g/ml) per voxel, which sum to ``suv - suv_baseline`` but for ``completeness_error``.
    Occlusion: every voxel holds the SUV that the target loses when the block of ``block`` voxels an edge around it
    becomes the baseline; blocks do not sum. ``suv`` is the target's mean SUV as served. A voxel's channels count
    together, for they are one CT; the context of a network that sees one stays as it is, in the baseline too.
    """

    attribution: Volume
    target: Target
    method: Method
    baseline: Baseline
    suv: float
    suv_baseline: float
    completeness_error: float | None = None
    block: int | None = None

    @property
    def centre(self) -> Shape:
        """The voxel of the target that is nearest to its middle."""
        inside = np.argwhere(self.target.mask)
        d, h, w = inside[np.square(inside - inside.mean(axis=0)).sum(axis=1).argmin()]
        return int(d), int(h), int(w)

    @property
    def complete(self) -> bool:
        """Whether the attribution sums to what it explains, within COMPLETE; occlusion never promises that."""
        tolerance = COMPLETE * abs(self.suv - self.suv_baseline)
        return self.completeness_error is not None and abs(self.completeness_error) <= tolerance

    @property
    def unit(self) -> str:
        """The unit of the values of ``attribution``."""
        return "SUV per voxel" if self.method == "integrated-gradients" else "SUV per occluded block"

    def as_json(self) -> dict[str, object]:
        """The report's entry."""
        magnitude = np.abs(self.attribution.array)
        total = float(magnitude.sum(dtype=np.float64))
        strongest = np.unravel_index(int(magnitude.argmax()), magnitude.shape)
        place = self.attribution.geometry.position_lps_mm(
            (float(strongest[0]), float(strongest[1]), float(strongest[2]))
        )
        inside = float(magnitude[self.target.mask].sum(dtype=np.float64)) / total if total else 0.0
        return {
            "files": ["explanation.nii.gz", "explanation.png"],
            "target": self.target.name,
            "target_voxels": int(np.count_nonzero(self.target.mask)),
            "method": self.method,
            "unit": self.unit,
            "baseline": self.baseline,
            "block_voxels": self.block,
            "suv_mean": round(self.suv, 4),
            "suv_mean_of_baseline": round(self.suv_baseline, 4),
            "completeness_error_suv": None if self.completeness_error is None else round(self.completeness_error, 6),
            "complete": self.complete if self.block is None else None,
            "share_inside_target": round(inside, 4),
            "strongest_lps_mm": [round(value, 1) for value in place],
        }


@dataclass(frozen=True, eq=False)
class _Batch:
    """Windows of one network: CT and baseline in model space, (N, C, 32, 32, 32), and what goes with each.

    ``others`` are the target's weights in SUV, (N, 1, 32, 32, 32), and the contexts where the network sees them.
    """

    network: nn.Module
    starts: tuple[Shape, ...]
    ct: Tensor
    baseline: Tensor
    others: tuple[Tensor, ...]

    def forward(self, ct: Tensor, weight: Tensor, *context: Tensor) -> Tensor:
        """What each window adds to the target's mean SUV, (N,)."""
        pet: Tensor = self.network(ct, *context)
        return (pet * weight).sum(dim=(1, 2, 3, 4))

    def sums(self, ct: Tensor) -> Tensor:
        """The same of the batch's own windows with another CT."""
        return self.forward(ct, *self.others)


def find_target(
    text: str, districts: LabelArray, geometry: Geometry, names: Mapping[int, str] = DISTRICT_NAMES
) -> Target:
    """What a user names: ``voxel:D,H,W``, ``mm:X,Y,Z`` (LPS), FILE.nii.gz[:LABEL] on the PET's grid, or a district.

    Without a label a file's every voxel above 0 is meant. Raises Rejected where it names nothing inside the body.
    """
    place, file = PLACE.fullmatch(text), NIFTI_NAME.fullmatch(text)
    if place is not None:
        numbers = float(place[2]), float(place[3]), float(place[4])
        return voxel_target(text, numbers if place["unit"] == "voxel" else _index(numbers, geometry), districts)
    if file is not None:
        labels, grid = read_nifti_labels(Path(file["file"]))
        wanted = labels == int(file["label"]) if file["label"] else labels > 0
        return mask_target(Path(text).name, wanted, grid, districts, geometry)
    return district_target(text, districts, names)


def voxel_target(name: str, index: Triple, districts: LabelArray) -> Target:
    """The voxel at an index (d, h, w), rounded; raises Rejected where it is outside the image or the body."""
    nearest = tuple(round(value) for value in index)
    if any(not 0 <= value < length for value, length in zip(nearest, districts.shape, strict=True)):
        raise Rejected(f"The target '{name}' lies outside the image: give a place inside the body.")
    mask = np.zeros(districts.shape, np.bool_)
    mask[nearest] = True
    return _inside(Target(name, mask), districts)


def mask_target(name: str, mask: BoolArray, grid: Geometry, districts: LabelArray, geometry: Geometry) -> Target:
    """A lesion's mask; raises Rejected where it is not on the synthetic PET's grid, is empty or misses the body."""
    if not grid.same_grid(geometry):
        raise Rejected(f"The mask '{name}' lies on another grid than the synthetic PET: draw it on pet.nii.gz.")
    return _inside(Target(name, mask), districts)


def district_target(name: str, districts: LabelArray, names: Mapping[int, str] = DISTRICT_NAMES) -> Target:
    """A whole district by name; raises Rejected where the CT does not show it."""
    there = {label_name(int(label), names): int(label) for label in np.unique(districts) if label}
    if name not in there:
        raise Rejected(
            f"'{name}' is no target: give voxel:D,H,W, mm:X,Y,Z, a .nii.gz mask or one of {', '.join(there) or 'none'}."
        )
    return Target(name, districts == there[name])


def explain(
    ct: Volume,
    districts: LabelArray,
    package: ModelPackage,
    target: Target,
    *,
    method: Method = "integrated-gradients",
    baseline: Baseline = "air",
    block: int = BLOCK_VOXELS,
    stitching: Stitching | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Attribute the target's mean SUV to the CT (HU) on the Plan's grid, ``SyntheticPet.ct`` and ``.districts``.

    The served SUV is linear in the windows' outputs (masked, averaged, stitched), so the attributions of all windows
    that touch the target add up to that of the served value: integrated gradients by Sundararajan et al. 2017,
    equation 1; occlusion by Zeiler and Fergus 2014, section 4.2, in blocks of one grid over the whole image. Outside
    the districts of a network its CT is masked and has no part. ``progress`` receives (windows done, windows in all).
    Raises Rejected where nothing was synthesised in the target.
    """
    if not ct.array.shape == districts.shape == target.mask.shape:
        raise ValueError(f"CT {ct.array.shape}, districts {districts.shape} and target differ in grid")
    served = _Served(ct, districts, package, target, baseline, stitching or package.card.stitching)
    if not served.windows:
        raise Rejected(f"Model '{package.name}' synthesised nothing in '{target.name}': choose a district it covers.")
    suv, suv_baseline = served.outputs()
    if method == "occlusion":
        total = served.occluded(block, progress)
    else:
        total = served.integrated(COMPLETE * abs(suv - suv_baseline), progress)
    if not np.isfinite(total).all():
        raise Defect(f"Model {package.model_hash[:12]} gives gradients that are not finite: take it out of service.")
    attribution = Volume(np.ascontiguousarray(total[served.inner]), ct.geometry)
    if method == "occlusion":
        return Explanation(attribution, target, method, baseline, suv, suv_baseline, block=block)
    error = float(total.sum(dtype=np.float64)) - (suv - suv_baseline)
    return Explanation(attribution, target, method, baseline, suv, suv_baseline, completeness_error=error)


class _Served:
    """The windows of a translation that touch the target, as batches, and what each voxel of them weighs."""

    def __init__(
        self,
        ct: Volume,
        districts: LabelArray,
        package: ModelPackage,
        target: Target,
        baseline: Baseline,
        stitching: Stitching,
    ) -> None:
        self.inner, self._channels, labels = padded(
            ct_channels(ct.array, package.plan, package.architecture), districts
        )
        self.shape = labels.shape
        seen = package.architecture.context
        self._around = Around(surroundings(self._channels, labels), torch.device("cpu")) if seen else None
        self._level = _baseline_level(ct, package, baseline)
        share = np.zeros(self.shape, np.float32)
        share[self.inner] = target.mask * np.float32(package.plan.suv_max / np.count_nonzero(target.mask))
        self._weights = window_weights(stitching)
        for plane, whole in zip(share, total_weights(self.shape, self._weights), strict=True):
            plane /= whole
        self._share = share
        self._suv_max = package.plan.suv_max
        self._synthesised = np.zeros(self.shape, np.bool_)
        self._works = []
        for name, covered in package.partition.networks.items():
            region = region_of(labels, covered, self.inner)
            self._synthesised |= region
            self._works.append((package.networks[name], region, windows_touching(region & (share > 0))))

    @property
    def windows(self) -> int:
        """How many windows touch the target."""
        return sum(len(starts) for _, _, starts in self._works)

    def outputs(self) -> tuple[float, float]:
        """The target's mean SUV as served, and of the baseline."""
        suv, suv_baseline = 0.0, 0.0
        for batch in self._batches(None):
            with torch.no_grad():
                suv += float(batch.sums(batch.ct).double().sum())
                suv_baseline += float(batch.sums(batch.baseline).double().sum())
        return suv, suv_baseline

    def integrated(self, tolerance_suv: float, progress: Progress | None) -> FloatArray:
        """Integrated gradients, SUV per voxel; the sum misses completeness by ``tolerance_suv`` where steps allow."""
        total = np.zeros(self.shape, np.float32)
        for batch in self._batches(progress):
            part = float(batch.others[0].sum()) / self._suv_max
            for start, values in zip(batch.starts, _integrated(batch, tolerance_suv * part), strict=True):
                total[cube(start)] += values
        return total

    def occluded(self, block: int, progress: Progress | None) -> FloatArray:
        """The SUV that each voxel's block takes away; 0 where nothing is synthesised."""
        blocks = _Blocks(self.shape, block)
        for batch in self._batches(progress):
            blocks.add(batch)
        return blocks.spread() * self._synthesised

    def _batches(self, progress: Progress | None) -> Iterator[_Batch]:
        """All windows, network by network; ``progress`` receives each batch when the next is asked for."""
        done = 0
        for network, region, starts in self._works:
            for at in range(0, len(starts), BATCH_WINDOWS):
                batch = self._batch(network, region, tuple(starts[at : at + BATCH_WINDOWS]))
                yield batch
                done += len(batch.starts)
                if progress is not None:
                    progress(done, self.windows)

    def _batch(self, network: nn.Module, region: BoolArray, starts: tuple[Shape, ...]) -> _Batch:
        device = next(network.parameters()).device
        masks = np.stack([region[cube(start)] for start in starts])[:, None]
        weight = np.stack([self._share[cube(start)] * self._weights for start in starts])[:, None]
        given = window_inputs(torch.from_numpy(self._channels), torch.from_numpy(region), self._around, starts)
        inputs = [part.numpy() for part in given]
        baseline = np.asarray(np.ones_like(inputs[0]) * self._level * masks, np.float32)
        ct, level, *others = (
            torch.from_numpy(values).to(device) for values in (inputs[0], baseline, weight * masks, *inputs[1:])
        )
        return _Batch(network, starts, ct, level, tuple(others))


class _Blocks:
    """The SUV that each block of a grid over the whole image takes away, summed over the windows that hold a part."""

    def __init__(self, shape: tuple[int, ...], edge: int) -> None:
        if not 1 <= edge <= WINDOW:
            raise Rejected(f"Occlusion in blocks of {edge} voxels is impossible: choose 1 to {WINDOW}.")
        self._shape, self._edge = shape, edge
        self._lost = np.zeros([-(-length // edge) for length in shape], np.float64)

    def add(self, batch: _Batch) -> None:
        """Occlude, window by window, every block that differs from the baseline."""
        ablation = FeatureAblation(batch.forward)
        for number, start in enumerate(batch.starts):
            ct, baseline, *others = (t[number : number + 1] for t in (batch.ct, batch.baseline, *batch.others))
            changed = (ct != baseline)[0].any(0).cpu().numpy()
            blocks = self._numbers(start)
            found, features = np.unique(np.where(changed, blocks, -1), return_inverse=True)
            mask = torch.from_numpy(features.reshape(1, 1, *changed.shape)).to(ct.device)
            with torch.no_grad():
                lost = ablation.attribute(
                    ct,
                    baselines=baseline,
                    additional_forward_args=tuple(others),
                    feature_mask=mask,
                    perturbations_per_eval=BATCH_EXAMPLES,
                )
            first = np.unique(features, return_index=True)[1]
            values = lost[0, 0].flatten().double().cpu().numpy()[first]
            np.add.at(self._lost.reshape(-1), found[found >= 0], values[found >= 0])

    def spread(self) -> FloatArray:
        """Every voxel with its block's number."""
        whole = self._lost.astype(np.float32)
        for axis in range(3):
            whole = whole.repeat(self._edge, axis=axis)
        d, h, w = self._shape
        return np.ascontiguousarray(whole[:d, :h, :w])

    def _numbers(self, start: Shape) -> npt.NDArray[np.int64]:
        """The number of each voxel's block in one window (32, 32, 32)."""
        d, h, w = (np.arange(first, first + WINDOW) // self._edge for first in start)
        _, high, wide = self._lost.shape
        return np.asarray((d[:, None, None] * high + h[:, None]) * wide + w, np.int64)


def _integrated(batch: _Batch, tolerance_suv: float) -> FloatArray:
    """Integrated gradients of a batch, (N, 32, 32, 32), with as many steps as completeness takes."""
    gradients = IntegratedGradients(batch.forward)
    with torch.no_grad():
        change = batch.sums(batch.ct) - batch.sums(batch.baseline)
    explained, values = float(change.double().sum()), np.zeros(0, np.float32)
    for steps in STEPS:
        attributed = gradients.attribute(
            batch.ct.clone().requires_grad_(),
            baselines=batch.baseline,
            additional_forward_args=batch.others,
            n_steps=steps,
            internal_batch_size=BATCH_EXAMPLES,
        )
        values = attributed.detach().sum(1).float().cpu().numpy()
        if abs(float(values.sum(dtype=np.float64)) - explained) <= tolerance_suv:
            break
    return values


def _baseline_level(ct: Volume, package: ModelPackage, baseline: Baseline) -> FloatArray:
    """The baseline in model space, (C, 1, 1, 1); the image's own range decides where the Plan scales by volume."""
    if baseline == "air":
        return np.zeros((package.architecture.channels, 1, 1, 1), np.float32)
    low, high = float(ct.array.min()), float(ct.array.max())
    values = np.asarray([low, min(max(SOFT_TISSUE_HU, low), high), high], np.float32)
    return ct_channels(values, package.plan, package.architecture)[:, 1, None, None, None]


def _index(position_lps_mm: Triple, geometry: Geometry) -> Triple:
    d, h, w = (np.linalg.inv(geometry.affine) @ np.asarray([*position_lps_mm, 1.0]))[:3]
    return float(d), float(h), float(w)


def _inside(target: Target, districts: LabelArray) -> Target:
    if not target.mask.any():
        raise Rejected(f"The target '{target.name}' holds no voxel: choose another label or mask.")
    if not districts[target.mask].any():
        raise Rejected(f"The target '{target.name}' lies outside the body: give a place inside it.")
    return target
