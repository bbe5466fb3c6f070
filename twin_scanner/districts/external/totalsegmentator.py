"""Four districts from TotalSegmentator's `total` and `body` label maps, and the segmenter that runs it offline."""

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from scipy import ndimage

from twin_scanner.districts.coarse_grid import to_ct_grid, to_upright, upright_spacing_mm
from twin_scanner.districts.completion import completed
from twin_scanner.districts.district_map import DistrictMap
from twin_scanner.districts.external.network_process import Weights, run_network
from twin_scanner.districts.landmarks.skull import CHIN_SLOPE
from twin_scanner.districts.morphology import BoolArray, depth_mm
from twin_scanner.errors import Misconfigured, Rejected
from twin_scanner.imaging.district_labels import DISTRICT_LABELS
from twin_scanner.imaging.volume import FloatArray, Geometry, LabelArray, Triple, Volume

TRUNK_BODY, EXTREMITIES = 1, 2
"""Labels of the task `body`."""
BRAIN, SKULL = 90, 91
HUMERI: Final = (69, 70)
FEMORA: Final = (75, 76)
HIPS: Final = (77, 78)
SHOULDER_GIRDLE: Final = (71, 72, 73, 74)
"""Scapulae and clavicles; all these are labels of the task `total`, version 2."""
TRUNK_BONES: Final = (*SHOULDER_GIRDLE, *range(25, 51), *range(92, 118))
"""These, with sacrum, vertebrae, ribs and sternum, are the bones that the arm is separated from at the shoulder."""
SHOULDER_MM: Final = 60.0
"""Flesh of the arm lies within this of the humerus."""
STEP_MM: Final = 4.0
DATASETS: Final = {
    True: ("Dataset297_", "Dataset300_"),
    False: tuple(f"Dataset{n}_" for n in (291, 292, 293, 294, 295, 299)),
}
"""Folders of the weights, by ``fast``: `total` at 3 mm and `body` at 6 mm, or both at 1.5 mm."""
VERSION: Final = "1"


@dataclass(frozen=True)
class TotalSegmentatorSegmenter:
    """Districts derived from two tasks of TotalSegmentator; ``weights`` holds its Dataset folders.

    The weights are verified as MOOSE's are (``sha256``). No usage statistics are sent and nothing is downloaded.
    """

    weights: Path | None
    sha256: str
    device: str = "cpu"
    fast: bool = True
    timeout_s: float = 1800.0
    name: str = "totalsegmentator"

    @property
    def segmenter_hash(self) -> str:
        """SHA-256 of the weights' hash, the tasks' resolution and the rules' version."""
        text = json.dumps(
            {"name": self.name, "version": VERSION, "fast": self.fast, "weights": self.sha256}, sort_keys=True
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def segment(self, ct: Volume) -> DistrictMap:
        """The districts on ``ct.geometry``; raises Rejected with what is missing, Transient where the process dies."""
        if (sentence := package_missing()) is not None:
            raise Misconfigured(sentence)
        with find_weights(self.weights, fast=self.fast).verified_copy(self.sha256) as trusted:
            request = {"segmenter": self.name, "weights": str(trusted), "device": self.device, "fast": self.fast}
            found = run_network(
                "twin_scanner.districts.external.totalsegmentator_process",
                ct,
                request,
                ("total", "body"),
                self.timeout_s,
            )
        districts = derive_districts(found["total"], found["body"], ct.geometry)
        return DistrictMap(completed(districts, ct), ct.geometry, self.name, self.segmenter_hash)


def missing(weights: Path | None, sha256: str, *, fast: bool = True) -> str | None:
    """What keeps TotalSegmentator from running, as one sentence that says what to do; None where it is ready."""
    if (sentence := package_missing()) is not None:
        return sentence
    try:
        return find_weights(weights, fast=fast).fault(sha256)
    except Rejected as error:
        return str(error)


def package_missing() -> str | None:
    """The sentence for a missing TotalSegmentator; None where it is installed."""
    if importlib.util.find_spec("totalsegmentator") is None:
        return (
            "The segmenter 'totalsegmentator' needs its package, which is not installed: "
            "pip install 'twin-scanner[totalsegmentator]'."
        )
    return None


def find_weights(weights: Path | None, *, fast: bool) -> Weights:
    """All files of the tasks' weights; raises Rejected, with what to do, where a Dataset folder is not there."""
    if weights is None:
        raise Misconfigured(f"The segmenter 'totalsegmentator' needs its weights: {_where(fast)}")
    files: list[Path] = []
    for prefix in DATASETS[fast]:
        folders = sorted(weights.glob(f"{prefix}*"))
        found = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
        if not any(file.suffix == ".pth" for file in found):
            raise Misconfigured(f"{weights} holds no weights of {prefix.rstrip('_')}: {_where(fast)}")
        files += found
    return Weights("totalsegmentator", weights, tuple(files))


def derive_districts(total: LabelArray, body: LabelArray, geometry: Geometry) -> LabelArray:
    """Head 1, trunk 2, arms 3, legs 4 (D, H, W) from the two label maps on the same grid, whatever its orientation.

    The borders are those of docs/segmenters.md: head above the plane of mandible and occiput (the skull's lowest
    points), arms from the shoulder joint outward (what is nearer to a humerus than to the trunk's bones), legs below
    the ischia (the hip bones' lowest points). 0 where `body` is 0.
    """
    spacing = upright_spacing_mm(geometry)
    steps = tuple(max(1, round(STEP_MM / s)) for s in spacing)
    sample = tuple(slice(step // 2, None, step) for step in steps)
    coarse_total, coarse_body = (to_upright(labels, geometry)[sample] for labels in (total, body))
    step_mm = (spacing[0] * steps[0], spacing[1] * steps[1], spacing[2] * steps[2])
    coarse = _derived(np.ascontiguousarray(coarse_total), np.ascontiguousarray(coarse_body), step_mm)
    shape = to_upright(body, geometry).shape
    fine = coarse
    for axis in (2, 1, 0):
        index = np.minimum(np.arange(shape[axis]) // steps[axis], coarse.shape[axis] - 1)
        fine = np.take(fine, index, axis=axis)
    return np.where(body > 0, to_ct_grid(np.ascontiguousarray(fine), geometry), np.uint8(0))


def _derived(total: LabelArray, body: LabelArray, spacing_mm: Triple) -> LabelArray:
    inside = ndimage.binary_dilation(body > 0)
    districts = np.where(inside, np.uint8(DISTRICT_LABELS["trunk"]), np.uint8(0))
    legs_below = _legs_below(total)
    districts[:legs_below][inside[:legs_below]] = DISTRICT_LABELS["legs"]
    districts[inside & _head(total, spacing_mm)] = DISTRICT_LABELS["head"]
    districts[inside & _arms(total, body, spacing_mm)] = DISTRICT_LABELS["arms"]
    return districts


def _legs_below(total: LabelArray) -> int:
    """First slice of the trunk: the hip bones' lowest; where none is in view, above the femora, or no legs at all."""
    hips = _slices(np.isin(total, HIPS))
    femora = _slices(np.isin(total, FEMORA))
    if hips.size:
        return int(hips[0]) if femora.size and femora[0] < hips[0] else 0
    return int(total.shape[0]) if femora.size else 0


def _head(total: LabelArray, spacing_mm: Triple) -> BoolArray:
    """The part above the plane through the skull's lowest points in front and behind; none without a skull."""
    skull = np.isin(total, (SKULL, BRAIN))
    if not skull.any():
        return np.zeros(total.shape, np.bool_)
    rows = np.flatnonzero(skull.any(axis=(0, 2)))
    middle = (rows[0] + rows[-1]) // 2
    front, back = skull[:, :middle], skull[:, middle:]
    slope = CHIN_SLOPE * spacing_mm[1] / spacing_mm[0]
    occiput = _slices(back)
    chin = _slices(front)
    if not occiput.size or not chin.size:
        level = int((occiput if occiput.size else chin)[0])
        return np.broadcast_to((np.arange(len(total)) >= level)[:, None, None], total.shape)
    chin_row = float(np.mean(np.flatnonzero(front[chin[0]].any(axis=1))))
    occiput_row = middle + float(np.max(np.flatnonzero(back[occiput[0]].any(axis=1))))
    if occiput_row > chin_row:
        slope = (float(occiput[0]) - float(chin[0])) / (occiput_row - chin_row)
    slices, rows_of = np.meshgrid(np.arange(total.shape[0]), np.arange(total.shape[1]), indexing="ij")
    above = slices >= chin[0] + slope * (rows_of - chin_row)
    return np.broadcast_to(above[:, :, None], total.shape)


def _arms(total: LabelArray, body: LabelArray, spacing_mm: Triple) -> BoolArray:
    """Extremities that belong to a humerus, and at the shoulder what is nearer to the humerus than to trunk bones."""
    humerus = np.isin(total, HUMERI)
    if not humerus.any():
        return _extremities_above(total, body)
    leg_bones = np.isin(total, (*FEMORA, *HIPS))
    pieces, count = ndimage.label(body == EXTREMITIES)
    to_humerus, to_leg = _distance_mm(humerus, spacing_mm), _distance_mm(leg_bones, spacing_mm)
    arms = np.zeros(total.shape, np.bool_)
    if count:
        index = np.arange(1, count + 1)
        nearest_humerus = ndimage.minimum(to_humerus, pieces, index)
        nearest_leg = ndimage.minimum(to_leg, pieces, index)
        arms = np.isin(pieces, index[np.asarray(nearest_humerus) < np.asarray(nearest_leg)])
    to_bones = _distance_mm(np.isin(total, TRUNK_BONES), spacing_mm)
    return arms | ((to_humerus < to_bones) & (to_humerus < SHOULDER_MM) & (body > 0) & ~np.isin(total, (SKULL, BRAIN)))


def _extremities_above(total: LabelArray, body: LabelArray) -> BoolArray:
    """Without a humerus in view: extremities that hold no femur and lie above the hip bones' lowest slice."""
    pieces, count = ndimage.label(body == EXTREMITIES)
    femora, hips = np.isin(total, FEMORA), _slices(np.isin(total, HIPS))
    if not count or (not hips.size and femora.any()):
        return np.zeros(total.shape, np.bool_)
    floor = int(hips[0]) if hips.size else 0
    keep = [
        piece
        for piece in range(1, count + 1)
        if not femora[pieces == piece].any() and int(_slices(pieces == piece)[-1]) > floor
    ]
    return np.isin(pieces, keep)


def _slices(mask: BoolArray) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    return np.flatnonzero(mask.any(axis=(1, 2)))


def _distance_mm(mask: BoolArray, spacing_mm: Triple) -> FloatArray:
    """To the nearest voxel of the mask; infinite where it is empty."""
    return depth_mm(~mask, spacing_mm) if mask.any() else np.full(mask.shape, np.inf, np.float32)


def _where(fast: bool) -> str:
    tasks = "total_fast and body_fast" if fast else "total and body"
    return (
        f"fetch them on a connected machine by 'totalsegmentator_download_weights -t TASK' for {tasks}, copy the "
        "folder that holds the Dataset folders, and set districts.totalsegmentator_weights to it."
    )
