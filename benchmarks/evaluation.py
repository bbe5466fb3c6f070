"""Time and memory of measuring 20 whole-body studies of 400 x 400 x 326 voxels, translation apart."""

import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.metrics import structural_similarity

from benchmarks.figures import Figure, at_most
from training.evaluation.case import Case
from training.evaluation.score import score
from training.phantom.phantom import PhantomOptions, make_phantom
from twin_scanner.imaging.volume import Geometry
from twin_scanner.models.plan import Plan, suv_to_model

NAME: Final = "evaluation"
SHAPE: Final = (326, 400, 400)
BODIES: Final = 2
"""Different bodies; each is measured several times, for making one takes longer than measuring it."""
STUDIES: Final = 20
MINUTES_GOAL: Final = 10.0
MEMORY_GOAL_MB: Final = 6000.0
PEER: Final = "scikit-image: SSIM alone, whole image"
Progress = Callable[[int, int], None]


def measure(progress: Progress, studies: int = STUDIES) -> list[Figure]:
    """All metrics of some studies against the goals, and one study against scikit-image's SSIM of the whole image."""
    seconds, peer_seconds, memory_mb = [], [], 0.0
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for number in range(BODIES):
            for done, (of_ours, peak_mb) in enumerate(pool.submit(_ours, number, studies // BODIES).result()):
                seconds.append(of_ours)
                memory_mb = max(memory_mb, peak_mb)
                progress(number * studies // BODIES + done + 1, studies)
            peer_seconds.append(pool.submit(_peer, number).result())
    what = "400x400x326"
    return [
        at_most(NAME, f"{studies} studies, {what}", sum(seconds) / 60, MINUTES_GOAL * studies / STUDIES, "min"),
        at_most(NAME, f"{what}, peak memory of the process", memory_mb, MEMORY_GOAL_MB, "MB"),
        at_most(NAME, f"{what}, a study, every metric", min(seconds), min(peer_seconds), "s", PEER),
    ]


def phantom_case(number: int) -> Case:
    """Head to toe as far as the image reaches, with lesions; the synthetic PET is the real one, blurred."""
    options = PhantomOptions(body_mass_index=24.0 + 8 * number, diagnosis="LYMPHOMA", arms=("down", "up")[number])
    phantom = make_phantom(5 + number, options)
    real, labels, lesions = (_fitted(a) for a in (phantom.pet.array, phantom.districts, phantom.lesions))
    computed = np.where(labels > 0, ndimage.gaussian_filter(real, 1.5), np.float32(0.0))
    geometry = Geometry(SHAPE, Plan().spacing_mm, (0.0, 0.0, 0.0))
    return Case(
        f"study-{number}", f"patient-{number}", "LYMPHOMA", real, computed, labels, lesions, geometry, Plan(), geometry
    )


def _ours(number: int, times: int) -> list[tuple[float, float]]:
    """Seconds of each measurement, and the process's peak memory in MB after it."""
    case, found = phantom_case(number), []
    for _ in range(times):
        begin = time.perf_counter()
        score(case, "model")
        found.append((time.perf_counter() - begin, _peak_memory_mb()))
    return found


def _peer(number: int) -> float:
    case = phantom_case(number)
    real, computed = (suv_to_model(image, case.plan) for image in (case.real, case.synthetic))
    begin = time.perf_counter()
    structural_similarity(
        real, computed, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    return time.perf_counter() - begin


def _fitted(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The upper part of an image in the middle of a larger one."""
    upper = array[-SHAPE[0] :]
    pads = [(0, 0), *(((n - m) // 2, n - m - (n - m) // 2) for n, m in zip(SHAPE[1:], upper.shape[1:], strict=True))]
    return np.pad(upper, pads)


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
