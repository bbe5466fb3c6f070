"""The training loop itself, in seconds: it learns, repeats and resumes bit for bit, and stops on what is not finite."""

import json
import math
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.samples.cases import quick_and_long
from tests.samples.small_pairs import small_config, small_data, small_pair, small_sampler
from training.data.sampling import Sampler
from training.fit.batches import sample_batch
from training.fit.checkpoint import checkpoint_file, load_checkpoint, save_checkpoint
from training.fit.config import NetworkConfig, ScheduleConfig, ValidationConfig
from training.fit.curve import read_curve
from training.fit.fit import Run, fit, main, train
from training.fit.run_data import phantom_data
from training.fit.state import TrainState, architecture, fresh_state
from training.fit.stopping import stopped_by_signals
from training.fit.validation import validation_error
from twin_scanner.errors import Rejected, Transient
from twin_scanner.models.card import Architecture
from twin_scanner.models.package import load_package
from twin_scanner.models.partition import DISTRICTS
from twin_scanner.models.plan import Plan

pytestmark = pytest.mark.loop


def weights(state: TrainState) -> list[torch.Tensor]:
    return [*state.generators.state_dict().values(), *state.discriminators.state_dict().values()]


def test_the_loop_learns_what_can_be_learnt(tmp_path: Path) -> None:
    """The mean of the PET is the best that a network without eyes can say; after 100 steps ours knows better."""
    config, sampler = small_config(tmp_path, 100), small_sampler(0)
    state = fresh_state(config, "trunk", {})
    shown: list[float] = []
    fit(config, state, sampler, Run(on_step=lambda *call: shown.append(call[3]["L1"])))
    pet = small_pair(0).pet.astype(np.float32) / config.plan.suv_max
    blind = float(np.abs(pet - pet.mean()).mean())
    batch = sample_batch(config, "validation", sampler, 0)
    with torch.no_grad():
        before = float((fresh_state(config, "trunk", {}).generator(batch.ct) - batch.pet).abs().mean())
        after = float((state.generator(batch.ct) - batch.pet).abs().mean())
    assert after < blind < 0.05 and after < before
    assert len(shown) == 100 and shown[-1] < shown[0]


def test_the_same_seed_gives_the_same_weights_and_another_one_others(tmp_path: Path) -> None:
    states = []
    for seed in (3, 3, 4):
        config = replace(small_config(tmp_path, 3), seed=seed)
        states.append(fresh_state(config, "head", {}))
        fit(config, states[-1], small_sampler(0, labels=(1,)))
    for first, again in zip(weights(states[0]), weights(states[1]), strict=True):
        assert torch.equal(first, again)
    assert not torch.equal(weights(states[0])[0], weights(states[2])[0])


SEEING = NetworkConfig(2, 2, 2, soft_tissue=True, context=True)
"""Networks with every input that there is."""


@pytest.mark.parametrize(
    ("method", "network"),
    [("pix2pix", NetworkConfig(2, 2, 2)), ("pix2pix", SEEING), ("cyclegan", NetworkConfig(2, 2, 2))],
)
@pytest.mark.parametrize("prefetch", quick_and_long([0], [3]))
def test_four_steps_equal_two_a_restart_and_two_more(
    tmp_path: Path, method: str, network: NetworkConfig, prefetch: int
) -> None:
    """Weights, optimisers, schedule, images of the pool and what is drawn: all that changes is in the checkpoint."""
    config = replace(small_config(tmp_path, pool=3), schedule=ScheduleConfig(2, 2, 1), method=method, network=network)
    config = replace(config, compute=replace(config.compute, prefetch=prefetch))
    sampler = small_sampler(0, 1, labels=(1, 2), architecture=architecture(config))
    straight = fresh_state(config, "trunk", {})
    fit(config, straight, sampler)
    halted = fresh_state(config, "trunk", {"head": {"w": torch.arange(3.0)}})
    fit(config, halted, sampler, until=2)
    save_checkpoint(config, halted)
    torch.rand(5)
    resumed, _ = load_checkpoint(config)
    assert (resumed.network, resumed.step) == ("trunk", 2)
    assert torch.equal(resumed.finished["head"]["w"], torch.arange(3.0))
    fit(config, resumed, sampler)
    assert resumed.step == straight.step == 4
    for one, other in zip(weights(straight), weights(resumed), strict=True):
        assert torch.equal(one, other)
    for name, pool in straight.pools.items():
        assert len(pool.images) == 3
        for one, other in zip(pool.images, resumed.pools[name].images, strict=True):
            assert torch.equal(one, other)
    assert resumed.shown == straight.shown


def test_a_run_whose_networks_see_a_context_ends_in_a_package_that_is_validated_and_scored(tmp_path: Path) -> None:
    config = replace(small_config(tmp_path / "run"), network=SEEING, validation=ValidationConfig(1, 1))
    package = load_package(train(config, small_data(config)))
    assert package.architecture == Architecture("unet", 2, soft_tissue=True, context=True)
    assert package.card.as_json()["architecture"] == {
        "kind": "unet",
        "features": 2,
        "soft_tissue": True,
        "context": True,
    }
    assert set(package.card.about["metrics"]["held_out_mean_absolute_error_suv"]) >= {"head", "trunk", "arms", "legs"}


@pytest.mark.parametrize("method", ["pix2pix", "cyclegan"])
def test_the_number_of_threads_that_draw_ahead_changes_no_weight(tmp_path: Path, method: str) -> None:
    states = []
    for prefetch, workers in ((0, 1), (1, 1), (5, 3)):
        config = replace(small_config(tmp_path, 4), method=method)
        config = replace(config, compute=replace(config.compute, prefetch=prefetch, workers=workers))
        states.append(fresh_state(config, "trunk", {}))
        fit(config, states[-1], small_sampler(0, 1))
    for values in zip(*(weights(state) for state in states), strict=True):
        assert torch.equal(values[0], values[1]) and torch.equal(values[0], values[2])


def test_no_thread_outlives_its_run(tmp_path: Path) -> None:
    config, before = small_config(tmp_path, 3), threading.active_count()
    fit(config, fresh_state(config, "trunk", {}), small_sampler(0))
    broken = small_pair(0)
    broken.pet[:] = np.nan
    with pytest.raises(Rejected):
        fit(config, fresh_state(config, "trunk", {}), Sampler([broken], (2,), Plan()))
    assert threading.active_count() == before


def test_a_network_does_not_depend_on_those_trained_before_it(tmp_path: Path) -> None:
    config = small_config(tmp_path, 2)
    torch.manual_seed(99)
    alone = fresh_state(config, "legs", {})
    fit(config, alone, small_sampler(0, labels=(4,)))
    folder = train(config, small_data(config))
    trained = load_package(folder).networks["legs"].state_dict()
    for name, value in alone.generator.state_dict().items():
        assert torch.equal(trained[name], value)


def test_an_epoch_is_so_many_patches_of_every_study(tmp_path: Path) -> None:
    """Three studies show the district, 32 patches each, two a step: 48 steps; two epochs are 96."""
    config = replace(small_config(tmp_path), schedule=ScheduleConfig(1, 1))
    totals: list[int] = []
    without = small_pair(3)
    without.labels[without.labels == 4] = 2
    sampler = Sampler([*(small_pair(n) for n in range(3)), without], (4,), Plan())
    fit(config, fresh_state(config, "legs", {}), sampler, Run(on_step=lambda *call: totals.append(call[2])), until=1)
    assert config.steps_per_epoch(sampler.studies) == 48 and totals == [96]


@pytest.mark.parametrize("method", ["pix2pix", "cyclegan"])
def test_a_loss_that_is_not_finite_stops_with_one_sentence_and_its_batch_and_spoils_nothing(
    tmp_path: Path, method: str
) -> None:
    config = replace(small_config(tmp_path), method=method)
    state = fresh_state(config, "arms", {})
    before = [tensor.clone() for tensor in weights(state)]
    broken = [small_pair(0), small_pair(1)]
    for pair in broken:
        pair.pet[:] = np.nan
    which = "discriminator" if method == "pix2pix" else "generator"
    with pytest.raises(Rejected, match=f"Training of 'arms' diverged at step 1: the {which} loss is nan") as error:
        fit(config, state, Sampler(broken, (3,), Plan()))
    assert all(torch.equal(a, b) for a, b in zip(before, weights(state), strict=True))
    place = tmp_path / "diverged-arms-step-1-process-0.safetensors"
    assert str(place) in str(error.value) and "\n" not in str(error.value)
    saved, drawn = safetensors.torch.load_file(place), sample_batch(config, "arms", Sampler(broken, (3,), Plan()), 0)
    torch.testing.assert_close(saved["pet"], drawn.pet, equal_nan=True)
    with safetensors.safe_open(place, "pt") as file:
        assert json.loads(file.metadata()["origins"]) == list(drawn.origins)


def test_validation_is_a_curve_and_the_last_epoch_is_on_it(tmp_path: Path) -> None:
    config = replace(small_config(tmp_path, 5), validation=ValidationConfig(2, 1))
    train(config, small_data(config))
    validated = [(row["network"], row["step"]) for row in read_curve(tmp_path) if "validation_mae_suv" in row]
    assert validated == [(network, step) for network in DISTRICTS.networks for step in (2, 4, 5)]


def test_the_last_validation_is_what_the_package_is_measured_as(tmp_path: Path) -> None:
    """Full precision here, so both are the same translation of the same volume with the same weights."""
    config = replace(small_config(tmp_path, 3), validation=ValidationConfig(3, 1))
    card = load_package(train(config, small_data(config))).card
    curve = {row["network"]: row["validation_mae_suv"] for row in read_curve(tmp_path)}
    for network, error in card.about["metrics"]["held_out_mean_absolute_error_suv"].items():
        assert network == "body" or math.isclose(float(curve[network]), error, abs_tol=6e-5)


def test_validation_changes_nothing_that_is_learnt(tmp_path: Path) -> None:
    hashes = set()
    for every in (0, 1):
        config = replace(
            small_config(tmp_path / str(every), 4), validation=ValidationConfig(every, 1), partition="whole-body"
        )
        hashes.add(load_package(train(config, small_data(config))).model_hash)
    assert len(hashes) == 1


@pytest.mark.long
def test_a_run_that_was_stopped_goes_on_to_the_same_package_and_curve(tmp_path: Path) -> None:
    """Asked at every one of its steps in turn, validation and checkpoints of all intervals included."""
    validation = ValidationConfig(2, 1)
    straight = replace(small_config(tmp_path / "straight", 3), validation=validation, checkpoint_steps=2)
    expected = load_package(train(straight, small_data(straight))).model_hash
    config, stops = replace(straight, out=tmp_path / "stopped"), 0
    asked = threading.Event()
    while True:
        asked.clear()
        try:
            folder = train(
                config, small_data(config), resume=stops > 0, on_step=lambda *_: asked.set(), stop=asked.is_set
            )
            break
        except Transient as error:
            assert "start it again to go on" in str(error) and "checkpoint.pt holds everything" in str(error)
            stops += 1
    assert stops == 3 * len(DISTRICTS.networks)
    assert load_package(folder).model_hash == expected
    assert read_curve(tmp_path / "stopped") == read_curve(tmp_path / "straight")


def test_an_end_in_the_midst_of_a_validation_loses_no_step(tmp_path: Path) -> None:
    config = replace(small_config(tmp_path, 2), validation=ValidationConfig(1, 1), checkpoint_steps=1000)
    state, pairs = fresh_state(config, "trunk", {}), [small_pair(1)]
    answers = iter([False, True])
    with pytest.raises(Transient, match="asked to stop"):
        fit(config, state, small_sampler(0), Run(validated=pairs, stop=lambda: next(answers)))
    resumed, _ = load_checkpoint(config)
    assert (resumed.step, resumed.validated) == (1, 0)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, as in a foreground process: a shell's background job ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_signal_asks_for_the_end_and_the_second_one_acts_at_once() -> None:
    with stopped_by_signals() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_warm_start_begins_with_the_packages_generators(tmp_path: Path) -> None:
    first = small_config(tmp_path / "first", 2)
    package = train(first, small_data(first))
    config = replace(small_config(tmp_path / "second", 2), warm_start=package)
    state = fresh_state(config, "legs", {})
    for name, value in load_package(package).networks["legs"].state_dict().items():
        assert torch.equal(state.generator.state_dict()[name], value)
    wider = replace(config, network=replace(config.network, features=3))
    with pytest.raises(Rejected, match="another architecture or Plan"):
        fresh_state(wider, "legs", {})
    with pytest.raises(Rejected, match="no network 'body' for the same labels"):
        fresh_state(replace(config, partition="whole-body"), "body", {})


def test_a_run_may_train_some_networks_and_keep_the_others_of_its_warm_start(tmp_path: Path) -> None:
    first = small_config(tmp_path / "first", 1)
    begun = train(first, small_data(first))
    config = replace(small_config(tmp_path / "second", 2), warm_start=begun, networks=("legs", "head"))
    calls: list[str] = []
    folder = train(config, small_data(config), on_step=lambda *call: calls.append(call[0]))
    assert calls == ["head", "head", "legs", "legs"]
    before, after = load_package(begun), load_package(folder)
    for network in DISTRICTS.networks:
        old, new = before.networks[network].state_dict(), after.networks[network].state_dict()
        assert all(torch.equal(old[name], new[name]) for name in old) is (network in ("trunk", "arms"))
    assert after.card.about["training"]["warm_start"] == before.card.model_hash
    assert after.card.about["training"]["networks"] == ["legs", "head"]
    assert str(tmp_path) not in (folder / "card.json").read_text()


def test_a_run_ends_in_a_package_that_says_how_it_came_to_be(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run")
    calls: list[tuple[str, int, int]] = []
    folder = train(config, small_data(config), on_step=lambda *call: calls.append(call[:3]))
    package = load_package(folder)
    assert folder == tmp_path / "run" / "package"
    assert calls == [(network, at, 2) for network in DISTRICTS.networks for at in (1, 2)]
    assert package.card.training_data["pairs"] == 1 and len(package.card.training_data["sha256"]) == 64
    assert package.card.about["training"]["optimiser"]["lambda_l1"] == 100.0
    metrics = package.card.about["metrics"]["held_out_mean_absolute_error_suv"]
    assert set(metrics) == {"body", "head", "trunk", "arms", "legs"}
    assert str(tmp_path) not in (folder / "card.json").read_text()


@pytest.mark.parametrize("partition", ["whole-volume", "whole-body"])
@pytest.mark.parametrize(("method", "generator"), [("pix2pix", "resnet9"), ("cyclegan", "unet")])
def test_method_generator_and_partition_are_a_configuration(
    tmp_path: Path, partition: str, method: str, generator: str
) -> None:
    """Every network's weights have moved from where they began, and the package is loadable."""
    config = replace(small_config(tmp_path, 1), method=method, partition=partition)
    config = replace(config, network=replace(config.network, generator=generator))
    package = load_package(train(config, small_data(config, 3)))
    assert package.architecture.kind == generator and package.partition.name == partition
    for network, trained in package.networks.items():
        fresh = fresh_state(config, network, {}).generator.state_dict()
        assert not any(torch.equal(fresh[name], value) for name, value in trained.state_dict().items())


def test_a_cyclegan_needs_two_patients(tmp_path: Path) -> None:
    config = replace(small_config(tmp_path), method="cyclegan")
    with pytest.raises(Rejected, match="Only one patient shows labels"):
        train(config, small_data(config))


def test_a_run_is_neither_repeated_nor_mixed_with_another(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    data = small_data(config)
    save_checkpoint(config, fresh_state(config, "head", {}), data.sha256)
    with pytest.raises(Rejected, match="unfinished run"):
        train(config, data)
    with pytest.raises(Rejected, match="another configuration"):
        train(replace(config, seed=5), data, resume=True)
    with pytest.raises(Rejected, match="other pairs"):
        train(config, phantom_data(config, [small_pair(7), small_pair(8)]), resume=True)
    train(config, data, resume=True)
    with pytest.raises(Rejected, match="finished"):
        train(config, data, resume=True)


def test_a_checkpoint_that_is_none_is_rejected_with_one_sentence(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(Rejected, match="cannot be read as a checkpoint"):
        load_checkpoint(config)


def test_validation_translates_as_service_does(tmp_path: Path) -> None:
    """Oracle: the whole field of view through the windows of service, the region read off by hand."""
    config, pair = small_config(tmp_path), small_pair(1)
    state = fresh_state(config, "arms", {})
    error, case = validation_error(config, state, [pair])
    assert case is not None and error is not None
    by_hand = np.abs(case.synthetic - pair.pet.astype(np.float32))[pair.labels == 3].mean()
    assert math.isclose(error, float(by_hand), rel_tol=1e-5)
    without = small_pair(2)
    without.labels[without.labels == 3] = 2
    assert validation_error(config, state, [without]) == (None, None)


def test_the_command_trains_from_a_file_to_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real phantoms, on a grid so coarse that two axes are padded to a window."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(
        'name = "tiny"\nout = "runs/tiny"\n[package]\nintended_use = "Tests."\nlicence = "CC0-1.0"\n'
        "[plan]\nspacing_mm = [12.0, 10.0, 10.0]\n"
        '[data]\ncount = 2\nheld_out = 1\nseed = 3\nsegmenter = "truth"\n'
        "[network]\nfeatures = 2\ndiscriminator_features = 2\n"
        "[schedule]\nconstant_epochs = 1\ndecay_epochs = 1\nsteps_per_epoch = 2\n"
    )
    finished = main(tmp_path / "tiny.toml")
    package = load_package(finished.folder)
    assert package.plan.spacing_mm == (12.0, 10.0, 10.0) and package.card.segmenter == "phantom-truth"
    errors = package.card.about["metrics"]["held_out_mean_absolute_error_suv"]
    assert math.isfinite(errors["body"]) and finished.held_out_error_suv == errors
    score, evaluate, serve = finished.sentences
    assert f"body {errors['body']:.4f}" in score and "head " in score
    assert f"evaluate --model {finished.folder} --dataset" in evaluate
    assert f"models import {finished.folder}" in serve and "models promote tiny --force" in serve
    assert finished.folder.resolve() == tmp_path / "runs" / "tiny" / "package"


def test_a_partition_needs_pairs_that_show_its_districts(tmp_path: Path) -> None:
    headless = small_pair(0)
    headless.labels[headless.labels == 1] = 2
    config = small_config(tmp_path)
    with pytest.raises(Rejected, match="No training pair contains labels"):
        train(config, phantom_data(config, [headless, headless]))


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_is_at_work(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    with pytest.raises(Transient, match="Another run trains in"):
        train(config, small_data(config), on_step=lambda *_: train(config, small_data(config), resume=True) and None)
    assert train(config, small_data(config), resume=checkpoint_file(config).is_file()).is_dir()
