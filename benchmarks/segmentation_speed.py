"""Time and memory of the landmark segmenter on a CT of 512 x 512 x 400 voxels, each in a process of its own."""

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np
import SimpleITK as sitk

from benchmarks.figures import Figure, at_most
from training.phantom.phantom import PhantomOptions, make_phantom
from twin_scanner.districts.landmarks.segmenter import LandmarkSegmenter
from twin_scanner.imaging.volume import AIR_HU, Geometry, Volume, resample, to_sitk

NAME: Final = "segmentation"
SHAPE: Final = (400, 512, 512)
SPACING_MM: Final = (2.5, 0.9766, 0.9766)
SECONDS_GOAL: Final = 6.0
MEMORY_GOAL_MB: Final = 2000.0
CORES: Final = 2
REPEATS: Final = 3
NOISE_HU: Final = 12.0
PEER: Final = "SimpleITK: block means, Otsu, largest piece, resampling"
PEER_SPACING_MM: Final = 4.0

Measured = tuple[float, float]
"""Best time in seconds, peak resident memory of the process in MB."""


def measure() -> list[Figure]:
    """The segmenter's time and memory against the goals, and its time against plain image processing by SimpleITK."""
    with tempfile.TemporaryDirectory() as folder:
        ct = Path(folder) / "ct.npy"
        _in_own_process(_draw, ct)
        seconds, memory_mb = _in_own_process(_segment, ct)
        peer_seconds, _ = _in_own_process(_segment_by_threshold, ct)
    what = "512x512x400"
    return [
        at_most(NAME, f"{what}, best of {REPEATS}", seconds, SECONDS_GOAL, "s"),
        at_most(NAME, f"{what}, peak memory of the process", memory_mb, MEMORY_GOAL_MB, "MB"),
        at_most(NAME, f"{what}, best of {REPEATS}", seconds, peer_seconds, "s", PEER),
    ]


def _in_own_process(work: Callable[[Path], Measured], ct: Path) -> Measured:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, ct).result()


def _draw(path: Path) -> Measured:
    """Neck to thighs, arms up, drawn coarsely, resampled to the size of a routine CT, and made noisy."""
    options = PhantomOptions((3.0, 2.0, 2.0), arms="up", field_of_view=(550.0, 1560.0), ct_noise=0.0, pet_noise=0.0)
    fine = make_phantom(1, options).ct
    ct = resample(fine, _grid(fine.geometry), AIR_HU).array.copy()
    rng = np.random.default_rng(0)
    for image in ct:
        image += np.float32(NOISE_HU) * rng.standard_normal(image.shape, dtype=np.float32)
    np.save(path, np.maximum(ct, np.float32(AIR_HU), out=ct))
    return 0.0, _peak_memory_mb()


def _grid(fine: Geometry | None = None) -> Geometry:
    """A grid of SHAPE around the middle of the drawn image; around the origin without one."""
    if fine is None:
        return Geometry(SHAPE, SPACING_MM, (0.0, 0.0, 0.0))
    d, h, w = ((n - 1) / 2 for n in fine.shape)
    centre = fine.position_lps_mm((d, h, w))
    half = [(n - 1) / 2 * s for n, s in zip(SHAPE[::-1], SPACING_MM[::-1], strict=True)]
    return Geometry(SHAPE, SPACING_MM, (centre[0] - half[0], centre[1] - half[1], centre[2] - half[2]))


def _segment(path: Path) -> Measured:
    _keep_to_cores()
    ct, segmenter = Volume(np.load(path), _grid()), LandmarkSegmenter()
    return _best(lambda: segmenter.segment(ct).labels.any()), _peak_memory_mb()


def _segment_by_threshold(path: Path) -> Measured:
    _keep_to_cores()
    image = to_sitk(np.load(path), _grid())
    return _best(lambda: _largest_component(image)), _peak_memory_mb()


def _largest_component(ct: sitk.Image) -> sitk.Image:
    """A body mask as plain image processing finds it: block means, Otsu's threshold, largest piece, and back."""
    factors = [max(1, round(PEER_SPACING_MM / float(s))) for s in ct.GetSpacing()]
    dense = sitk.OtsuThreshold(sitk.BinShrink(ct, factors), 0, 1)
    pieces = sitk.RelabelComponent(sitk.ConnectedComponent(dense), sortByObjectSize=True)
    return sitk.Resample(sitk.Cast(pieces == 1, sitk.sitkUInt8), ct, sitk.Transform(), sitk.sitkNearestNeighbor)


def _best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def _keep_to_cores() -> None:
    """Two cores and two threads, as the goal is set for."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:CORES]))
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(CORES)


def _peak_memory_mb() -> float:
    """Largest resident set of this process; getrusage counts KiB on Linux and bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
