"""Pairs on the device that computes; the oracle is the batch that the processor cuts from its own memory."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.samples.small_pairs import PLAN, small_config, small_pair
from training.data.pairs import Pair
from training.data.sampling import Sampler
from training.fit import device_pairs as module
from training.fit.batches import Batch, batches, sample_batch
from training.fit.config import AugmentationConfig, TrainConfig
from training.fit.device_pairs import DevicePairs, bytes_of, device_pairs, room_on
from training.fit.fit import fit
from training.fit.state import fresh_state
from twin_scanner.errors import Rejected
from twin_scanner.models.card import PAPER, Architecture

pytestmark = pytest.mark.loop

CPU = torch.device("cpu")
STILL, TURNED = AugmentationConfig((), 0.0, 0.0), AugmentationConfig(("D", "H", "W"), 10.0, 0.01)
SEEING = Architecture("unet", 2, soft_tissue=True, context=True)
STEPS = 4


def cut_pair(seed: int) -> Pair:
    """A body's box in a larger field of view: windows begin before it and end after it."""
    return replace(small_pair(seed), shape=(70, 90, 60), corner=(13, 30, 5))


def sampler_of(*pairs: Pair, labels: tuple[int, ...] = (2,), architecture: Architecture = PAPER) -> Sampler:
    return Sampler(pairs, labels, PLAN, lesion_share=0.3, hot_share=0.3, hot_suv=1.5, architecture=architecture)


def parts(batch: Batch) -> Iterator[np.ndarray]:
    """The bits of everything that a step sees."""
    for part in (batch.ct, batch.pet, batch.ct_mask, batch.pet_mask, batch.context):
        if part is not None:
            yield part.contiguous().cpu().numpy().view(np.uint8)


def config_of(out: Path, augmentation: AugmentationConfig = TURNED, method: str = "pix2pix") -> TrainConfig:
    return replace(small_config(out, STEPS), augmentation=augmentation, method=method)  # type: ignore[arg-type]


@pytest.mark.parametrize("augmentation", [STILL, TURNED], ids=["still", "augmented"])
@pytest.mark.parametrize("labels", [(2,), (1, 3), ()], ids=str)
@pytest.mark.parametrize("method", ["pix2pix", "cyclegan"])
def test_the_batches_are_those_of_the_processors_memory_to_the_bit(
    tmp_path: Path, method: str, labels: tuple[int, ...], augmentation: AugmentationConfig
) -> None:
    config, sampler = config_of(tmp_path, augmentation, method), sampler_of(cut_pair(0), cut_pair(1), labels=labels)
    cut = DevicePairs(sampler, CPU).cut
    for step in range(STEPS):
        expected, found = (sample_batch(config, "trunk", sampler, step, cut=one) for one in (None, cut))
        assert found.origins == expected.origins
        for one, other in zip(parts(found), parts(expected), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("scaling", ["window", "per-volume"])
def test_so_are_soft_tissue_and_context_and_each_studys_own_scaling(tmp_path: Path, scaling: str) -> None:
    pairs = [replace(cut_pair(0), hu_range=(-900, 700)), replace(cut_pair(1), hu_range=(-1000, 1300))]
    sampler = Sampler(pairs, (2,), replace(PLAN, ct_scaling=scaling), architecture=SEEING)
    cut = DevicePairs(sampler, CPU).cut
    for step in range(STEPS):
        expected, found = (sample_batch(config_of(tmp_path), "trunk", sampler, step, cut=one) for one in (None, cut))
        assert found.ct.shape[1] == 2 and found.context is not None
        for one, other in zip(parts(found), parts(expected), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_run_with_pairs_on_the_device_has_the_weights_of_one_without(tmp_path: Path) -> None:
    weights = []
    for where in ("host", "device"):
        config = config_of(tmp_path)
        config = replace(config, compute=replace(config.compute, pairs=where, prefetch=3, workers=2))
        state = fresh_state(config, "trunk", {})
        fit(config, state, sampler_of(small_pair(0), small_pair(1)))
        weights.append(list(state.generator.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def test_where_the_pairs_lie_is_no_part_of_a_run_so_it_goes_on_elsewhere(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    assert replace(config, compute=replace(config.compute, pairs="host")).as_json() == config.as_json()


def test_pairs_that_do_not_fit_stay_with_the_processor_or_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sampler, gpu, config = sampler_of(small_pair(0)), torch.device("cuda", 0), config_of(tmp_path)
    monkeypatch.setattr(module, "DevicePairs", lambda *_: "there")
    on = {where: replace(config, compute=replace(config.compute, pairs=where)) for where in ("auto", "device", "host")}
    monkeypatch.setattr(module, "room_on", lambda _: bytes_of(sampler))
    assert [device_pairs(one, sampler, gpu) for one in on.values()] == ["there", "there", None]
    monkeypatch.setattr(module, "room_on", lambda _: bytes_of(sampler) - 1)
    with caplog.at_level(logging.INFO):
        assert device_pairs(on["auto"], sampler, gpu) is None
    assert "the pairs stay in the processor's memory" in caplog.text
    with pytest.raises(Rejected, match=r"set compute.pairs to 'auto' or 'host'"):
        device_pairs(on["device"], sampler, gpu)


def test_on_a_processor_pairs_stay_where_they_are_unless_asked_otherwise(tmp_path: Path) -> None:
    config, sampler = config_of(tmp_path), sampler_of(small_pair(0))
    assert device_pairs(config, sampler, CPU) is None and room_on(CPU) is None
    asked = replace(config, compute=replace(config.compute, pairs="device"))
    assert isinstance(device_pairs(asked, sampler, CPU), DevicePairs)


@pytest.mark.parametrize("architecture", [PAPER, SEEING], ids=["paper", "context"])
def test_what_the_pairs_take_is_known_before_they_are_there(architecture: Architecture) -> None:
    """Within what is padded around the cells of a context."""
    sampler = sampler_of(*(small_pair(seed) for seed in range(3)), architecture=architecture)
    held = DevicePairs(sampler, CPU)._volumes
    assert bytes_of(sampler) == pytest.approx(
        sum(one.ct.nbytes + one.pet.nbytes + one.labels.nbytes for one in held), rel=0.1
    )


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["pix2pix", "cyclegan"])
def test_a_gpu_cuts_the_same_windows_and_turns_them_the_same_but_for_rounding(
    tmp_path: Path, gpu: str, method: str
) -> None:
    config, sampler, device = (
        config_of(tmp_path, method=method),
        sampler_of(cut_pair(0), cut_pair(1)),
        torch.device(gpu),
    )
    cut = DevicePairs(sampler, device).cut
    for step, found in enumerate(batches(config, "trunk", sampler, range(STEPS), pin=True, cut=cut)):
        expected = sample_batch(config, "trunk", sampler, step)
        assert found.origins == expected.origins and found.ct.device.type == "cuda"
        assert float((found.ct_mask.cpu() != expected.ct_mask).float().mean()) < 1e-3
        both = found.ct_mask.cpu() & expected.ct_mask, found.pet_mask.cpu() & expected.pet_mask
        torch.testing.assert_close(found.ct.cpu() * both[0], expected.ct * both[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(found.pet.cpu() * both[1], expected.pet * both[1], rtol=0, atol=1e-4)


@pytest.mark.gpu
def test_without_a_turn_a_gpus_windows_are_the_processors_to_the_bit(tmp_path: Path, gpu: str) -> None:
    augmentation = replace(TURNED, rotation_deg=0.0)
    config, sampler = config_of(tmp_path, augmentation), sampler_of(cut_pair(0), cut_pair(1))
    found = sample_batch(config, "trunk", sampler, 0, cut=DevicePairs(sampler, torch.device(gpu)).cut)
    for one, other in zip(parts(found), parts(sample_batch(config, "trunk", sampler, 0)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.gpu
def test_pairs_that_fit_lie_on_the_gpu_and_a_run_there_takes_steps(tmp_path: Path, gpu: str) -> None:
    config, sampler = config_of(tmp_path), sampler_of(small_pair(0), small_pair(1))
    config = replace(config, compute=replace(config.compute, device=gpu))
    assert isinstance(device_pairs(config, sampler, torch.device(gpu, 0)), DevicePairs)
    state = fresh_state(config, "trunk", {})
    fit(config, state, sampler)
    assert state.step == STEPS
    assert all(bool(torch.isfinite(one).all()) for one in state.generator.parameters())
