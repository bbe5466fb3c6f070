"""The training loop: config, data, networks, losses, optimisers, loop, read from top to bottom."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import torch
from torch import Tensor

from training.data.pairs import Pair
from training.data.sampling import Sampler
from training.fit.batches import batches
from training.fit.checkpoint import checkpoint_file, load_checkpoint, save_checkpoint
from training.fit.config import TrainConfig, on_device, read_config
from training.fit.curve import Curve
from training.fit.cyclegan import cyclegan_step
from training.fit.device_pairs import device_pairs
from training.fit.distributed import any_process, local_device, process_group, process_rank, wait_for_all
from training.fit.event_log import EventLog, event_log
from training.fit.finished_package import PACKAGE, FinishedPackage, read_finished, write_package
from training.fit.gradient_step import set_learning_rate
from training.fit.pix2pix import pix2pix_step
from training.fit.run_data import RunData, load_data
from training.fit.state import TrainState, architecture, fresh_state
from training.fit.stopping import Stop, never, stopped_by_signals
from training.fit.validation import validation_error
from twin_scanner.errors import Rejected, Transient
from twin_scanner.files.file_lock import take_lock
from twin_scanner.files.writable import check_writable

log = logging.getLogger(__name__)

LOG_EVERY_STEPS: Final = 100
LOCK: Final = "lock"
GO_ON: Final = "start it again to go on"
WITH_RESUME: Final = "go on with --resume"
"""How a run that was stopped goes on, for whoever reads that it did."""
SMOOTHING: Final = 0.98
"""The losses that are shown are running means over about 50 steps."""
STEPS: Final = {"pix2pix": pix2pix_step, "cyclegan": cyclegan_step}

OnStep = Callable[[str, int, int, dict[str, float]], None]
"""Receives the network, steps done, steps in all, and the running means of the losses."""
NO_BAR: Final[AbstractContextManager[None]] = nullcontext()


@dataclass(frozen=True, eq=False)
class Run:
    """What surrounds the loop: pairs to validate on, the curve, who looks on, and who may ask for the end."""

    validated: Sequence[Pair] = ()
    data_sha256: str = ""
    curve: Curve | None = None
    on_step: OnStep | None = None
    stop: Stop = never
    go_on: str = GO_ON

    def save(self, config: TrainConfig, state: TrainState) -> None:
        """A checkpoint that names the pairs and holds the curve's length."""
        save_checkpoint(config, state, self.data_sha256, 0 if self.curve is None else self.curve.length)

    def record(self, state: TrainState, values: dict[str, float], events: EventLog | None) -> None:
        """Losses or errors at the state's step, into the curve and TensorBoard's events."""
        if self.curve is not None:
            self.curve.record(state.network, state.step, values)
        if events is not None:
            events.scalars(state.step, values)

    def check_stop(self, *_: int) -> None:
        """Raises Transient where the end is asked for; a long translation calls it after each batch of windows."""
        if self.stop():
            raise Transient(f"The run was asked to stop: its last checkpoint is kept; {self.go_on}.")


ALONE: Final = Run()
"""A loop without surroundings."""


def main(
    config_path: Path,
    *,
    resume: bool = False,
    bar: AbstractContextManager[OnStep | None] = NO_BAR,
    device: str | None = None,
) -> FinishedPackage:
    """Train as a configuration file says; the new model package and its score. The first process shows ``bar``.

    Where a ``device`` is named, the run takes that one instead of the configuration's.
    SIGTERM and SIGINT end the run after the step that is under way. Started by torchrun, all its processes train one
    network after the other together. Raises Rejected for a faulty configuration, for a run that was finished or
    (without ``resume``) begun before, and where a loss is not finite; Transient where the run was asked to stop.
    """
    # Config
    config = on_device(read_config(config_path), device)
    torch.set_num_threads(config.threads or torch.get_num_threads())
    with stopped_by_signals() as stop, process_group(local_device(config.compute.device)):
        check_place(config, resume=resume)
        # Data
        data = load_data(config, progress=partial(_log_pairs, stop))
        # Networks, losses, optimisers and loop
        with bar if process_rank() == 0 else NO_BAR as on_step:
            return read_finished(train(config, data, resume=resume, on_step=on_step, stop=stop, go_on=WITH_RESUME))


def train(
    config: TrainConfig,
    data: RunData,
    *,
    resume: bool = False,
    on_step: OnStep | None = None,
    stop: Stop = never,
    go_on: str = GO_ON,
) -> Path:
    """Train every network of the partition, one after the other, and write the model package below ``config.out``.

    Raises Rejected where a loss is not finite or a network has nothing to be trained on, Transient where ``stop`` asked
    for the end: the checkpoint is written then, and ``go_on`` says how to go on.
    """
    trained = train_networks(
        config, data, config.trained_networks, resume=resume, on_step=on_step, stop=stop, go_on=go_on
    )
    if process_rank() == 0:
        write_package(config, trained, data, Run(stop=stop, go_on=go_on).check_stop)
    wait_for_all()
    return config.out / PACKAGE


def train_networks(
    config: TrainConfig,
    data: RunData,
    networks: Sequence[str],
    *,
    resume: bool = False,
    on_step: OnStep | None = None,
    stop: Stop = never,
    go_on: str = GO_ON,
) -> dict[str, dict[str, Tensor]]:
    """Train some of the partition's networks, one after the other; the weights of each generator by name.

    A network's weights do not depend on which others are trained. Raises as ``train`` does, and Transient where another
    run is at work in ``config.out``.
    """
    with _alone_in(config.out):
        check_place(config, resume=resume)
        run, state = Run(data.validated, data.sha256, Curve(config.out), on_step, stop, go_on), None
        if resume and checkpoint_file(config).is_file():
            state = resumed_state(config, run)
        wait_for_all()
        finished = {} if state is None else state.finished
        samplers = {name: sampler_of(config, data, name) for name in networks if name not in finished}
        for network in tuple(samplers):
            sampler = samplers.pop(network)
            if state is None or state.network != network:
                state = fresh_state(config, network, finished)
            fit(config, state, sampler, run)
            weights = state.generator.state_dict()
            finished[network] = {name: value.detach().cpu().clone() for name, value in weights.items()}
            run.save(config, state)
        return finished


def _alone_in(folder: Path) -> AbstractContextManager[object]:
    """The lock of a run's folder, taken by the first of the run's processes; raises Transient where a run has it."""
    if process_rank() != 0:
        return nullcontext()
    return take_lock(folder / LOCK, Transient(f"Another run trains in {folder}: wait until it ends."))


def sampler_of(config: TrainConfig, data: RunData, network: str) -> Sampler:
    """The windows of one network, placed as the configuration says."""
    labels, placed = config.covered.networks[network], config.sampling
    return Sampler(
        data.trained_on,
        labels,
        config.plan,
        inside=placed.inside,
        lesion_share=placed.lesion_share,
        hot_share=placed.hot_share,
        hot_suv=placed.hot_suv,
        architecture=architecture(config),
    )


def fit(config: TrainConfig, state: TrainState, sampler: Sampler, run: Run = ALONE, until: int | None = None) -> None:
    """Train one network from where its state stands to the schedule's end (or to step ``until``)."""
    steps_per_epoch = config.steps_per_epoch(sampler.studies)
    steps = config.schedule.epochs * steps_per_epoch
    remaining = range(state.step, min(steps, until or steps))
    take_step = STEPS[config.method]
    on_device = device_pairs(config, sampler, state.device) if remaining else None
    cut, pin = None if on_device is None else on_device.cut, state.device.type == "cuda"
    sampled = batches(config, state.network, sampler, remaining, pin=pin, cut=cut)
    events = event_log(config, state)
    with closing(sampled):
        if _validation_due(config, state, steps_per_epoch):
            validate(config, state, run, events)
        for batch in sampled:
            set_learning_rate(config, state, state.step // steps_per_epoch)
            losses = take_step(config, state, batch.to(state.device))
            state.step += 1
            _show(state, losses, steps, run, events)
            if any_process(run.stop(), state.device):
                _stop(config, state, run)
            if state.step % config.checkpoint_steps == 0:
                run.save(config, state)
            if _validation_due(config, state, steps_per_epoch):
                validate(config, state, run, events)


def validate(config: TrainConfig, state: TrainState, run: Run, events: EventLog | None = None) -> None:
    """Record the error of the validation split's first studies in the network's region, in SUV.

    The state is saved before, so that an end in the midst of it loses no step, and the resumed run validates again.
    """
    run.save(config, state)
    error, case = validation_error(config, state, run.validated[: config.validation.studies], run.check_stop)
    state.validated = state.step
    if error is None:
        log.info("no validation study shows network %s's region", state.network)
        return
    run.record(state, {"validation_mae_suv": error}, events)
    if events is not None and case is not None:
        events.picture(state.step, case)
    log.info("network %s, step %d: validation error %.4f SUV", state.network, state.step, error)


def resumed_state(config: TrainConfig, run: Run) -> TrainState:
    """The state of the run's checkpoint; what the curve holds beyond it is dropped."""
    state, curve_length = load_checkpoint(config, run.data_sha256)
    if run.curve is not None:
        run.curve.cut(curve_length)
    return state


def check_place(config: TrainConfig, *, resume: bool) -> None:
    """Raises Rejected where the run's folder holds a finished run, or without ``resume`` one that was begun."""
    if (config.out / PACKAGE).exists():
        raise Rejected(f"{config.out / PACKAGE} is there already: this run is finished, give a new 'out'.")
    if not resume and checkpoint_file(config).exists():
        raise Rejected(f"{config.out} holds an unfinished run: {WITH_RESUME}, or give a new 'out'.")
    check_writable(config.out)


def _validation_due(config: TrainConfig, state: TrainState, steps_per_epoch: int) -> bool:
    """After every so many epochs and after the last one, once."""
    every = config.validation.every_epochs * steps_per_epoch
    last = config.schedule.epochs * steps_per_epoch
    return every > 0 and state.validated < state.step and (state.step % every == 0 or state.step == last)


def _show(state: TrainState, losses: dict[str, float], steps: int, run: Run, events: EventLog | None) -> None:
    """The running means of the losses, to who looks on, and now and then into log and curve."""
    for name, value in losses.items():
        state.shown[name] = SMOOTHING * state.shown.get(name, value) + (1 - SMOOTHING) * value
    if run.on_step is not None:
        run.on_step(state.network, state.step, steps, state.shown)
    if state.step % LOG_EVERY_STEPS == 0:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in state.shown.items())
        log.info("network %s, step %d of %d: %s", state.network, state.step, steps, shown)
        run.record(state, state.shown, events)


def _stop(config: TrainConfig, state: TrainState, run: Run) -> NoReturn:
    run.save(config, state)
    raise Transient(
        f"Training was asked to stop and did so after step {state.step} of network '{state.network}': "
        f"{checkpoint_file(config)} holds everything up to there; {run.go_on}."
    )


def _log_pairs(stop: Stop, ready: int, total: int) -> None:
    log.info("training pair %d of %d is ready", ready, total)
    if stop():
        raise Transient("The run was asked to stop before its first step: start it again.")
