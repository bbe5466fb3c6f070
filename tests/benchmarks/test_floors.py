"""The floors of the error on phantoms, against plain arithmetic on the same phantoms."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from benchmarks import floors
from training.phantom.phantom import Phantom, PhantomOptions, expected_pet, make_phantom, sample_options
from training.phantom.tissues import Tissue
from twin_scanner.imaging.district_labels import DISTRICT_NAMES
from twin_scanner.imaging.volume import FloatArray

pytestmark = pytest.mark.unit

COARSE_MM = (10.0, 8.0, 8.0)
SEEDS = range(40, 43)


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [make_phantom(seed, sample_options(seed, spacing_mm=COARSE_MM)) for seed in SEEDS]


def clipped(image: FloatArray) -> FloatArray:
    return np.minimum(image, np.float32(20.0))


def test_floor_and_constant_are_mean_absolute_errors_in_each_region(phantoms: list[Phantom]) -> None:
    """Oracle: NumPy's median and mean over each district's voxels, both PETs clipped at SUV 20."""
    floor, constant = floors.errors(COARSE_MM, SEEDS)
    for label, region in DISTRICT_NAMES.items():
        inside = [p.districts == label for p in phantoms]
        real = [clipped(p.pet.array)[mask] for p, mask in zip(phantoms, inside, strict=True)]
        best = float(np.median(np.concatenate(real)))
        flat = np.mean([np.abs(suv - best).mean() for suv in real])
        guess = [clipped(expected_pet(p))[mask] for p, mask in zip(phantoms, inside, strict=True)]
        known = np.mean([np.abs(suv - g).mean() for suv, g in zip(real, guess, strict=True)])
        assert constant[region] == pytest.approx(flat, abs=floors.BIN_SUV)
        assert floor[region] == pytest.approx(known, rel=1e-4)
        assert floor[region] < constant[region]


def test_whoever_knows_the_tissues_states_their_median_uptake(phantoms: list[Phantom]) -> None:
    expected = expected_pet(phantoms[0])
    liver = phantoms[0].tissues == Tissue.LIVER
    assert float(np.median(expected[liver])) == pytest.approx(2.2, rel=0.02), "the median SUV of livers"
    assert float(expected[phantoms[0].districts == 0].mean()) < 0.02
    deep = ndimage.binary_erosion(liver, iterations=2)
    assert float(np.ptp(expected[deep])) < 0.01, "no noise"


def test_each_figure_stands_beside_one_constant_as_one_line_of_json() -> None:
    reported: list[tuple[int, int]] = []
    figures = floors.measure(lambda *n: reported.append(n), 1, SEEDS[0], (COARSE_MM,))
    floor, constant = floors.errors(COARSE_MM, range(SEEDS[0], SEEDS[0] + 1))
    line = json.loads(figures[0].line())
    assert line == {
        "name": "floors", "figure": "head, 10 x 8 x 8 mm, n 1", "value": round(floor["head"], 4), "unit": "SUV",
        "peer": "one constant", "peer_value": round(constant["head"], 4), "ratio": line["ratio"],
    }  # fmt: skip
    assert line["ratio"] == pytest.approx(constant["head"] / floor["head"], abs=1e-4)
    assert reported == [(1, 1)]


def test_the_grids_are_the_demonstrations_and_that_of_written_phantoms(
    monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    monkeypatch.chdir(project)
    assert floors.grids_mm() == ((4.0, 4.08, 4.08), PhantomOptions().spacing_mm)
