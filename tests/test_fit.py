"""The training loop itself, in seconds: it learns, repeats and resumes bit for bit, and stops on what is not finite."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.config import (
    AugmentationConfig,
    DataConfig,
    NetworkConfig,
    OptimiserConfig,
    PackageConfig,
    ScheduleConfig,
    TrainConfig,
)
from training.fit import (
    TrainState,
    draw_batch,
    fit,
    fresh_state,
    learning_rate,
    load_checkpoint,
    main,
    save_checkpoint,
    train,
)
from training.fit import train_step as step
from training.pairs import Pair
from training.sampling import Sampler
from twin_scanner.errors import Rejected
from twin_scanner.models import load_package
from twin_scanner.partition import DISTRICTS

pytestmark = pytest.mark.loop

SHAPE = (40, 48, 44)


def pair(seed: int) -> Pair:
    """Blobs of five brightnesses in four districts whose PET is the CT mirrored in value: easy, and not constant."""
    random = np.random.default_rng(seed)
    ct = np.kron(random.random((10, 12, 11), np.float32), np.ones((4, 4, 4), np.float32))
    labels = np.ones(SHAPE, np.uint8)
    labels[20:], labels[:, :20], labels[:, :, 35:] = 2, 3, 4
    return Pair(ct, (0.1 * (1.0 - ct)).astype(np.float32), labels, SHAPE, (0, 0, 0))


def config(out: Path, steps: int = 2, **optimiser: float) -> TrainConfig:
    return TrainConfig(
        name="small",
        out=out,
        package=PackageConfig("Tests.", "CC0-1.0", "float32"),
        data=DataConfig(count=2, held_out=1),
        network=NetworkConfig(2, 2, 2),
        optimiser=OptimiserConfig(batch_size=2, **optimiser),  # type: ignore[arg-type]
        schedule=ScheduleConfig(steps, 0, 1),
        augmentation=AugmentationConfig(("W",), 5.0, 0.01),
        checkpoint_steps=1000,
    )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only wait for each other on more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(state: TrainState) -> list[torch.Tensor]:
    return [*state.generator.state_dict().values(), *state.discriminator.state_dict().values()]


def test_the_loop_learns_what_can_be_learnt(tmp_path: Path) -> None:
    """The mean of the PET is the best that a network without eyes can say; after 100 steps ours knows better."""
    example = pair(0)
    settings = config(tmp_path, 100)
    state = fresh_state(settings, "trunk", {})
    shown: list[float] = []
    fit(settings, state, Sampler([example], (1, 2, 3, 4)), lambda *call: shown.append(call[2]["L1"]))
    blind = float(np.abs(example.pet - example.pet.mean()).mean())
    ct, pet = draw_batch(settings, np.random.default_rng(1), Sampler([example], (1, 2, 3, 4)))
    with torch.no_grad():
        before = float((fresh_state(settings, "trunk", {}).generator(ct) - pet).abs().mean())
        after = float((state.generator(ct) - pet).abs().mean())
    assert after < blind < 0.05 and after < before
    assert len(shown) == 100 and shown[-1] < shown[0]


def test_the_same_seed_gives_the_same_weights_and_another_one_others(tmp_path: Path) -> None:
    states = []
    for seed in (3, 3, 4):
        settings = replace(config(tmp_path, 3), seed=seed)
        states.append(fresh_state(settings, "head", {}))
        fit(settings, states[-1], Sampler([pair(0)], (1,)))
    for first, again in zip(weights(states[0]), weights(states[1]), strict=True):
        assert torch.equal(first, again)
    assert not torch.equal(weights(states[0])[0], weights(states[2])[0])


def test_four_steps_equal_two_a_restart_and_two_more(tmp_path: Path) -> None:
    """Weights, optimisers, schedule and random position: all that changes is in the checkpoint."""
    settings = replace(config(tmp_path), schedule=ScheduleConfig(2, 2, 1))
    sampler = Sampler([pair(0), pair(1)], (1, 2))
    straight = fresh_state(settings, "trunk", {})
    fit(settings, straight, sampler)
    halted = fresh_state(settings, "trunk", {"head": {"w": torch.arange(3.0)}})
    fit(settings, halted, sampler, until=2)
    save_checkpoint(settings, halted)
    torch.rand(5)
    resumed = load_checkpoint(settings)
    assert (resumed.network, resumed.step) == ("trunk", 2)
    assert torch.equal(resumed.finished["head"]["w"], torch.arange(3.0))
    fit(settings, resumed, sampler)
    assert resumed.step == straight.step == 4
    for one, other in zip(weights(straight), weights(resumed), strict=True):
        assert torch.equal(one, other)
    assert resumed.random.bit_generator.state == straight.random.bit_generator.state
    assert resumed.shown == straight.shown


def test_a_network_does_not_depend_on_those_trained_before_it(tmp_path: Path) -> None:
    settings = config(tmp_path, 2)
    torch.manual_seed(99)
    alone = fresh_state(settings, "legs", {})
    fit(settings, alone, Sampler([pair(0)], (4,)))
    folder = train(settings, [pair(0), pair(1)])
    trained = load_package(folder).networks["legs"].state_dict()
    for name, value in alone.generator.state_dict().items():
        assert torch.equal(trained[name], value)


def test_the_learning_rate_is_constant_then_falls_linearly_epoch_by_epoch(tmp_path: Path) -> None:
    """Paper section IV-B: 100 epochs at 2e-4, 50 down to 0; the last epoch still learns."""
    settings = replace(config(tmp_path), schedule=ScheduleConfig(100, 50, 10))
    rates = [learning_rate(settings, epoch * 10) for epoch in range(150)]
    assert rates[:100] == [2e-4] * 100
    np.testing.assert_allclose(rates[100:], 2e-4 * (1 - np.arange(1, 51) / 51), rtol=1e-12)
    assert {learning_rate(settings, step) for step in range(1200, 1210)} == {rates[120]}


def test_gradients_are_clipped_to_a_norm_of_five(tmp_path: Path) -> None:
    settings = config(tmp_path, lambda_l1=1e9)
    state = fresh_state(settings, "trunk", {})
    step(settings, state, *draw_batch(settings, state.random, Sampler([pair(0)], (2,))))
    norm = torch.linalg.vector_norm(
        torch.cat([p.grad.flatten() for p in state.generator.parameters() if p.grad is not None])
    )
    assert math.isclose(float(norm), 5.0, rel_tol=1e-4)


def test_the_discriminator_is_not_moved_by_the_generators_step(tmp_path: Path) -> None:
    """Its gradients after a step are those of its own loss alone, clipped."""
    settings = config(tmp_path)
    state, twin = fresh_state(settings, "trunk", {}), fresh_state(settings, "trunk", {})
    ct, pet = draw_batch(settings, state.random, Sampler([pair(0)], (2,)))
    step(settings, state, ct, pet)
    made = twin.generator(ct).detach()
    verdicts = [(torch.cat([ct, pet], 1), 1.0), (torch.cat([ct, made], 1), 0.0)]
    for batch, verdict in verdicts:
        logits = twin.discriminator(batch)
        target = torch.full_like(logits, verdict)
        (0.5 * torch.nn.functional.binary_cross_entropy_with_logits(logits, target)).backward()
    torch.nn.utils.clip_grad_norm_(twin.discriminator.parameters(), 5.0)
    for ours, oracle in zip(state.discriminator.parameters(), twin.discriminator.parameters(), strict=True):
        assert ours.grad is not None and oracle.grad is not None
        torch.testing.assert_close(ours.grad, oracle.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("where", "which"), [("ct", "discriminator"), ("pet", "discriminator")])
def test_a_loss_that_is_not_finite_stops_with_one_sentence_and_spoils_nothing(
    tmp_path: Path, where: str, which: str
) -> None:
    settings = config(tmp_path)
    state = fresh_state(settings, "arms", {})
    before = [tensor.clone() for tensor in weights(state)]
    broken = replace(pair(0), **{where: np.full(SHAPE, np.nan, np.float32)})
    with pytest.raises(Rejected, match=f"Training of 'arms' diverged at step 1: the {which} loss is nan"):
        fit(settings, state, Sampler([broken], (3,)))
    assert all(torch.equal(a, b) for a, b in zip(before, weights(state), strict=True))


def test_a_run_ends_in_a_package_that_says_how_it_came_to_be(tmp_path: Path) -> None:
    settings = config(tmp_path / "run")
    calls: list[tuple[str, int]] = []
    folder = train(settings, [pair(0), pair(1)], on_step=lambda network, at, _: calls.append((network, at)))
    package = load_package(folder)
    assert folder == tmp_path / "run" / "package"
    assert calls == [(network, at) for network in DISTRICTS.networks for at in (1, 2)]
    assert package.card["training_data"]["pairs"] == 1 and len(package.card["training_data"]["sha256"]) == 64
    assert package.card["training"]["optimiser"]["lambda_l1"] == 100.0
    assert set(package.card["metrics"]["held_out_mean_absolute_error_suv"]) == {"body", "head", "trunk", "arms", "legs"}
    assert str(tmp_path) not in (folder / "card.json").read_text()


def test_a_run_is_neither_repeated_nor_mixed_with_another(tmp_path: Path) -> None:
    settings = config(tmp_path)
    pairs = [pair(0), pair(1)]
    save_checkpoint(settings, fresh_state(settings, "head", {}))
    with pytest.raises(Rejected, match="unfinished run"):
        train(settings, pairs)
    with pytest.raises(Rejected, match="another configuration"):
        train(replace(settings, seed=5), pairs, resume=True)
    train(settings, pairs, resume=True)
    with pytest.raises(Rejected, match="finished"):
        train(settings, pairs, resume=True)


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
    folder = main(tmp_path / "tiny.toml")
    package = load_package(folder)
    assert package.plan.spacing_mm == (12.0, 10.0, 10.0) and package.card["segmenter"] == "phantom-truth"
    assert math.isfinite(package.card["metrics"]["held_out_mean_absolute_error_suv"]["body"])
    assert folder.resolve() == tmp_path / "runs" / "tiny" / "package"


def test_a_partition_needs_pairs_that_show_its_districts(tmp_path: Path) -> None:
    headless = pair(0)
    headless.labels[headless.labels == 1] = 2
    with pytest.raises(Rejected, match="No training pair contains labels"):
        train(config(tmp_path), [headless, headless])
