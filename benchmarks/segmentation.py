"""How well and how fast the landmark segmenter finds the districts of phantoms, whose truth is known."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from rich.table import Table

from benchmarks.figures import Figure, at_least, at_most
from training.phantom.phantom import make_phantom
from training.phantom.shapes import BoolArray
from training.phantom.variations import EXAMINATIONS, in_words, sample_variation
from twin_scanner.districts.district_map import Segmenter
from twin_scanner.districts.landmarks.segmenter import LandmarkSegmenter
from twin_scanner.errors import Rejected
from twin_scanner.imaging.district_labels import DISTRICT_NAMES

NAME: Final = "segmentation"
PHANTOMS: Final = len(EXAMINATIONS)
MEDIAN_GOAL: Final = 0.95
WORST_GOAL: Final = 0.85
ABSENT_LIMIT: Final = 1000.0
"""Voxels of a district that the image does not show."""
LEAST_SCORED_ML: Final = 50.0
"""A district of which the image shows less is a rim at its edge: listed, not scored."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Row:
    """One phantom: Dice of every district that it shows, and voxels of every other that were found all the same."""

    seed: int
    words: str
    dice: dict[int, float]
    scored: frozenset[int]
    wrong_voxels: dict[int, int]
    body_dice: float
    seconds: float
    rejected: str = ""


def measure(
    first_seed: int, count: int, progress: Progress | None = None, segmenter: Segmenter | None = None
) -> Iterator[Row]:
    """Draw, segment and score one phantom after the other."""
    segmenter = LandmarkSegmenter() if segmenter is None else segmenter
    for number, seed in enumerate(range(first_seed, first_seed + count), start=1):
        yield _row(seed, segmenter)
        if progress is not None:
            progress(number, count)


def _row(seed: int, segmenter: Segmenter) -> Row:
    options = sample_variation(seed)
    phantom = make_phantom(seed, options)
    begun, rejected = time.perf_counter(), ""
    try:
        found = segmenter.segment(phantom.ct).labels
    except Rejected as error:
        found, rejected = np.zeros_like(phantom.districts), str(error)
    seconds = time.perf_counter() - begun
    truth, voxel_ml = phantom.districts, phantom.geometry.voxel_ml
    present = [k for k in DISTRICT_NAMES if k and (truth == k).any()]
    return Row(
        seed,
        in_words(options),
        {k: dice(found == k, truth == k) for k in present},
        frozenset(k for k in present if float((truth == k).sum()) * voxel_ml >= LEAST_SCORED_ML),
        {k: int((found == k).sum()) for k in DISTRICT_NAMES if k and k not in present},
        dice(found > 0, truth > 0),
        seconds,
        rejected,
    )


def dice(found: BoolArray, truth: BoolArray) -> float:
    """Twice the overlap over the sum of both masks."""
    overlap, total = int((found & truth).sum()), int(found.sum()) + int(truth.sum())
    return 2.0 * overlap / max(1, total)


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Median and worst Dice a district against the goals, and the most voxels of an absent one."""
    result = []
    for district, name in DISTRICT_NAMES.items():
        scores = [row.dice[district] for row in rows if district in row.scored]
        if scores:
            result.append(at_least(NAME, f"median Dice, {name}", statistics.median(scores), MEDIAN_GOAL))
            result.append(at_least(NAME, f"worst Dice, {name}", min(scores), WORST_GOAL))
    wrong = max((count for row in rows for count in row.wrong_voxels.values()), default=0)
    result.append(at_most(NAME, "most voxels of an absent district", float(wrong), ABSENT_LIMIT, "voxels"))
    return result


def table_of(rows: Sequence[Row]) -> Table:
    """A row a phantom, as text."""
    table = Table("Seed", "Examination", *_columns(), title="Dice of the landmark segmenter on phantom examinations")
    for row in rows:
        table.add_row(str(row.seed), row.words, *_cells(row), style="" if is_good(row) else "bold")
    return table


def is_good(row: Row) -> bool:
    """Whether the phantom meets the goals of the worst case."""
    return min((row.dice[k] for k in row.scored), default=1.0) >= WORST_GOAL and all(
        count < ABSENT_LIMIT for count in row.wrong_voxels.values()
    )


def _columns() -> list[str]:
    return [*(name for k, name in DISTRICT_NAMES.items() if k), "body", "s"]


def _cells(row: Row) -> list[str]:
    """Dice; in brackets where only a rim is in the image; '+n' voxels of a district that is not in the image."""
    cells = []
    for district in (k for k in DISTRICT_NAMES if k):
        if district in row.dice:
            score = f"{row.dice[district]:.3f}"
            cells.append(score if district in row.scored else f"({score})")
        else:
            wrong = row.wrong_voxels.get(district, 0)
            cells.append(f"+{wrong}" if wrong else "-")
    return [*cells, f"{row.body_dice:.3f}", f"{row.seconds:.1f}"]


def page(rows: Sequence[Row], results: Sequence[Figure]) -> str:
    """docs/segmentation.md with the measured tables."""
    head = "| Seed | Examination | " + " | ".join(_columns()) + " |"
    rule = "| ---: | --- |" + " ---: |" * len(_columns())
    lines = [f"| {row.seed} | {row.words} | " + " | ".join(_cells(row)) + " |" for row in rows]
    summary = [
        f"| {f.figure} | {f.value:,.3g} {f.unit} | {f.peer} | {f.peer_value:,.3g} {f.unit} | {f.ratio:.2f} |"
        for f in results
    ]
    tables = [
        "| Figure | Value | Peer | Peer's value | Ratio |",
        "| --- | ---: | --- | ---: | ---: |",
        *summary,
        "",
        head,
    ]
    return PAGE_HEAD + "\n".join([*tables, rule, *lines]) + "\n"


PAGE_HEAD: Final = f"""# How well the districts are found

`python -m benchmarks segmentation` generates {PHANTOMS} phantom examinations (seeds 0 to {PHANTOMS - 1}) whose
districts are known voxel by voxel, segments each CT with the landmark segmenter and compares. This page is written by
`python -m benchmarks segmentation --write docs/segmentation.md`; `--count N --seed S` runs a part of it.

The examinations (`training/phantom/variations.py`) vary, beside the person's size, sex, fat, contrast medium and noise:

- **arms**: up, down, crossed on belly or chest with the hands on the skin, one up and one down, one crossed and the
  other down or up, cut by the edge of the image;
- **field of view**: head to toe, skull base to mid-thigh, head alone, head and neck without shoulders, chest, abdomen,
  pelvis, upper legs, legs, and ends in between; a circle of 400 to 500 mm outside which the image is padded;
- **body**: body mass index 17 to 50, the obese ones cut by the circle's edge;
- **position**: HFS, HFP, FFS, FFP, HFDL and HFDR with the table on the side that is down, axes as the gantry has them
  or turned to the patient, and slices in either order;
- **things**: blankets with folds, knee wedge, arm rest, head holder, vacuum cushion, ECG cables, oxygen tube;
- **metal**: hip prosthesis, femoral nail, spinal rods, dental fillings, each with streaks and clipped HU;
- **voxels**: slices of 1.5 to 10 mm, square and other pixels.

The truth follows the borders of `docs/segmenters.md`: head above the plane through the lowest points of mandible and
occiput, legs below the ischial tuberosities, arms from the shoulder joint outward. A phantom is no patient: it has
textbook anatomy and none of its variants; real CTs are tested beside it
(`tests/twin_scanner/districts/landmarks/test_segmenter.py`).

A dash: the district is not in the image and none of it was found; `+n`: n voxels of it were found all the same. In
brackets: less than {LEAST_SCORED_ML:g} ml of it are in the image, which is not scored. `body`: Dice of all districts
together. `s`: seconds for the segmentation. A ratio above 1 is ahead of the peer or the goal.

"""
