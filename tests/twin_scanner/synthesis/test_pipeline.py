"""The ten steps on a coarse phantom: what comes out, where it lies, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training.phantom.phantom import Phantom, PhantomOptions, make_phantom
from twin_scanner.districts.district_map import DistrictMap
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import Volume
from twin_scanner.models.card import Architecture
from twin_scanner.models.package import ModelPackage, build_network, load_package, save_package
from twin_scanner.models.partition import DISTRICTS, Partition, partition
from twin_scanner.models.plan import Plan
from twin_scanner.synthesis.pipeline import PipelineOptions, translate_ct

pytestmark = pytest.mark.unit

PLAN = Plan(spacing_mm=(10.0, 8.0, 8.0))


class TrueDistricts:
    """A segmenter that knows the phantom's own districts."""

    name = "truth"

    def __init__(self, phantom: Phantom) -> None:
        self._phantom = phantom

    def segment(self, ct: Volume) -> DistrictMap:
        assert ct.geometry.same_grid(self._phantom.ct.geometry)
        return DistrictMap(self._phantom.districts, ct.geometry, self.name, "0" * 64)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(3, PhantomOptions(spacing_mm=(10.0, 8.0, 8.0)))


def package(folder: Path, covered: Partition = DISTRICTS, segmenter: str = "truth") -> ModelPackage:
    """A package of untrained networks."""
    torch.manual_seed(0)
    architecture = Architecture("unet", 2)
    networks = {name: build_network(architecture) for name in covered.networks}
    save_package(
        folder,
        name="untrained",
        plan=PLAN,
        partition=covered,
        architecture=architecture,
        networks=networks,
        segmenter=segmenter,
        about={},
    )
    return load_package(folder)


def test_the_pet_lies_on_the_plans_grid_and_is_zero_outside_the_body(phantom: Phantom, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    pet = translate_ct(
        phantom.ct,
        package(tmp_path / "p"),
        TrueDistricts(phantom),
        PipelineOptions(),
        lambda done, total: seen.append((done, total)),
    )
    assert pet.suv.geometry.spacing_mm == PLAN.spacing_mm
    assert pet.suv.array.dtype == np.float32
    assert (pet.suv.array[pet.districts == 0] == 0).all()
    assert (pet.suv.array[pet.districts > 0] > 0).all()
    assert pet.missing_districts == ()
    assert seen[-1][0] == seen[-1][1] > 0
    body_ml = float((phantom.districts > 0).sum() * phantom.ct.geometry.voxel_ml)
    assert float((pet.districts > 0).sum() * pet.suv.geometry.voxel_ml) == pytest.approx(body_ml, rel=0.01)
    assert np.array_equal(pet.district_map.labels, phantom.districts)


def test_the_same_ct_gives_the_same_pet(phantom: Phantom, tmp_path: Path) -> None:
    model = package(tmp_path / "p")
    first, second = (translate_ct(phantom.ct, model, TrueDistricts(phantom), PipelineOptions()) for _ in range(2))
    assert np.array_equal(first.suv.array, second.suv.array)


def test_a_district_without_a_network_is_refused_by_default(phantom: Phantom, tmp_path: Path) -> None:
    without_legs = partition("no-legs", {"head": [1], "trunk": [2], "arms": [3]})
    with pytest.raises(Rejected, match=r"The CT shows legs, which model 'untrained' cannot synthesise"):
        translate_ct(phantom.ct, package(tmp_path / "p", without_legs), TrueDistricts(phantom), PipelineOptions())


def test_a_district_without_a_network_is_named_where_the_site_wants_it_delivered(
    phantom: Phantom, tmp_path: Path
) -> None:
    without_legs = partition("no-legs", {"head": [1], "trunk": [2], "arms": [3]})
    options = PipelineOptions(missing_district="deliver")
    pet = translate_ct(phantom.ct, package(tmp_path / "p", without_legs), TrueDistricts(phantom), options)
    assert pet.missing_districts == ("legs",)
    assert (pet.suv.array[pet.districts == 4] == 0).all()


def test_another_segmenter_than_the_trainings_needs_the_sites_word(phantom: Phantom, tmp_path: Path) -> None:
    model = package(tmp_path / "p", segmenter="landmarks")
    with pytest.raises(Rejected, match=r"was trained on districts by 'landmarks', not by 'truth'"):
        translate_ct(phantom.ct, model, TrueDistricts(phantom), PipelineOptions())
    pet = translate_ct(phantom.ct, model, TrueDistricts(phantom), PipelineOptions(allow_other_segmenter=True))
    assert pet.district_map.segmenter == "truth"
