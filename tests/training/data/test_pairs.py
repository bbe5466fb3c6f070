"""Training pairs: made by the steps that serve, kept as whole HU and SUV, cut to the body."""

from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.samples.block_studies import MovedPhantom, trunk
from training.data.pairs import (
    Pair,
    Segment,
    fingerprint,
    landmarks,
    make_pair,
    on_plan_grid,
    phantom_truth,
    training_grid,
)
from training.data.sampling import pair_surroundings, patch_at
from training.data.study import TrainingStudy
from training.fit.config import DataConfig
from training.fit.phantom_pairs import make_pairs
from training.phantom.phantom import make_phantom, sample_options
from twin_scanner.districts.district_map import DistrictMap
from twin_scanner.districts.landmarks.segmenter import LandmarkSegmenter
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import Geometry, LabelArray, Volume, resample, resample_labels
from twin_scanner.models.card import PAPER, Architecture, Card
from twin_scanner.models.package import ModelPackage
from twin_scanner.models.partition import Partition
from twin_scanner.models.plan import Plan, ct_on_grid, resampled_ct
from twin_scanner.synthesis.pipeline import PipelineOptions, translate_ct
from twin_scanner.synthesis.translate import windows_touching

pytestmark = pytest.mark.loop

PLAN = Plan(spacing_mm=(6.0, 2.0, 2.2))
GEOMETRY = Geometry((50, 130, 100), (3.0, 0.9, 1.1), (-40.0, 30.0, 500.0), ((0, 0, -1), (0, 1, 0), (1, 0, 0)))
"""Neither cubes nor head up: the first slice is the highest."""


def blob_ct(seed: int = 0, geometry: Geometry = GEOMETRY) -> Volume:
    """Noisy tissue in an ellipsoid off the centre, air around it."""
    random = np.random.default_rng(seed)
    grids = np.meshgrid(*(np.linspace(-1, 1, n) for n in geometry.shape), indexing="ij")
    body = sum((g - c) ** 2 for g, c in zip(grids, (0.1, -0.2, 0.15), strict=True)) < 0.5
    return Volume(np.where(body, random.normal(40, 60, geometry.shape), -1000).astype(np.float32), geometry)


def two_districts(upright: Volume) -> LabelArray:
    """Everything denser than air: label 1 in the patient's right half, 2 in the left."""
    labels = (upright.array > -500).astype(np.uint8)
    labels[:, :, upright.array.shape[2] // 2 :] *= 2
    return labels


def halves(study: TrainingStudy) -> LabelArray:
    """The same rule, as training calls it."""
    return two_districts(study.ct)


def blob_study(lesions: LabelArray | None = None) -> TrainingStudy:
    """Uptake (SUV 0 to about 10) of other noise in the same ellipsoid; far more in the air around it."""
    suv = (np.abs(blob_ct(1).array) / 20).astype(np.float32)
    return TrainingStudy(blob_ct(), Volume(suv, GEOMETRY), "CT", lesions)


def blob_pair(segment: Segment = halves, *, plan: Plan = PLAN, keep_air: bool = False) -> Pair:
    return make_pair(blob_study(), segment, plan, name="s", patient="p", keep_air=keep_air)


class HalvesSegmenter:
    """The same rule, as the service calls it."""

    name = "halves"
    segmenter_hash = "0" * 64

    def segment(self, ct: Volume) -> DistrictMap:
        return DistrictMap(two_districts(ct), ct.geometry, self.name, self.segmenter_hash)


class Recorder(nn.Module):
    """Keeps every window that it is given, context included, and answers with air."""

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[bytes] = []
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, *inputs: Tensor) -> Tensor:
        self.windows += [b"".join(one.numpy().tobytes() for one in given) for given in zip(*inputs, strict=True)]
        return torch.zeros_like(inputs[0][:, :1])


@pytest.mark.parametrize(
    ("scaling", "architecture", "pet_spacing"),
    [
        ("window", PAPER, "the CT's"),
        ("window", PAPER, "the Plan's"),
        ("per-volume", PAPER, "the Plan's"),
        ("window", Architecture("unet", 1, soft_tissue=True, context=True), "the Plan's"),
        ("per-volume", Architecture("unet", 1, context=True), "the CT's"),
    ],
)
def test_training_and_serving_give_a_network_the_same_bytes(
    scaling: Literal["window", "per-volume"], architecture: Architecture, pet_spacing: str
) -> None:
    """Through the whole pipeline and through the sampler: every window of the one among those of the other.

    A PET of the CT's spacing comes to service's grid; one of the Plan's lies on it already and is left as it is.
    """
    plan = replace(PLAN, ct_scaling=scaling, hu_low=0.0)
    study = blob_study()
    if pet_spacing == "the Plan's":
        study = replace(study, pet=resample(study.pet, ct_on_grid(study.ct, plan).geometry, outside=0.0))
    partition = Partition("halves", MappingProxyType({"right": (1,), "left": (2,)}))
    networks: dict[str, nn.Module] = {"right": Recorder(), "left": Recorder()}
    card = Card("r", "0" * 64, plan, partition, architecture, segmenter="halves")
    package = ModelPackage(card, networks)
    served = translate_ct(blob_ct(), package, HalvesSegmenter(), PipelineOptions())
    pair = make_pair(study, halves, plan, name="s", patient="p")
    assert [array.dtype.str for array in (pair.ct, pair.pet, pair.labels)] == ["<i2", "<f2", "|u1"]
    around = pair_surroundings(pair, plan, architecture) if architecture.context else None
    for (name, network), label in zip(networks.items(), (1, 2), strict=True):
        padded = np.zeros(pair.shape, np.uint8)
        at = tuple(slice(c, c + n) for c, n in zip(pair.corner, pair.labels.shape, strict=True))
        padded[at] = pair.labels
        starts = windows_touching(padded == label)
        assert isinstance(network, Recorder) and len(network.windows) == len(starts) >= 8
        for start, window in zip(starts, network.windows, strict=True):
            patch = patch_at(pair, (label,), start, plan, architecture, around)
            context = b"" if patch.context is None else patch.context.tobytes()
            assert patch.ct.tobytes() + context == window, f"{name} at {start}"
    assert served.districts[served.districts > 0].size == (pair.labels > 0).sum()


def test_the_pet_lies_on_the_ct_and_keeps_what_a_plan_would_clip() -> None:
    """Oracle: the steps written out, on the whole field of view."""
    study = TrainingStudy(blob_ct(), Volume(np.abs(blob_ct(1).array), GEOMETRY), "CT")
    pair = make_pair(study, halves, PLAN, name="s", patient="p")
    grid = ct_on_grid(study.ct, PLAN).geometry
    whole = resample(study.pet, grid, outside=0.0).array
    offset = [corner - max(0, 32 - n) // 2 for corner, n in zip(pair.corner, grid.shape, strict=True)]
    box = tuple(slice(o, o + n) for o, n in zip(offset, pair.pet.shape, strict=True))
    np.testing.assert_array_equal(pair.pet, whole[box].astype(np.float16))
    np.testing.assert_allclose(pair.pet.astype(np.float32), whole[box], rtol=2.0**-11, atol=1e-7)
    assert pair.pet.max() > PLAN.suv_max


def test_a_pet_of_the_plans_spacing_is_kept_voxel_by_voxel_and_the_ct_comes_to_it() -> None:
    """Paper II-B, on a PET whose voxels lie between the CT's and whose field of view is wider here, narrower there.

    Oracle: its values by their place in mm, and service's own step onto its grid; 2.01 mm counts as the Plan's 2 mm.
    """
    random, ct = np.random.default_rng(3), blob_ct()
    grid = Geometry((15, 50, 60), (6.0, 2.01, 2.2), (-48.3, 35.1, 352.4))
    pet = Volume(random.uniform(0.0, 9.0, grid.shape).astype(np.float32), grid)
    lesions = (random.random(grid.shape) < 0.1).astype(np.uint8)
    whole = on_plan_grid(TrainingStudy(ct, pet, "CT", lesions), halves, PLAN)
    lattice, interpolation = training_grid(ct.canonical().geometry, grid, PLAN)
    assert interpolation == "nearest" and whole.ct.shape == lattice.shape and lattice.spacing_mm == grid.spacing_mm
    shift = np.rint(np.linalg.inv(grid.affine) @ [*lattice.origin_lps_mm, 1.0]).astype(int)[:3]
    inside = tuple(slice(max(0, -s), min(n, m - s)) for s, n, m in zip(shift, lattice.shape, grid.shape, strict=True))
    there = tuple(slice(i.start + s, i.stop + s) for i, s in zip(inside, shift, strict=True))
    seen = np.zeros(lattice.shape, np.bool_)
    seen[inside] = True
    assert seen.any() and not seen.all()
    np.testing.assert_array_equal(whole.pet[inside], pet.array[there].astype(np.float16))
    assert whole.lesions is not None
    np.testing.assert_array_equal(whole.lesions[inside], lesions[there])
    assert not whole.pet[~seen].any() and not whole.labels[~seen].any() and 0.3 < whole.covered < 1.0
    np.testing.assert_array_equal(whole.ct, resampled_ct(ct.canonical(), lattice).array.astype(np.int16))
    districts = resample_labels(two_districts(ct.canonical()), ct.canonical().geometry, lattice)
    np.testing.assert_array_equal(whole.labels, np.where(seen, districts, 0))


def test_a_pet_that_is_turned_against_its_ct_keeps_its_values_and_the_ct_is_turned_to_it() -> None:
    """As after a motion that was taken back. Oracle: each value is one of the PET's, and uptake lies in tissue."""
    phantom = trunk()
    turned = MovedPhantom(3.0, (4.0, -5.0, 4.8)).moved(phantom.geometry)
    pet = resample(phantom.pet, turned, outside=0.0)
    study, plan = TrainingStudy(phantom.ct, pet, "phantom", truth=phantom.districts), Plan(phantom.geometry.spacing_mm)
    pair = make_pair(study, phantom_truth, plan, name="s", patient="p")
    measured, uptake = pair.pet[pair.labels > 0], pair.pet > 0.3
    assert np.isin(measured, pet.array.astype(np.float16)).all() and uptake.any()
    assert (pair.ct[uptake] > -900).mean() > 0.97


@pytest.mark.parametrize(("where", "change_at_most"), [("pet", 0.001), ("ct", 1.0)])
def test_a_lesions_highest_suv_is_the_pets_own(where: Literal["pet", "ct"], change_at_most: float) -> None:
    """autoPET's voxels: a lesion of two of them, and a CT of 0.98 mm. Laid on the CT's grid it loses its peak."""
    plan = Plan(training_grid=where)
    ct = blob_ct(geometry=Geometry((64, 130, 130), (3.0, 0.98, 0.98), (-60.4, -63.7, 11.2)))
    grid = Geometry((60, 60, 60), (3.0, 2.0364, 2.0364), (-58.1, -61.3, 15.6))
    suv, lesions = np.full(grid.shape, 1.0, np.float32), np.zeros(grid.shape, np.uint8)
    suv[30, 28, 31:33], lesions[30, 28, 31:33] = (15.3, 14.1), 1
    pair = make_pair(TrainingStudy(ct, Volume(suv, grid), "CT", lesions), halves, plan, name="s", patient="p")
    assert pair.lesions is not None
    highest = float(pair.pet[pair.lesions > 0].max())
    assert abs(highest / 15.3 - 1.0) <= change_at_most
    assert (where == "pet") == (abs(highest / 15.3 - 1.0) < 0.01)


def test_the_ct_is_kept_as_whole_hu_with_the_range_of_the_whole_image() -> None:
    pair, whole = blob_pair(), ct_on_grid(blob_ct(), PLAN).array
    assert pair.hu_range == (int(whole.min()), int(whole.max()))
    assert set(np.unique(pair.ct)) <= set(np.unique(whole))


def test_what_the_pet_does_not_show_has_no_district() -> None:
    """A PET that ends in the middle of the CT: the other half is neither learnt nor scored."""
    study = blob_study()
    half = TrainingStudy(study.ct, study.pet.cropped((slice(0, 25), slice(0, 130), slice(0, 100))), "CT")
    whole, shown = on_plan_grid(study, halves, PLAN), on_plan_grid(half, halves, PLAN)
    assert whole.covered == 1.0
    assert 0.3 < shown.covered < 0.7
    assert shown.covered == pytest.approx((shown.labels > 0).sum() / (whole.labels > 0).sum())
    missing = shown.labels != whole.labels
    assert missing.any() and not shown.labels[missing].any() and not shown.pet[missing].any()
    np.testing.assert_array_equal(shown.ct, whole.ct)


def test_lesions_come_to_the_grid_by_the_nearest_neighbour() -> None:
    """Lesions lie on the PET's grid, whose axes run the other way; their place in mm is the oracle."""
    lesions = np.zeros(GEOMETRY.shape, np.uint8)
    lesions[20:30, 50:70, 40:60] = 1
    pair = make_pair(blob_study(lesions), halves, PLAN, name="s", patient="p", keep_air=True)
    assert pair.lesions is not None and pair.lesions.dtype == np.uint8
    on_grid = ct_on_grid(blob_ct(), PLAN).geometry
    centre = np.argwhere(pair.lesions).mean(0)
    expected = GEOMETRY.position_lps_mm((24.5, 59.5, 49.5))
    found = on_grid.position_lps_mm((float(centre[0]), float(centre[1]), float(centre[2])))
    np.testing.assert_allclose(found, expected, atol=max(PLAN.spacing_mm) / 2)


def test_a_pair_is_cut_to_the_body_unless_air_is_wanted() -> None:
    cut, whole = blob_pair(), blob_pair(keep_air=True)
    assert cut.shape == whole.shape
    assert np.prod(cut.ct.shape) < np.prod(whole.ct.shape)
    assert (cut.labels > 0).sum() == (whole.labels > 0).sum()
    assert all((cut.labels > 0).any(axis=others).all() for others in ((1, 2), (0, 2), (0, 1)))


def test_a_ct_without_a_body_is_rejected() -> None:
    with pytest.raises(Rejected, match="shows no body"):
        blob_pair(lambda study: np.zeros(study.ct.array.shape, np.uint8))


@pytest.mark.parametrize("value", [np.nan, np.inf, 40000.0])
def test_values_that_are_no_hu_are_rejected(value: float) -> None:
    study = blob_study()
    study.ct.array[3, 4, 5] = value
    with pytest.raises(Rejected, match="no HU"):
        make_pair(study, halves, PLAN, name="s", patient="p")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e5])
def test_values_that_are_no_suv_are_rejected(value: float) -> None:
    study = blob_study()
    study.pet.array[3, 4, 5] = value
    with pytest.raises(Rejected, match="no SUV"):
        make_pair(study, halves, PLAN, name="s", patient="p")


def test_phantoms_become_pairs_with_their_own_districts() -> None:
    """Drawn on the Plan's own spacing, so nothing is resampled: the labels are the phantom's, cut to its body."""
    config = DataConfig(count=2, held_out=1, seed=11, segmenter="truth")
    calls: list[tuple[int, int]] = []
    coarse = Plan(spacing_mm=(12.0, 11.0, 10.0))
    pairs = make_pairs(config, coarse, keep_air=False, progress=lambda made, total: calls.append((made, total)))
    assert calls == [(1, 2), (2, 2)]
    phantom = make_phantom(12, sample_options(12, spacing_mm=coarse.spacing_mm))
    rows = [np.flatnonzero((phantom.districts > 0).any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    box = tuple(slice(int(row[0]), int(row[-1]) + 1) for row in rows)
    np.testing.assert_array_equal(pairs[1].labels, phantom.districts[box])
    np.testing.assert_array_equal(pairs[1].pet, phantom.pet.array[box].astype(np.float16))
    np.testing.assert_array_equal(pairs[1].ct, np.rint(phantom.ct.array[box]))
    assert [pair.patient for pair in pairs] == ["phantom-11", "phantom-12"]
    assert pairs[1].diagnosis == phantom.diagnosis
    assert fingerprint(pairs) == fingerprint(pairs) != fingerprint(pairs[:1])


def test_a_patients_true_districts_are_not_asked_for() -> None:
    with pytest.raises(Rejected, match="Only a phantom has true districts"):
        phantom_truth(blob_study())


def test_landmarks_are_the_embedded_segmenters_districts() -> None:
    phantom = make_phantom(12, sample_options(12, spacing_mm=(12.0, 11.0, 10.0)))
    study = TrainingStudy(phantom.ct, phantom.pet, "phantom")
    np.testing.assert_array_equal(landmarks(study), LandmarkSegmenter().segment(phantom.ct).labels)
