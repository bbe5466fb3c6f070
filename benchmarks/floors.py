"""How far a network can get on phantoms: the error that is left where every voxel's tissue is known.

A CT does not say how much FDG this patient's tissues take up, nor what the noise will be. Whoever knows each voxel's
tissue and states the median uptake of all patients, blurred as the scanner does, is wrong by the floor.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.figures import Figure, at_most
from training.evaluation.case import Case
from training.evaluation.score import CLIPPED_ABOVE_SUV, score
from training.fit.config import read_config
from training.phantom.phantom import Phantom, expected_pet, make_phantom, sample_options
from twin_scanner.imaging.district_labels import DISTRICT_NAMES
from twin_scanner.imaging.volume import FloatArray, Triple
from twin_scanner.models.plan import Plan

NAME: Final = "floors"
PHANTOMS: Final = 10
FIRST_SEED: Final = 720_000
"""Those of ``twin-scanner phantom --count 10 --seed 72``; no configuration trains on them."""
DEMONSTRATION: Final = Path("training/configs/demonstration.toml")
PEER: Final = "one constant"
BIN_SUV: Final = 0.005
"""How exactly the best constant is known."""
Progress = Callable[[int, int], None]
Errors: TypeAlias = dict[str, float]
"""Mean absolute error in SUV by region, mean over the phantoms that show it."""


def grids_mm() -> tuple[Triple, ...]:
    """The demonstration's grid, and autoPET's, on which phantoms are written and scored."""
    return read_config(DEMONSTRATION).plan.spacing_mm, Plan().spacing_mm


def measure(
    progress: Progress, count: int = PHANTOMS, seed: int = FIRST_SEED, grids: tuple[Triple, ...] | None = None
) -> list[Figure]:
    """The floor beside the error of the best constant, in each region on each grid."""
    grids, figures = grids or grids_mm(), list[Figure]()
    for number, spacing_mm in enumerate(grids):
        floor, constant = errors(spacing_mm, range(seed, seed + count))
        on = " x ".join(f"{mm:g}" for mm in spacing_mm)
        figures += [
            at_most(NAME, f"{region}, {on} mm, n {count}", floor[region], constant[region], "SUV", PEER)
            for region in floor
        ]
        progress(number + 1, len(grids))
    return figures


def errors(spacing_mm: Triple, seeds: range) -> tuple[Errors, Errors]:
    """The floor of some phantoms, and the error of one constant per region that is the best for all of them."""
    constants = best_constants(spacing_mm, seeds)
    floors: list[Errors] = []
    flat: list[Errors] = []
    for phantom in _phantoms(spacing_mm, seeds):
        floors.append(_errors(phantom, expected_pet(phantom)))
        flat.append(_errors(phantom, constants[phantom.districts]))
    return _means(floors), _means(flat)


def best_constants(spacing_mm: Triple, seeds: range) -> FloatArray:
    """SUV by district label: the median over all voxels of the district, all phantoms together."""
    counts = np.zeros((max(DISTRICT_NAMES) + 1, round(CLIPPED_ABOVE_SUV / BIN_SUV) + 1), np.int64)
    for phantom in _phantoms(spacing_mm, seeds):
        bins = np.rint(np.minimum(phantom.pet.array, CLIPPED_ABOVE_SUV) / BIN_SUV).astype(np.intp)
        for label, row in enumerate(counts):
            row += np.bincount(bins[phantom.districts == label], minlength=row.size)
    return np.array([_median_bin(row) * BIN_SUV for row in counts], np.float32)


def _median_bin(counts: npt.NDArray[np.int64]) -> int:
    return int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))


def _phantoms(spacing_mm: Triple, seeds: range) -> Iterator[Phantom]:
    for seed in seeds:
        yield make_phantom(seed, sample_options(seed, spacing_mm=spacing_mm))


def _errors(phantom: Phantom, predicted: FloatArray) -> Errors:
    case = Case(
        f"phantom-{phantom.seed}", f"phantom-{phantom.seed}", phantom.diagnosis, phantom.pet.array, predicted,
        phantom.districts, None, phantom.geometry, Plan(), phantom.geometry,
    )  # fmt: skip
    return {row.region: row.value for row in score(case, NAME, metrics="mae_suv") if row.region != "body"}


def _means(found: list[Errors]) -> Errors:
    return {
        region: float(np.mean([one[region] for one in found if region in one]))
        for region in DISTRICT_NAMES.values()
        if any(region in one for one in found)
    }
