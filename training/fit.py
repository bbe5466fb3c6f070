"""The training loop: config, data, networks, losses, optimisers, loop, read from top to bottom."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn

from training.augmentation import augment, draw_augmentation
from training.config import TrainConfig, read_config
from training.losses import discriminator_loss, generator_loss
from training.pairs import Pair, fingerprint, make_pairs
from training.sampling import Sampler
from twin_scanner.districts.landmarks import LandmarkSegmenter
from twin_scanner.durable_file import sync_folder, write_whole
from twin_scanner.errors import Rejected
from twin_scanner.models import Architecture, ModelPackage, load_package, save_package
from twin_scanner.networks import PatchDiscriminator, UNetGenerator
from twin_scanner.partition import DISTRICT_NAMES
from twin_scanner.preprocess import model_to_suv
from twin_scanner.translate import translate
from twin_scanner.volume import FloatArray

log = logging.getLogger(__name__)

CHECKPOINT: Final = "checkpoint.pt"
PACKAGE: Final = "package"
LOG_EVERY_STEPS: Final = 100
SMOOTHING: Final = 0.98
"""The losses that are shown are running means over about 50 steps."""

OnStep = Callable[[str, int, dict[str, float]], None]


@dataclass
class TrainState:
    """Everything that changes between two steps, so that a checkpoint of it continues bit for bit on one processor.

    ``network`` and ``step`` say where the run stands; ``finished`` holds the weights of the networks before it.
    """

    network: str
    generator: nn.Module
    discriminator: nn.Module
    generator_optimiser: torch.optim.Adam
    discriminator_optimiser: torch.optim.Adam
    random: np.random.Generator
    step: int = 0
    shown: dict[str, float] = field(default_factory=dict)
    finished: dict[str, dict[str, Tensor]] = field(default_factory=dict)


def main(config_path: Path, *, resume: bool = False) -> Path:
    """Train as a configuration file says, with a progress bar on stderr; the folder of the new model package.

    Raises Rejected for a faulty configuration, for a run that was finished or (without ``resume``) begun before, and
    where a loss is not finite.
    """
    # Config
    config = read_config(config_path)
    _check_place(config, resume=resume)
    torch.set_num_threads(config.threads or torch.get_num_threads())
    # Data
    keep_air = config.covered.whole_volume
    pairs = make_pairs(config.data, config.plan, keep_air=keep_air, progress=_log_pairs)
    # Networks, losses, optimisers and loop
    with _progress_bar(config) as on_step:
        return train(config, pairs, resume=resume, on_step=on_step)


def train(config: TrainConfig, pairs: Sequence[Pair], *, resume: bool = False, on_step: OnStep | None = None) -> Path:
    """Train every network of the partition, one after the other, and write the model package below ``config.out``.

    The last ``config.data.held_out`` pairs are measured, not learnt. Raises Rejected where a loss is not finite or a
    network has nothing to learn from.
    """
    _check_place(config, resume=resume)
    learnt, held_out = pairs[: -config.data.held_out], pairs[-config.data.held_out :]
    state = load_checkpoint(config) if resume and (config.out / CHECKPOINT).is_file() else None
    finished = {} if state is None else state.finished
    for network, labels in config.covered.networks.items():
        if network in finished:
            continue
        if state is None or state.network != network:
            state = fresh_state(config, network, finished)
        fit(config, state, Sampler(learnt, labels), on_step)
        finished[network] = {name: value.detach().clone() for name, value in state.generator.state_dict().items()}
        save_checkpoint(config, state)
    return _write_package(config, finished, fingerprint(pairs), held_out)


def fit(
    config: TrainConfig, state: TrainState, sampler: Sampler, on_step: OnStep | None = None, until: int | None = None
) -> None:
    """Train one network from where its state stands to the schedule's end (or to step ``until``)."""
    while state.step < min(config.schedule.steps, until or config.schedule.steps):
        ct, pet = draw_batch(config, state.random, sampler)
        losses = train_step(config, state, ct, pet)
        state.step += 1
        for name, value in losses.items():
            state.shown[name] = SMOOTHING * state.shown.get(name, value) + (1 - SMOOTHING) * value
        if on_step is not None:
            on_step(state.network, state.step, state.shown)
        if state.step % LOG_EVERY_STEPS == 0:
            shown = ", ".join(f"{name} {value:.4f}" for name, value in state.shown.items())
            log.info("network %s, step %d of %d: %s", state.network, state.step, config.schedule.steps, shown)
        if state.step % config.checkpoint_steps == 0:
            save_checkpoint(config, state)


def draw_batch(config: TrainConfig, random: np.random.Generator, sampler: Sampler) -> tuple[Tensor, Tensor]:
    """Augmented windows, CT and PET, each (N, 1, 32, 32, 32) in model space."""
    cts, pets = [], []
    for _ in range(config.optimiser.batch_size):
        patch = sampler.draw(random)
        ct, pet = augment(draw_augmentation(random, config.augmentation), patch.ct, patch.pet, patch.mask)
        cts.append(ct)
        pets.append(pet)
    return torch.from_numpy(np.stack(cts))[:, None], torch.from_numpy(np.stack(pets))[:, None]


def train_step(config: TrainConfig, state: TrainState, ct: Tensor, pet: Tensor) -> dict[str, float]:
    """One step of Pix2Pix (Isola et al. 2017, section 3.3): the discriminator's, then the generator's."""
    _set_learning_rate(config, state)
    made = state.generator(ct)

    state.discriminator.requires_grad_(True)
    judged_real = state.discriminator(torch.cat([ct, pet], 1))
    judged_made = state.discriminator(torch.cat([ct, made.detach()], 1))
    loss = discriminator_loss(judged_real, judged_made)
    _check_finite(state, "discriminator", loss)
    _descend(state.discriminator, state.discriminator_optimiser, loss, config.optimiser.clip_norm)

    state.discriminator.requires_grad_(False)
    judged = state.discriminator(torch.cat([ct, made], 1))
    generator = generator_loss(judged, made, pet, config.optimiser.lambda_l1)
    _check_finite(state, "generator", generator.total)
    _descend(state.generator, state.generator_optimiser, generator.total, config.optimiser.clip_norm)
    losses = {"L1": generator.l1, "adversarial": generator.adversarial, "discriminator": loss}
    return {name: float(value.detach()) for name, value in losses.items()}


def learning_rate(config: TrainConfig, step: int) -> float:
    """Constant, then linear to 0 over the decay epochs, changing once an epoch (paper section IV-B)."""
    epoch = step // config.schedule.steps_per_epoch
    into_decay = max(0, epoch + 1 - config.schedule.constant_epochs)
    return config.optimiser.learning_rate * (1.0 - into_decay / (config.schedule.decay_epochs + 1))


def fresh_state(config: TrainConfig, network: str, finished: dict[str, dict[str, Tensor]]) -> TrainState:
    """The state before the first step; its seeds depend on the run's seed and the network's name alone."""
    entropy = [config.seed, *network.encode()]
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
    sizes = config.network
    generator = _channels_last(UNetGenerator(sizes.features))
    discriminator = _channels_last(PatchDiscriminator(sizes.discriminator_features, sizes.discriminator_layers))
    return TrainState(
        network,
        generator,
        discriminator,
        _adam(config, generator),
        _adam(config, discriminator),
        np.random.default_rng(np.random.SeedSequence([*entropy, 1])),
        finished=finished,
    )


def save_checkpoint(config: TrainConfig, state: TrainState) -> None:
    """The whole state in one file, replaced atomically."""
    content = {
        "config": _config_json(config),
        "network": state.network,
        "step": state.step,
        "shown": state.shown,
        "generator": state.generator.state_dict(),
        "discriminator": state.discriminator.state_dict(),
        "generator_optimiser": state.generator_optimiser.state_dict(),
        "discriminator_optimiser": state.discriminator_optimiser.state_dict(),
        "random": state.random.bit_generator.state,
        "torch_random": torch.get_rng_state(),
        "finished": state.finished,
    }
    config.out.mkdir(parents=True, exist_ok=True)
    write_whole(config.out / CHECKPOINT, lambda stream: torch.save(content, stream))
    sync_folder(config.out)


def load_checkpoint(config: TrainConfig) -> TrainState:
    """The state that ``save_checkpoint`` wrote; raises Rejected where it belongs to another configuration."""
    content: dict[str, Any] = torch.load(config.out / CHECKPOINT, weights_only=True)
    if content["config"] != _config_json(config):
        raise Rejected(
            f"{config.out} holds a run of another configuration: give a new 'out', or the old configuration."
        )
    state = fresh_state(config, content["network"], content["finished"])
    state.generator.load_state_dict(content["generator"])
    state.discriminator.load_state_dict(content["discriminator"])
    state.generator_optimiser.load_state_dict(content["generator_optimiser"])
    state.discriminator_optimiser.load_state_dict(content["discriminator_optimiser"])
    state.random.bit_generator.state = content["random"]
    torch.set_rng_state(content["torch_random"])
    state.step, state.shown = content["step"], content["shown"]
    return state


def held_out_error(package: ModelPackage, pairs: Sequence[Pair]) -> dict[str, float]:
    """Mean absolute error in SUV over all held-out voxels of each district, and of the body."""
    errors: dict[str, list[FloatArray]] = {}
    for pair in pairs:
        made = model_to_suv(translate(pair.ct, pair.labels, package), package.plan)
        error = np.abs(made - model_to_suv(pair.pet, package.plan))
        errors.setdefault("body", []).append(error[pair.labels > 0])
        for label, name in DISTRICT_NAMES.items():
            errors.setdefault(name, []).append(error[pair.labels == label])
        for name, covered in package.partition.networks.items():
            if set(covered) - DISTRICT_NAMES.keys():
                errors.setdefault(name, []).append(error[np.isin(pair.labels, covered)])
    joined = {name: np.concatenate(parts) for name, parts in errors.items()}
    return {name: round(float(values.mean()), 4) for name, values in joined.items() if values.size}


def _write_package(
    config: TrainConfig, weights: dict[str, dict[str, Tensor]], data_sha256: str, held_out: Sequence[Pair]
) -> Path:
    """The package twice: once to measure it as it will serve (half precision included), once with its metrics."""
    with tempfile.TemporaryDirectory(dir=config.out, prefix=".measured-") as scratch:
        _save(config, Path(scratch) / PACKAGE, weights, data_sha256, {})
        metrics = held_out_error(load_package(Path(scratch) / PACKAGE), held_out)
    folder = config.out / PACKAGE
    _save(config, folder, weights, data_sha256, metrics)
    log.info("held-out mean absolute error in SUV: %s", metrics)
    return folder


def _save(
    config: TrainConfig,
    folder: Path,
    weights: dict[str, dict[str, Tensor]],
    data_sha256: str,
    metrics: dict[str, float],
) -> None:
    networks: dict[str, nn.Module] = {}
    for network, state in weights.items():
        networks[network] = UNetGenerator(config.network.features)
        networks[network].load_state_dict(state)
    data = config.data
    save_package(
        folder,
        name=config.name,
        plan=config.plan,
        partition=config.covered,
        architecture=Architecture("unet", config.network.features),
        networks=networks,
        segmenter=LandmarkSegmenter.name if data.segmenter == "landmarks" else "phantom-truth",
        precision=config.package.precision,
        about={
            "intended_use": config.package.intended_use,
            "licence": config.package.licence,
            "segmenter_hash": LandmarkSegmenter().segmenter_hash if data.segmenter == "landmarks" else "",
            "training_data": {
                "kind": data.kind,
                "pairs": data.count - data.held_out,
                "held_out": data.held_out,
                "sha256": data_sha256,
            },
            "training": _config_json(config),
            "metrics": {"held_out_mean_absolute_error_suv": metrics},
        },
    )


def _check_place(config: TrainConfig, *, resume: bool) -> None:
    if (config.out / PACKAGE).exists():
        raise Rejected(f"{config.out / PACKAGE} is there already: this run is finished, give a new 'out'.")
    if not resume and (config.out / CHECKPOINT).exists():
        raise Rejected(f"{config.out} holds an unfinished run: continue it with --resume, or give a new 'out'.")
    config.out.mkdir(parents=True, exist_ok=True)


def _config_json(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain values, without what changes no result: where it is written, how often saved."""
    values = asdict(config)
    del values["out"], values["checkpoint_steps"]
    values["data"]["folder"] = None if config.data.folder is None else config.data.folder.name
    plain: dict[str, Any] = _plain(values)
    return plain


def _plain(value: Any) -> Any:
    """Tuples as lists, so that a configuration equals itself after JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _adam(config: TrainConfig, network: nn.Module) -> torch.optim.Adam:
    optimiser = config.optimiser
    return torch.optim.Adam(network.parameters(), optimiser.learning_rate, (optimiser.beta1, optimiser.beta2))


def _set_learning_rate(config: TrainConfig, state: TrainState) -> None:
    for optimiser in (state.generator_optimiser, state.discriminator_optimiser):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config, state.step)


def _descend(network: nn.Module, optimiser: torch.optim.Adam, loss: Tensor, clip_norm: float) -> None:
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
    optimiser.step()


def _check_finite(state: TrainState, which: str, loss: Tensor) -> None:
    if not torch.isfinite(loss):
        raise Rejected(
            f"Training of '{state.network}' diverged at step {state.step + 1}: the {which} loss is "
            f"{float(loss.detach())}; check the pairs for impossible values, or lower optimiser.learning_rate."
        )


def _channels_last(network: nn.Module) -> nn.Module:
    """Three-dimensional convolutions run several times faster on processors in this layout."""
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def _log_pairs(made: int, total: int) -> None:
    log.info("training pair %d of %d is ready", made, total)


@contextmanager
def _progress_bar(config: TrainConfig) -> Iterator[OnStep]:
    """A bar a network with its losses and the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(
        *columns, TimeRemainingColumn(), TextColumn("{task.fields[losses]}"), console=Console(stderr=True)
    ) as bar:

        def on_step(network: str, step: int, losses: dict[str, float]) -> None:
            if network not in tasks:
                tasks[network] = bar.add_task(network, total=config.schedule.steps, losses="")
            shown = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
            bar.update(tasks[network], completed=step, losses=shown)

        yield on_step
