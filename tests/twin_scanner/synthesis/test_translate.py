"""Windows, averaging and stitching; the oracle is MONAI's sliding_window_inference, masked as in paper eq. 7, 15."""

import itertools
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from tests.samples.known_networks import package_of as known_package
from twin_scanner.errors import Transient
from twin_scanner.imaging.volume import FloatArray, LabelArray, Shape
from twin_scanner.models.card import Architecture, Card, Stitching
from twin_scanner.models.compute import Compute
from twin_scanner.models.device import placed
from twin_scanner.models.inputs import context_cells, ct_channels
from twin_scanner.models.networks import WINDOW
from twin_scanner.models.package import ModelPackage, build_network
from twin_scanner.models.partition import DISTRICTS, WHOLE_VOLUME, Partition
from twin_scanner.models.plan import Plan
from twin_scanner.synthesis.translate import (
    missing_districts,
    total_weights,
    translate,
    window_starts,
    window_weights,
    windows_touching,
)

pytestmark = pytest.mark.unit

SHAPES = [(50, 32, 61), (33, 70, 29), (20, 25, 30)]
"""An axis below 32, an axis that is no multiple of 16, a window exactly, and a volume smaller than one window."""
STITCHINGS: list[tuple[Stitching, str]] = [("uniform", "constant"), ("gaussian", "gaussian")]
"""Our name and MONAI's of each."""


def package_of(
    partition: Partition,
    memory_format: torch.memory_format = torch.contiguous_format,
    architecture: Architecture = Architecture("unet", 4),  # noqa: B008
) -> ModelPackage:
    """Untrained networks, one seed each; spread out so that they say more than one value."""
    networks: dict[str, nn.Module] = {}
    for seed, name in enumerate(partition.networks):
        torch.manual_seed(seed)
        network = build_network(architecture).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.dim() == 5:
                    parameter.mul_(8.0)
        networks[name] = network.to(memory_format=memory_format)  # type: ignore[call-overload]
    return ModelPackage(Card("test", "0" * 64, Plan(), partition, architecture), networks)


def ct_and_labels(shape: Shape, seed: int = 3) -> tuple[FloatArray, LabelArray]:
    """A noisy CT and blobs of every district, air around and between them."""
    random = np.random.default_rng(seed)
    ct = random.random(shape, np.float32)
    coarse = random.integers(0, 5, tuple(-(-n // 7) for n in shape)).astype(np.uint8)
    labels = np.kron(coarse, np.ones((7, 7, 7), np.uint8))[: shape[0], : shape[1], : shape[2]]
    return ct, np.ascontiguousarray(labels)


def monai(network: nn.Module, ct: FloatArray, mode: str) -> FloatArray:
    """MONAI's answer over every window of the volume, air included; its own default width where it is Gaussian."""
    with torch.inference_mode():
        pet = sliding_window_inference(torch.from_numpy(ct)[None, None], (WINDOW,) * 3, 4, network, 0.5, mode)
    assert isinstance(pet, torch.Tensor)
    return np.asarray(pet[0, 0].numpy())


def expected(ct: FloatArray, labels: LabelArray, package: ModelPackage, mode: str = "constant") -> FloatArray:
    """Paper eq. 7, 12-15 by MONAI: mask the CT, infer everywhere, place by the mask."""
    pet = np.zeros_like(ct)
    for name, covered in package.partition.networks.items():
        mask = np.isin(labels, covered) if covered else np.ones(labels.shape, bool)
        pet[mask] = monai(package.networks[name], ct * mask, mode)[mask]
    return pet


@pytest.mark.parametrize(("stitching", "mode"), STITCHINGS)
@pytest.mark.parametrize("partition", [DISTRICTS, WHOLE_VOLUME], ids=lambda p: p.name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_voxel_equals_monai(shape: Shape, partition: Partition, stitching: Stitching, mode: str) -> None:
    ct, labels = ct_and_labels(shape)
    package = package_of(partition)
    pet = translate(ct[None], labels, package, stitching=stitching, batch_windows=3)
    oracle = expected(ct, labels, package, mode)
    assert pet.shape == shape and pet.dtype == np.float32
    assert oracle[labels > 0].std() > 1e-2, "networks that say one value everywhere would prove nothing"
    np.testing.assert_allclose(pet, oracle, rtol=0, atol=1e-5)


@pytest.mark.parametrize("partition", [DISTRICTS, WHOLE_VOLUME], ids=lambda p: p.name)
def test_channels_last_networks_equal_monai_within_a_ten_thousandth(partition: Partition) -> None:
    ct, labels = ct_and_labels(SHAPES[1])
    oracle = expected(ct, labels, package_of(partition))
    pet = translate(ct[None], labels, package_of(partition, torch.channels_last_3d))
    np.testing.assert_allclose(pet, oracle, rtol=0, atol=1e-4)


def window_by_window(hu: FloatArray, labels: LabelArray, package: ModelPackage) -> FloatArray:
    """A plain loop: each window alone, its context averaged from the whole body in float64, then summed and divided."""
    channels = ct_channels(hu, package.plan, package.architecture)
    body = np.pad((channels * (labels > 0)).astype(np.float64), [(0, 0), *[(64, 96)] * 3])
    pet = np.zeros(labels.shape, np.float32)
    for name, covered in package.partition.networks.items():
        mask = np.isin(labels, covered)
        total, count = np.zeros((2, *labels.shape))
        for d, h, w in itertools.product(*(window_starts(length) for length in labels.shape)):
            cube = (slice(d, d + 32), slice(h, h + 32), slice(w, w + 32))
            if not mask[cube].any():
                continue
            at = [4 * cell + 64 for cell in context_cells((d, h, w))]
            coarse = body[:, *(slice(first, first + 128) for first in at)].reshape(-1, 32, 4, 32, 4, 32, 4)
            inputs = (channels[:, *cube] * mask[cube], coarse.mean(axis=(2, 4, 6)).astype(np.float32))
            with torch.inference_mode():
                made = package.networks[name](*(torch.from_numpy(one)[None] for one in inputs))
            total[cube] += made[0, 0].numpy()
            count[cube] += 1
        pet[mask] = (total[mask] / count[mask]).astype(np.float32)
    return pet


def test_a_network_that_sees_a_context_equals_a_plain_loop() -> None:
    """Axes that are multiples of four, so that every cell of the oracle is whole; the context must matter."""
    architecture = Architecture("unet", 4, soft_tissue=True, context=True)
    noise, labels = ct_and_labels((60, 36, 48))
    hu = (800.0 * noise - 400.0).astype(np.float32)
    package = package_of(DISTRICTS, architecture=architecture)
    channels = ct_channels(hu, package.plan, architecture)
    pet = translate(channels, labels, package, batch_windows=5)
    np.testing.assert_allclose(pet, window_by_window(hu, labels, package), rtol=0, atol=1e-5)
    other = channels.copy()
    other[:, labels == 1] = 0.0
    changed = translate(other, labels, package)
    assert np.abs(changed - pet)[labels == 2].max() > 1e-3, "another district is part of the context"


def test_the_weights_of_a_window_are_monais() -> None:
    for stitching, mode in STITCHINGS:
        oracle = compute_importance_map((WINDOW,) * 3, mode).numpy()
        np.testing.assert_allclose(window_weights(stitching), oracle, rtol=1e-5, atol=0)


def test_the_uniform_average_divides_by_the_number_of_windows_exactly() -> None:
    """The number is the product of those along the axes: what was divided by before there was a choice."""
    shape = (50, 33, 70)
    along = [
        np.sum([[s <= v < s + WINDOW for v in range(n)] for s in window_starts(n)], axis=0, dtype=np.float32)
        for n in shape
    ]
    planes = np.stack(list(total_weights(shape, window_weights("uniform"))))
    np.testing.assert_array_equal(planes, along[0][:, None, None] * along[1][:, None] * along[2])


def test_the_packages_own_stitching_is_used_unless_another_is_asked_for() -> None:
    ct, labels = ct_and_labels((50, 40, 40))
    package = package_of(DISTRICTS)
    gaussian = replace(package, card=replace(package.card, stitching="gaussian"))
    own, asked = translate(ct[None], labels, gaussian), translate(ct[None], labels, package, stitching="gaussian")
    np.testing.assert_array_equal(own, asked)
    assert np.abs(own - translate(ct[None], labels, package)).max() > 1e-3


def test_a_finer_partition_needs_no_code() -> None:
    """Two organs in one network, one in another, by labels above 4."""
    fine = Partition("organs", MappingProxyType({"a": (7, 9), "b": (200,)}))
    ct, blobs = ct_and_labels((40, 40, 40))
    labels = np.array([0, 7, 9, 200, 200], np.uint8)[blobs]
    package = package_of(fine)
    np.testing.assert_allclose(translate(ct[None], labels, package), expected(ct, labels, package), rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [32, 33, 47, 48, 49, 64, 100, 147, 245])
def test_windows_start_where_monai_puts_them(length: int) -> None:
    slices = dense_patch_slices((length,), (WINDOW,), (16 if length > WINDOW else WINDOW,))
    assert window_starts(length) == [part[0].start for part in slices]


def test_only_windows_that_touch_the_mask_are_run() -> None:
    mask = np.zeros((100, 64, 64), np.bool_)
    mask[50, 40, 20] = True
    oracle = [
        tuple(part.start for part in window)
        for window in dense_patch_slices(mask.shape, (WINDOW,) * 3, (16,) * 3)
        if mask[window].any()
    ]
    assert windows_touching(mask) == oracle
    assert 0 < len(oracle) < 30


def test_what_lies_outside_a_district_does_not_change_it() -> None:
    ct, labels = ct_and_labels((40, 40, 40))
    package = package_of(DISTRICTS)
    changed = np.where(labels == 2, ct, 1.0 - ct).astype(np.float32)
    before, after = translate(ct[None], labels, package), translate(changed[None], labels, package)
    np.testing.assert_array_equal(after[labels == 2], before[labels == 2])


def test_the_batch_a_window_shares_does_not_change_it() -> None:
    ct, labels = ct_and_labels((60, 40, 40))
    package = package_of(DISTRICTS)
    one, many = (translate(ct[None], labels, package, batch_windows=n) for n in (1, 11))
    np.testing.assert_allclose(one, many, rtol=0, atol=1e-6)


def test_air_is_zero_and_an_empty_body_needs_no_network() -> None:
    ct, labels = ct_and_labels((40, 40, 40))
    package = package_of(DISTRICTS)
    assert not translate(ct[None], labels, package)[labels == 0].any()
    assert not translate(ct[None], np.zeros_like(labels), package).any()


def test_districts_without_a_network_are_named() -> None:
    head_only = Partition("head", MappingProxyType({"head": (1,)}))
    labels = np.array([[[0, 1, 2], [4, 4, 9]]], np.uint8)
    assert missing_districts(labels, head_only) == ("trunk", "legs", "label 9")
    assert missing_districts(labels, WHOLE_VOLUME) == ()
    assert missing_districts(np.zeros_like(labels), head_only) == ()


def test_progress_counts_every_window_once() -> None:
    ct, labels = ct_and_labels((50, 40, 40))
    calls: list[tuple[int, int]] = []
    translate(
        ct[None],
        labels,
        package_of(DISTRICTS),
        batch_windows=5,
        progress=lambda done, total: calls.append((done, total)),
    )
    windows = sum(len(windows_touching(labels == label)) for label in range(1, 5))
    assert calls[-1] == (windows, windows)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_labels_on_another_grid_are_a_fault_of_the_caller() -> None:
    ct, labels = ct_and_labels((40, 40, 40))
    with pytest.raises(ValueError, match="do not lie on the CT"):
        translate(ct[None], labels[1:], package_of(DISTRICTS))


class Crowded(nn.Module):
    """A network on a device whose memory has room for so many windows; it writes down how many it was given."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((1,), 0.5), requires_grad=False)
        self.room = room
        self.given: list[int] = []

    def forward(self, ct: Tensor) -> Tensor:
        self.given.append(len(ct))
        if len(ct) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.gain * ct


def test_a_device_too_small_for_a_batch_takes_half_of_it() -> None:
    ct, labels = ct_and_labels((50, 40, 40))
    crowded = Crowded(room=3)
    partition = Partition("body", MappingProxyType({"body": (1, 2, 3, 4)}))
    calls: list[tuple[int, int]] = []
    progress = lambda done, total: calls.append((done, total))  # noqa: E731
    pet = translate(ct[None], labels, known_package({"body": crowded}, partition), progress=progress)
    np.testing.assert_allclose(pet, np.where(labels > 0, 0.5 * ct, 0.0), rtol=0, atol=1e-6)
    windows = len(windows_touching(labels > 0))
    assert crowded.given[:4] == [windows, windows // 2, windows // 4, windows // 4]
    assert calls[-1] == (windows, windows)
    assert sum(given for given in crowded.given if given <= 3) == windows


def test_a_device_too_small_for_one_window_is_tried_again_later() -> None:
    ct, labels = ct_and_labels((40, 40, 40))
    partition = Partition("body", MappingProxyType({"body": (1, 2, 3, 4)}))
    with pytest.raises(Transient, match="The memory of cpu does not suffice"):
        translate(ct[None], labels, known_package({"body": Crowded(room=0)}, partition))


def test_a_translation_never_takes_tf32_and_leaves_the_setting_as_it_was() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    seen: list[tuple[bool, bool, str]] = []

    class Looks(Crowded):
        def forward(self, ct: Tensor) -> Tensor:
            setting = torch.backends.cudnn
            seen.append((setting.allow_tf32, setting.deterministic, setting.conv.fp32_precision))
            return super().forward(ct)

    ct, labels = ct_and_labels((40, 40, 40))
    partition = Partition("body", MappingProxyType({"body": (1, 2, 3, 4)}))
    translate(ct[None], labels, known_package({"body": Looks(room=99)}, partition))
    assert set(seen) == {(False, True, "ieee")}
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == before


def test_a_resident_package_translates_with_the_arithmetic_that_it_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    package = package_of(DISTRICTS)
    channels, labels = ct_and_labels((40, 36, 40))
    expected = translate(channels[None], labels, package)
    resident = placed(package, Compute())
    monkeypatch.setattr("twin_scanner.synthesis.translate.quickest", None)
    np.testing.assert_array_equal(translate(channels[None], labels, resident), expected)
