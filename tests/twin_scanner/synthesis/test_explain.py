"""Attributions of the served PET; oracles: planted causes with a formula, the translation itself, a trained phantom."""

import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import nn

from tests.samples.known_networks import (
    SEEING,
    TRUNK,
    Displaced,
    package_of,
    small_study,
    stitched,
    unet_package,
    with_plan,
)
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import FloatArray, LabelArray, Volume, read_nifti, write_nifti
from twin_scanner.models.card import Architecture, Stitching
from twin_scanner.models.inputs import ct_channels
from twin_scanner.models.package import ModelPackage
from twin_scanner.models.partition import DISTRICTS, WHOLE_VOLUME
from twin_scanner.models.plan import Plan, model_to_suv
from twin_scanner.pictures.explanation import write_explanation
from twin_scanner.synthesis.explain import (
    Baseline,
    Method,
    Target,
    explain,
    find_target,
    mask_target,
    voxel_target,
)
from twin_scanner.synthesis.translate import translate

pytestmark = pytest.mark.unit

SHAPE = (38, 44, 41)
OFFSET = (0, 6, 3)
VOXEL = (20, 14, 17)
CAUSE = (20, 20, 20)
"""VOXEL and OFFSET."""


def planted() -> ModelPackage:
    """A network whose uptake is, in model space, the square of the CT at OFFSET."""
    return package_of({"trunk": Displaced(OFFSET, torch.square)}, TRUNK)


def served_suv(ct: Volume, labels: LabelArray, package: ModelPackage) -> FloatArray:
    made = translate(ct_channels(ct.array, package.plan, package.architecture), labels, package)
    return model_to_suv(made, package.plan)


def share_of_windows_with_the_cause() -> float:
    """Of the windows that cover VOXEL, those that hold CAUSE too: starts are 0 and 6, 0 and 12, 0 and 9."""
    starts = [(0, 6), (0, 12), (0, 9)]
    both = [[s for s in axis if s <= at and c < s + 32] for axis, at, c in zip(starts, VOXEL, CAUSE, strict=True)]
    covering = [[s for s in axis if s <= at < s + 32] for axis, at in zip(starts, VOXEL, strict=True)]
    return float(np.prod([len(b) / len(c) for b, c in zip(both, covering, strict=True)]))


@pytest.mark.parametrize("baseline", ["air", "soft-tissue"])
def test_integrated_gradients_give_a_planted_cause_all_of_the_uptake_by_formula(baseline: Baseline) -> None:
    ct, labels = small_study(SHAPE)
    labels[labels == 1] = 2
    made = explain(ct, labels, planted(), voxel_target("cause", VOXEL, labels), baseline=baseline)
    level = 0.0 if baseline == "air" else (40.0 + 1024.0) / 2048.0
    cause = (float(ct.array[CAUSE]) + 1024.0) / 2048.0
    expected = 20.0 * (cause**2 - level**2) * share_of_windows_with_the_cause()
    assert abs(expected) > 0.1
    assert made.attribution.array[CAUSE] == pytest.approx(expected, rel=1e-3)
    others = made.attribution.array.copy()
    others[CAUSE] = 0
    assert not others.any()
    assert made.as_json()["share_inside_target"] == 0.0


def test_occlusion_takes_a_planted_causes_uptake_away_with_its_block_and_no_other() -> None:
    ct, labels = small_study(SHAPE)
    labels[labels == 1] = 2
    made = explain(ct, labels, planted(), voxel_target("cause", VOXEL, labels), method="occlusion", block=8)
    block = tuple(slice(8 * (at // 8), 8 * (at // 8) + 8) for at in CAUSE)
    lost = made.attribution.array[block]
    expected = 20.0 * ((float(ct.array[CAUSE]) + 1024.0) / 2048.0) ** 2 * share_of_windows_with_the_cause()
    np.testing.assert_allclose(lost, expected, rtol=1e-5)
    assert np.count_nonzero(made.attribution.array) == lost.size
    labels[22:24, 16:24, 16:24] = 1
    less = explain(ct, labels, planted(), voxel_target("cause", VOXEL, labels), method="occlusion", block=8)
    np.testing.assert_allclose(less.attribution.array[16:22, 16:24, 16:24], expected, rtol=1e-5)
    assert not less.attribution.array[labels != 2].any(), "no network sees the head here"


@pytest.mark.parametrize("shape", [(50, 33, 47), (20, 40, 33)], ids=str)
@pytest.mark.parametrize("partition", [DISTRICTS, WHOLE_VOLUME], ids=lambda p: p.name)
def test_what_is_explained_is_what_is_served(shape: tuple[int, int, int], partition: object) -> None:
    """The target's mean SUV, of the CT and of its baseline, by ``translate``, which knows nothing of explanations."""
    (ct, labels), package = small_study(shape), unet_package(partition)  # type: ignore[arg-type]
    mask = np.zeros(shape, np.bool_)
    mask[shape[0] // 2 : -2, 14:18, 12:15] = True
    made = explain(ct, labels, package, Target("both", mask), method="occlusion", baseline="soft-tissue", block=32)
    flat = Volume(np.full(shape, 40.0, np.float32), ct.geometry)
    suv, of_baseline = (float(served_suv(image, labels, package)[mask].mean()) for image in (ct, flat))
    assert abs(suv - of_baseline) > 0.02
    assert made.suv == pytest.approx(suv, rel=1e-4)
    assert made.suv_baseline == pytest.approx(of_baseline, rel=1e-4)


@pytest.mark.parametrize(
    ("method", "stitching"), [("integrated-gradients", "gaussian"), ("occlusion", "uniform"), ("occlusion", "gaussian")]
)
def test_a_network_that_sees_a_context_is_explained_by_its_window(method: Method, stitching: Stitching) -> None:
    """The SUV is the served one; the baseline is the window's, which the body around it does not follow."""
    ct, labels = small_study((40, 32, 32))
    package = stitched(unet_package(architecture=SEEING), stitching)
    mask = np.zeros(labels.shape, np.bool_)
    mask[10:24, 20:24, 20:23] = True
    made = explain(ct, labels, package, Target("lesion", mask), method=method, baseline="soft-tissue", block=32)
    assert made.suv == pytest.approx(float(served_suv(ct, labels, package)[mask].mean()), rel=1e-4)
    flat = served_suv(Volume(np.full(labels.shape, 40.0, np.float32), ct.geometry), labels, package)
    assert made.suv_baseline != pytest.approx(float(flat[mask].mean()), rel=1e-4)
    assert made.attribution.array.any() and not made.attribution.array[labels == 0].any()


@pytest.mark.parametrize(("scaling", "architecture"), [("window", None), ("per-volume", None), ("window", SEEING)])
def test_integrated_gradients_sum_to_the_difference_from_the_baseline(
    scaling: str, architecture: Architecture | None
) -> None:
    ct, labels = small_study((36, 32, 32))
    package = with_plan(unet_package(architecture=architecture), Plan(ct_scaling=scaling))  # type: ignore[arg-type]
    mask = np.zeros(labels.shape, np.bool_)
    mask[10:24, 20:24, 20:23] = True
    made = explain(ct, labels, package, Target("lesion", mask), baseline="soft-tissue")
    difference = made.suv - made.suv_baseline
    total = float(made.attribution.array.sum(dtype=np.float64))
    assert abs(difference) > 0.02
    assert total == pytest.approx(difference, rel=0.03)
    assert made.completeness_error == pytest.approx(total - difference, abs=1e-6) and made.complete


def test_an_attribution_that_misses_its_sum_says_that_it_is_not_complete() -> None:
    """A step at half the brightness: no number of points on the path sees a jump whose slope is 0 everywhere."""
    ct, labels = small_study((32, 32, 32))
    jump = package_of({"trunk": Displaced((0, 0, 0), lambda ct: (ct > 0.25).float() + 0.0 * ct)}, TRUNK)
    made = explain(ct, labels, jump, voxel_target("v", (10, 10, 10), labels))
    assert made.suv == 20.0 and made.suv_baseline == 0.0
    assert made.completeness_error == -20.0 and not made.complete
    assert made.as_json()["complete"] is False


def test_what_lies_in_other_districts_and_outside_the_windows_has_no_part() -> None:
    ct, labels = small_study((70, 44, 41))
    made = explain(ct, labels, unet_package(), voxel_target("v", (12, 20, 20), labels), baseline="soft-tissue")
    assert not made.attribution.array[labels == 0].any()
    assert not made.attribution.array[48:].any(), "windows of the voxel start at 0 and end before 32, or at 16"
    assert made.attribution.array[labels == 2].any()


def trained_phantom() -> tuple[nn.Module, Volume, LabelArray, Target, dict[str, tuple[slice, slice, slice]]]:
    """A network trained on cubes: the uptake at a mark is the brightness of the cause before it, not of the decoy.

    It is trained where the mark is, on all that the mark's voxels see.
    """
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    boxes = {
        name: (slice(14, 18), slice(at, at + 4), slice(14, 18)) for name, at in zip("cmd", (6, 14, 22), strict=True)
    }
    convolution = nn.Conv3d(1, 1, (1, 5, 1), padding=(0, 8, 0), dilation=(1, 4, 1))
    network = nn.Sequential(convolution, nn.Sigmoid())
    optimiser = torch.optim.Adam(network.parameters(), 0.05)
    for _ in range(400):
        brightness = random.random((4, 2)).astype(np.float32)
        ct = torch.full((4, 1, 32, 32, 32), 0.2)
        ct[:, :, *boxes["m"]] = 1.0
        for name, column in (("c", 0), ("d", 1)):
            ct[:, :, *boxes[name]] = torch.from_numpy(brightness[:, column, None, None, None, None])
        seen = ct[..., 14:18, 6:26, 14:18]
        logits = nn.functional.conv3d(seen, convolution.weight, convolution.bias, dilation=(1, 4, 1))
        made = torch.sigmoid(logits)[:, 0]
        loss = (made - torch.from_numpy(brightness[:, 0, None, None, None])).square().mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert loss.item() < 0.005, "an untrained network would prove nothing"
    values = np.full((32, 32, 32), 0.2, np.float32)
    values[boxes["m"]], values[boxes["c"]], values[boxes["d"]] = 1.0, 0.8, 0.8
    volume, labels = small_study((32, 32, 32))
    labels[:] = 2
    mask = np.zeros(labels.shape, np.bool_)
    mask[boxes["m"]] = True
    return (
        network.requires_grad_(False),
        Volume(values * 2048 - 1024, volume.geometry),
        labels,
        Target("mark", mask),
        boxes,
    )


def test_a_trained_network_is_explained_by_the_cause_it_learnt_and_not_by_the_decoy() -> None:
    network, ct, labels, target, boxes = trained_phantom()
    package = package_of({"trunk": network}, TRUNK)
    shares = {}
    for method in ("integrated-gradients", "occlusion"):
        made = explain(ct, labels, package, target, method=method, baseline="soft-tissue", block=4)
        evidence = {name: float(made.attribution.array[box].sum()) for name, box in boxes.items()}
        shares[method] = evidence["c"] / abs(evidence["d"])
        assert evidence["c"] > 0
    assert shares["integrated-gradients"] > 5
    assert shares["occlusion"] > 5


def test_a_place_in_millimetres_and_its_index_are_one_target() -> None:
    ct, labels = small_study(SHAPE)
    x, y, z = ct.geometry.position_lps_mm((20.0, 14.0, 17.0))
    by_mm = find_target(f"mm:{x:.1f},{y:.1f},{z:.1f}", labels, ct.geometry)
    by_index = find_target("voxel:20,14,17", labels, ct.geometry)
    np.testing.assert_array_equal(by_mm.mask, by_index.mask)
    assert np.argwhere(by_mm.mask).tolist() == [[20, 14, 17]]
    assert find_target("mm:-10.6,40.5,460", labels, ct.geometry).mask[20, 14, 10]


def test_a_district_and_a_label_of_a_mask_are_targets(tmp_path: Path) -> None:
    ct, labels = small_study(SHAPE)
    np.testing.assert_array_equal(find_target("head", labels, ct.geometry).mask, labels == 1)
    lesions = np.zeros(SHAPE, np.uint8)
    lesions[20, 20, 20], lesions[25, 20, 20] = 1, 3
    path = tmp_path / "lesions.nii.gz"
    write_nifti(path, lesions, ct.geometry)
    np.testing.assert_array_equal(find_target(str(path), labels, ct.geometry).mask, lesions > 0)
    np.testing.assert_array_equal(find_target(f"{path}:3", labels, ct.geometry).mask, lesions == 3)
    with pytest.raises(Rejected, match="holds no voxel"):
        find_target(f"{path}:2", labels, ct.geometry)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("voxel:99,0,0", "outside the image"),
        ("voxel:-3,4,4", "outside the image"),
        ("mm:9999,0,0", "outside the image"),
        ("voxel:0,0,0", "outside the body"),
        ("spleen", "is no target: .*head, trunk"),
        ("voxel:1,2", "is no target"),
        ("none.nii.gz", "does not exist"),
    ],
)
def test_a_target_that_names_nothing_in_the_body_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    ct, labels = small_study(SHAPE)
    with pytest.raises(Rejected, match=sentence) as refused:
        find_target(text, labels, ct.geometry)
    assert str(refused.value).count(". ") == 0


def test_a_mask_on_another_grid_is_refused() -> None:
    ct, labels = small_study(SHAPE)
    for grid in (ct.geometry.with_spacing((3.1, 2.04, 2.04)), small_study((30, 44, 41))[0].geometry):
        with pytest.raises(Rejected, match="lies on another grid than the synthetic PET"):
            mask_target("lesion", np.ones(grid.shape, np.bool_), grid, labels, ct.geometry)


def test_a_district_that_the_model_does_not_cover_is_refused() -> None:
    ct, labels = small_study(SHAPE)
    with pytest.raises(Rejected, match="synthesised nothing in 'head'"):
        explain(ct, labels, planted(), find_target("head", labels, ct.geometry))


@pytest.mark.parametrize("block", [0, 33])
def test_occlusion_in_impossible_blocks_is_refused(block: int) -> None:
    ct, labels = small_study(SHAPE)
    with pytest.raises(Rejected, match="blocks of"):
        explain(ct, labels, planted(), voxel_target("v", VOXEL, labels), method="occlusion", block=block)


def test_progress_counts_every_window_of_the_target_once() -> None:
    ct, labels = small_study(SHAPE)
    calls: list[tuple[int, int]] = []
    explain(ct, labels, planted(), voxel_target("v", VOXEL, labels), progress=lambda *call: calls.append(call))
    assert calls[-1] == (8, 8) and calls == sorted(calls)


def test_the_files_hold_the_attribution_and_a_picture_that_shows_it_red_on_grey(tmp_path: Path) -> None:
    ct, labels = small_study(SHAPE)
    labels[labels == 1] = 2
    mask = np.zeros(SHAPE, np.bool_)
    mask[18:23, 12:17, 15:20] = True
    made = explain(ct, labels, planted(), Target("lesion", mask))
    nifti, picture = write_explanation(tmp_path / "out", made, ct)
    stored = read_nifti(nifti)
    assert stored.geometry.same_grid(ct.geometry)
    np.testing.assert_array_equal(stored.array, made.attribution.array)
    pixels = np.asarray(matplotlib.image.imread(picture))[..., :3]
    red = (pixels[..., 0] > pixels[..., 2] + 0.3) & (pixels[..., 1] < 0.5)
    blue = (pixels[..., 2] > pixels[..., 0] + 0.3) & (pixels[:, :, 1] < 0.5)
    yellow = (pixels[..., 0] > 0.9) & (pixels[..., 1] > 0.7) & (pixels[..., 2] < 0.2)
    panels = np.s_[100:, : int(0.85 * pixels.shape[1])]
    assert red[panels].sum() > 500 and yellow[panels].sum() > 50 and not blue[panels].any()
    again = write_explanation(tmp_path / "again", made, ct)[1]
    assert again.read_bytes() == picture.read_bytes()
    assert json.loads(json.dumps(made.as_json()))["unit"] == "SUV per voxel"
