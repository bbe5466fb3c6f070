"""The one place where a synthetic PET is scored: every metric of every region of a case as rows, each mask stated.

Evaluation asks for all of them; validation, gate and calibration ask for the mean absolute error alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from training.data.sampling import covers
from training.evaluation.case import BODY, LESION, Case, Row
from training.evaluation.lesion_metrics import EDGE_VOXELS, AnnotatedLesion, Uptake, false_uptake, lesions_of
from training.evaluation.metrics import box_around, mae, mean_inside, mean_ratio, ms_ssim, nrmse, psnr, similarity
from training.evaluation.seam import seam
from training.evaluation.window_edges import window_edges
from twin_scanner.imaging.district_labels import DISTRICT_NAMES
from twin_scanner.imaging.volume import FloatArray, Geometry
from twin_scanner.models.plan import suv_to_model

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Box: TypeAlias = tuple[slice, slice, slice]
Regions: TypeAlias = Mapping[str, tuple[int, ...]]
"""The labels of each region by its name; none stands for every voxel, the air included."""

EVERY_LABEL: Final = tuple(range(1, 256))
"""The whole body is every voxel that has a label."""
EVALUATED: Final[Regions] = MappingProxyType(
    {BODY: EVERY_LABEL, **{name: (label,) for label, name in DISTRICT_NAMES.items()}}
)
NEGATIVE: Final = "NEGATIVE"
"""autoPET's word for a study without a malignant lesion."""
CLIPPED_ABOVE_SUV: Final = 20.0
"""Where both PETs are clipped and what 1 is in the errors, as in the paper; what the tables count lesions above.

For every model, whatever its own Plan's range: errors in different units could not be compared.
"""
HOT_ABOVE_SUV: Final = 4.0
"""Bladder, kidneys, brain, myocardium and lesions are hotter; the rest of a body is not."""
LABELS: Final = 256
"""A label map has no more: it is uint8."""
GRID: Final = (
    "Every model is scored on the real PET's own grid: the synthetic PET is resampled to it linearly, as a "
    "concentration, districts and organs to the nearest neighbour. So all models share their voxels and SSIM's windows."
)
"""What all definitions have in common."""
DEFINITIONS: Final = {
    "mae": "Mean absolute error in model space (1 is SUV 20, both PETs clipped to it), inside the region.",
    "mae_suv": "The same in SUV (g/ml).",
    "psnr": "10 log10(1 / mean squared error) in dB, model space (data range 1 is SUV 20), inside the region.",
    "ssim": "scikit-image's map (Gaussian of sigma 1.5 voxels of the real PET's own grid), model space, averaged "
    "inside the region; both PETs are 0 beyond the CT.",
    "ms_ssim": "SSIM at five scales, averaged inside the body at each scale; body only.",
    "nrmse": "Root mean squared error over the real PET's root mean square, inside the region.",
    "hot_ratio": "Synthesised over real mean of the region's voxels whose real SUV is above 4, both PETs clipped at "
    "SUV 20. 1 is right; a model that misses the hot organs has little, whatever its MAE.",
    "suv_mean_ratio": "Synthesised over real mean of an organ, both PETs clipped at SUV 20. An organ counts as found "
    "at 0.5 or more.",
    "suv_mean_bias": "Synthetic minus real SUVmean of a lesion or an organ, unclipped.",
    "suv_max_bias": "Synthetic minus real SUVmax of a lesion (26-connected component of the annotation), unclipped.",
    "suv_peak_bias": "The same of SUVpeak, the highest mean of a 1 ml sphere centred in the lesion.",
    "tlg_bias": "The same of total lesion glycolysis, SUVmean times the annotated volume.",
    "volume_41_real": "Volume of an annotated lesion at or above 41 % of its own real SUVmax, in the real PET.",
    "volume_41_synthetic": "The same threshold in the synthetic PET, inside the annotated lesion.",
    "detected": "Whether the synthetic PET reaches SUV 4 anywhere inside the annotation of a lesion whose real SUVmax "
    "does.",
    "detected_41": "Whether it reaches 41 % of the lesion's own real SUVmax; asked of every lesion.",
    "detection_recall": "Share of a study's lesions with a real SUVmax of 4 or more that are detected.",
    "detection_recall_41": "Share of a study's lesions that reach 41 % of their own real SUVmax in the synthetic PET.",
    "lesions_above_suv20": "Lesions of a study whose real SUVmax is above SUV 20, where the voxel metrics clip.",
    "false_positives": "Components of the synthetic PET at SUV 4 or more, at least 0.5 ml, with no real voxel at SUV 4 "
    "or more within 10 mm; body.",
    "false_uptake_ml": "Volume of the false positives in a study without a malignant lesion (negative control).",
    "seam_excess": "How much more the synthetic PET jumps across district borders than the real one, beyond the steps "
    "on both sides, mean over the faces between districts.",
    "window_edge": "Mean difference of neighbours across the edges of windows (stride 16) in the synthetic PET, on the "
    "model's own grid, inside one district.",
    "window_elsewhere": "The same of all other neighbours.",
    "window_edge_ratio": "The first over the second: 1 where no window shows.",
    "spacing_d": "Distance of the slices of the real PET's own grid; spacing_h and spacing_w are those of its rows and "
    "columns.",
    "spacing_h": "Distance of its rows.",
    "spacing_w": "Distance of its columns.",
}
"""What a row's metric is, for the report."""


@dataclass(frozen=True, eq=False)
class _ClippedCase:
    """Both PETs of a case, 1 is SUV 20 and clipped, and the box around its regions."""

    case: Case
    regions: Regions
    whole: tuple[FloatArray, FloatArray]
    box: Box


@dataclass(frozen=True)
class _Number:
    """A row without the study's names; no value, no row."""

    region: str
    metric: str
    value: float | None
    n: int
    unit: str = ""
    item: int = 0


def score(
    case: Case, model: str, *, metrics: Literal["all", "mae_suv"] = "all", regions: Regions = EVALUATED
) -> list[Row]:
    """The numbers of a study under a model's name; what has an empty mask has no row.

    Voxel metrics compare both PETs clipped at SUV 20, for each of ``regions`` and the lesions; lesions' uptake is that
    of the unclipped PETs. ``metrics`` "mae_suv" gives the mean absolute error in SUV of each region and nothing else.
    Raises ValueError where the case shows no body.
    """
    clipped = _clipped_case(case, regions)
    numbers = [*(_absolute_errors(clipped) if metrics == "mae_suv" else _everything(clipped))]
    return [
        Row(model, case.study, case.patient, case.diagnosis, n.region, n.item, n.metric, n.unit, n.value, n.n)
        for n in numbers
        if n.value is not None
    ]


def _everything(clipped: _ClippedCase) -> Iterator[_Number]:
    case, body = clipped.case, clipped.case.labels > 0
    yield from _voxel_metrics(clipped)
    yield from _similarities(clipped, body)
    yield from _hot_spots(case, body)
    yield from _seams(case, clipped.box)
    yield from _window_edges(case)
    yield from _grid(case)
    yield from _organs(clipped)
    if case.lesions is not None:
        lesions = lesions_of(case.real, case.synthetic, case.lesions, case.geometry, case.translated)
        yield from _lesion_metrics(lesions)
        yield from _study_metrics(lesions)


def _clipped_case(case: Case, regions: Regions) -> _ClippedCase:
    box = box_around(case.labels > 0)
    if box is None:
        raise ValueError(f"the case of {case.study} shows no body")
    if not all(regions.values()):
        box = (slice(None), slice(None), slice(None))
    common = replace(case.plan, suv_max=CLIPPED_ABOVE_SUV)
    real, synthetic = (suv_to_model(image, common) for image in (case.real, case.synthetic))
    _forget_beyond((real, synthetic), case.geometry, case.translated)
    return _ClippedCase(case, regions, (real, synthetic), box)


def _forget_beyond(images: tuple[FloatArray, ...], grid: Geometry, field: Geometry) -> None:
    """Set images (D, H, W) on one grid to 0 where another field of view ends.

    The windows of SSIM reach beyond the region that is scored: what nobody translated is no difference.
    """
    to_field = np.linalg.inv(field.affine) @ grid.affine
    highest = np.asarray(field.shape) - 1 + EDGE_VOXELS
    corners = np.array([[*at, 1] for at in np.ndindex(2, 2, 2)]) * [*(n - 1 for n in grid.shape), 1]
    reached = corners @ to_field[:3].T
    if ((reached >= -EDGE_VOXELS) & (reached <= highest)).all():
        return
    of_plane = [to_field[axis, 1] * np.arange(grid.shape[1])[:, None] + to_field[axis, 2] * np.arange(grid.shape[2])
                for axis in range(3)]  # fmt: skip
    for d in range(grid.shape[0]):
        for axis, within in enumerate(of_plane):
            index = within + (to_field[axis, 0] * d + to_field[axis, 3])
            beyond = (index < -EDGE_VOXELS) | (index > highest[axis])
            for image in images:
                image[d][beyond] = 0


def _absolute_errors(clipped: _ClippedCase) -> Iterator[_Number]:
    labels = clipped.case.labels[clipped.box]
    for name, covered in clipped.regions.items():
        mask = covers(labels, covered)
        error = mae(clipped.whole[0][clipped.box], clipped.whole[1][clipped.box], mask)
        if error is not None:
            yield _Number(name, "mae_suv", error * CLIPPED_ABOVE_SUV, int(np.count_nonzero(mask)), "g/ml")


def _voxel_metrics(clipped: _ClippedCase) -> Iterator[_Number]:
    for name, mask in _masks(clipped):
        n = int(np.count_nonzero(mask))
        if not n:
            continue
        real, synthetic = (image[clipped.box][mask] for image in clipped.whole)
        everywhere = np.ones(n, np.bool_)
        error = mae(real, synthetic, everywhere)
        yield _Number(name, "mae", error, n)
        yield _Number(name, "mae_suv", None if error is None else error * CLIPPED_ABOVE_SUV, n, "g/ml")
        yield _Number(name, "psnr", psnr(real, synthetic, everywhere), n, "dB")
        yield _Number(name, "nrmse", nrmse(real, synthetic, everywhere), n)
        hot = real > HOT_ABOVE_SUV / CLIPPED_ABOVE_SUV
        yield _Number(name, "hot_ratio", mean_ratio(real, synthetic, hot), int(np.count_nonzero(hot)))


def _similarities(clipped: _ClippedCase, body: BoolArray) -> Iterator[_Number]:
    maps = similarity(*(image[clipped.box] for image in clipped.whole))
    for name, mask in _masks(clipped):
        yield _Number(name, "ssim", mean_inside(maps.ssim, mask), int(np.count_nonzero(mask)))
    finest = maps if all(clipped.regions.values()) else None
    yield _Number(BODY, "ms_ssim", ms_ssim(*clipped.whole, body, finest=finest), int(np.count_nonzero(body)))


def _masks(clipped: _ClippedCase) -> Iterator[tuple[str, BoolArray]]:
    """Names and masks over the box; a lesion counts as far as it lies in the body."""
    labels = clipped.case.labels[clipped.box]
    for name, covered in clipped.regions.items():
        yield name, covers(labels, covered)
    if clipped.case.lesions is not None:
        yield LESION, (clipped.case.lesions[clipped.box] > 0) & (labels > 0)


def _hot_spots(case: Case, body: BoolArray) -> Iterator[_Number]:
    found = false_uptake(case.real, case.synthetic, body, case.geometry)
    n = int(np.count_nonzero(body))
    yield _Number(BODY, "false_positives", float(found.components), n)
    if case.diagnosis == NEGATIVE:
        yield _Number(BODY, "false_uptake_ml", found.volume_ml, n, "ml")


def _seams(case: Case, box: Box) -> Iterator[_Number]:
    found = seam(case.real[box], case.synthetic[box], case.labels[box])
    if found is not None:
        yield _Number(BODY, "seam_real", found.real, found.faces, "g/ml")
        yield _Number(BODY, "seam_synthetic", found.synthetic, found.faces, "g/ml")
        yield _Number(BODY, "seam_excess", found.excess, found.faces, "g/ml")


def _window_edges(case: Case) -> Iterator[_Number]:
    translated = case.as_translated
    found = None if translated is None else window_edges(translated.suv, translated.districts)
    if found is not None:
        yield _Number(BODY, "window_edge", found.at_edges, found.faces, "g/ml")
        yield _Number(BODY, "window_elsewhere", found.elsewhere, found.faces, "g/ml")
        yield _Number(BODY, "window_edge_ratio", found.ratio, found.faces)


def _grid(case: Case) -> Iterator[_Number]:
    """Spacing of the voxels that everything was scored on: SSIM depends on it."""
    for axis, mm in zip("dhw", case.geometry.spacing_mm, strict=True):
        yield _Number(BODY, f"spacing_{axis}", mm, case.real.size, "mm")


def _organs(clipped: _ClippedCase) -> Iterator[_Number]:
    """Of each organ, inside the body alone: beyond, the real PET has no value or nobody synthesised one."""
    case, box = clipped.case, clipped.box
    if case.organs is None:
        return
    body = case.labels[box] > 0
    organs = case.organs[box][body]
    counts = np.bincount(organs, minlength=LABELS)
    sums = [np.bincount(organs, image[box][body], LABELS) for image in (case.real, case.synthetic)]
    real, synthetic = (image[box][body] for image in clipped.whole)
    for label, name in case.organ_names:
        n = int(counts[label])
        if n:
            region = f"organ:{name}"
            yield _Number(region, "suv_mean_bias", float(sums[1][label] - sums[0][label]) / n, n, "g/ml")
            yield _Number(region, "suv_mean_ratio", mean_ratio(real, synthetic, organs == label), n)


def _lesion_metrics(lesions: list[AnnotatedLesion]) -> Iterator[_Number]:
    for lesion in lesions:
        item = lesion.number
        for metric, unit in (("suv_mean", "g/ml"), ("suv_max", "g/ml"), ("suv_peak", "g/ml"), ("tlg", "g")):
            real, synthetic = _of(lesion.real, metric), _of(lesion.synthetic, metric)
            bias = None if real is None or synthetic is None else synthetic - real
            for ending, value in (("real", real), ("synthetic", synthetic), ("bias", bias)):
                yield _Number(LESION, f"{metric}_{ending}", value, lesion.voxels, unit, item)
        yield _Number(LESION, "volume_41_real", lesion.own_ml[0], lesion.voxels, "ml", item)
        yield _Number(LESION, "volume_41_synthetic", lesion.own_ml[1], lesion.voxels, "ml", item)
        detected = None if lesion.detected is None else float(lesion.detected)
        yield _Number(LESION, "detected", detected, lesion.voxels, "", item)
        yield _Number(LESION, "detected_41", float(lesion.detected_own), lesion.voxels, "", item)


def _of(uptake: Uptake, metric: str) -> float | None:
    return {"suv_mean": uptake.mean, "suv_max": uptake.maximum, "suv_peak": uptake.peak, "tlg": uptake.tlg}[metric]


def _study_metrics(lesions: list[AnnotatedLesion]) -> Iterator[_Number]:
    asked = [lesion.detected for lesion in lesions if lesion.detected is not None]
    if asked:
        yield _Number(LESION, "detection_recall", sum(asked) / len(asked), len(asked))
    if lesions:
        own = sum(lesion.detected_own for lesion in lesions)
        yield _Number(LESION, "detection_recall_41", own / len(lesions), len(lesions))
        above = sum(lesion.real.maximum > CLIPPED_ABOVE_SUV for lesion in lesions)
        yield _Number(LESION, "lesions_above_suv20", float(above), len(lesions))
