"""Retraining: a challenger learns from the training store as it stands, and the gate decides what serves."""

import hashlib
import json
import logging
import shutil
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import torch
from pydantic import ConfigDict

from training.data.splits import Split, read_split
from training.data.training_store import TrainingStore, open_store
from training.fit.checkpoint import CHECKPOINT
from training.fit.config import TrainConfig, read_toml
from training.fit.distributed import local_device
from training.fit.finished_package import PACKAGE
from training.fit.fit import LOCK as LOCK_OF_RUN
from training.fit.fit import train
from training.fit.run_data import RunData, stored
from training.fit.stopping import Stop, never, stopped_by_signals
from training.retraining.gate import GateRule, RegionComparison, Verdict, decide
from training.retraining.gate_record import (
    SCRATCH,
    GateRecord,
    Question,
    joined_scores,
    read_records,
    record_of,
    write_record,
)
from training.retraining.gate_scores import gate_regions, gate_scores
from twin_scanner.errors import Rejected, Transient
from twin_scanner.files.file_lock import take_lock
from twin_scanner.models.card import read_card
from twin_scanner.models.package import ModelPackage, load_package
from twin_scanner.models.promotions import Promotion
from twin_scanner.models.store import ModelStore
from twin_scanner.progress import StageProgress

log = logging.getLogger(__name__)

LOCK: Final = "retrain.lock"
OVERTAKEN: Final = "But the champion was changed by hand meanwhile: run 'retrain' again."
KEY_DIGITS: Final = 16
"""Of a SHA-256, in names of runs and decisions."""

"""Receives the stage, and how much of it is done of how much."""


def nobody(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True)
class RetrainConfig:
    """How a challenger is trained, what it starts from, and what it must show.

    ``train`` is a training configuration whose data is a store; below its ``out`` each run has a folder of its own.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    train: TrainConfig
    start: Literal["champion", "scratch"] = "champion"
    gate: GateRule = field(default_factory=GateRule)

    def __post_init__(self) -> None:
        if self.train.data.kind != "store":
            raise ValueError("train.data.kind is 'store': a challenger learns from a training store")
        if self.train.warm_start is not None:
            raise ValueError("train.warm_start is left out: 'start' says what a challenger begins with")


@dataclass(frozen=True)
class Outcome:
    """How a retraining ended: the verdict, its reason, both models' hashes, and the numbers.

    ``promoted``: the challenger serves from now on. ``repeated``: an earlier run had answered the same question.
    ``record`` names the gate's record, None after a dry run.
    """

    verdict: Verdict
    reason: str
    champion: str
    challenger: str
    promoted: bool
    repeated: bool
    record: str | None
    regions: tuple[RegionComparison, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "regions": [asdict(region) for region in self.regions]}


@dataclass(frozen=True, eq=False)
class _Task:
    """One retraining: what it reads, what it is asked, and who looks on."""

    store: TrainingStore
    split: Split
    models: ModelStore
    config: RetrainConfig
    data: RunData
    champion: ModelPackage
    champion_folder: Path
    progress: StageProgress
    stop: Stop

    @property
    def keep_air(self) -> bool:
        """Whether one of the two models looks at the air around the body."""
        return self.champion.partition.whole_volume or self.config.train.covered.whole_volume

    def check_stop(self, *_: int) -> None:
        """Raises Transient where the end is asked for."""
        if self.stop():
            raise Transient("Retraining was asked to stop: nothing is lost, run it again to go on.")


def main(config_path: Path, model_store: Path, *, dry_run: bool = False, progress: StageProgress = nobody) -> Outcome:
    """Retrain as a configuration file says, on the store and split that it names; ends gracefully on SIGTERM.

    Raises as ``retrain`` and ``read_retrain_config`` do.
    """
    config = read_retrain_config(config_path)
    torch.set_num_threads(config.train.threads or torch.get_num_threads())
    data = config.train.data
    if data.folder is None or data.split is None:
        raise Rejected(f"{config_path.name} names no training store and split: give train.data.folder and .split.")
    store = open_store(data.folder)
    split = read_split(data.split, store.entries)
    with stopped_by_signals() as stop:
        return retrain(store, split, ModelStore(model_store), config, dry_run=dry_run, progress=progress, stop=stop)


def retrain(
    store: TrainingStore,
    split: Split,
    models: ModelStore,
    config: RetrainConfig,
    *,
    dry_run: bool = False,
    progress: StageProgress = nobody,
    stop: Stop = never,
) -> Outcome:
    """Train a challenger on the split's ``train`` part, score it and the champion on ``gate``, and let the gate decide.

    Ended at any moment, it goes on where it stood when it is run again, and ends in the same place. The same question
    (champion, configuration, images) is answered once: a champion is not trained again on what made it. A dry run
    trains and scores too, and leaves the model store as it is.

    Raises Rejected where another retraining runs on this model store, the champion and the challenger cannot be
    compared, or training refuses its data; Transient where it was asked to stop or the disk fails.
    """
    busy = Rejected(f"Another retraining runs on the model store {models.folder}: wait until it has ended.")
    with take_lock(models.folder / LOCK, busy):
        data, folder = stored(config.train, store, split), models.resolve("champion")
        task = _Task(store, split, models, config, data, load_package(folder), folder, progress, stop)
        _check_comparable(task)
        question = _question(task)
        answered = _answered(models, question)
        if answered is not None and dry_run:
            return _outcome(answered, promoted=False, repeated=True)
        if answered is not None:
            promoted = _finish(models, answered)
            _clear(task, answered.question)
            return _outcome(answered, promoted=promoted, repeated=True)
        package = _challenger(task, question)
        record = _judged(task, question, package)
        if dry_run:
            return replace(_outcome(record, promoted=False, repeated=False), record=None)
        models.challenge(str(package))
        write_record(models.folder, record)
        promoted = _finish(models, record)
        _clear(task, question)
        outcome = _outcome(record, promoted=promoted, repeated=False)
        if record.verdict == "promote" and not promoted:
            return replace(outcome, reason=f"{record.reason} {OVERTAKEN}")
        return outcome


def read_retrain_config(path: Path) -> RetrainConfig:
    """A RetrainConfig from a TOML file; raises Rejected with every fault of the file in one sentence."""
    return read_toml(path, RetrainConfig, "retraining")


def promote(models: ModelStore, reference: str, *, force: str = "") -> Promotion:
    """Make a model the champion by hand: where the gate's record says so, or with ``force``, a reason that is recorded.

    Raises Rejected where the gate has not passed the model against the champion that serves now.
    """
    if force.strip():
        load_package(models.resolve(reference))
        return models.promote(reference, by="force", reason=force)
    challenger = _hash(models.resolve(reference))
    champion = _hash(models.resolve("champion"))
    asked = [r for r in read_records(models.folder) if (r.champion, r.challenger) == (champion, challenger)]
    passed = [record for record in asked if record.verdict == "promote"]
    if passed:
        newest = passed[-1]
        return models.promote(
            reference, by="gate", reason=newest.reason, decision=newest.name, instead_of=newest.champion
        )
    said = f" It said: {asked[-1].reason}" if asked else ""
    raise Rejected(
        f"The gate has not passed model {challenger[:12]} against the champion {champion[:12]}: run 'retrain', or give "
        f"--force with a reason.{said}"
    )


def _check_comparable(task: _Task) -> None:
    """Before hours of training: what the gate, or the node that serves, would refuse for certain."""
    champion, store, covered = task.champion, task.store, task.config.train.covered
    drawn_by = champion.card.segmenter
    if champion.plan != store.plan:
        raise Rejected(
            f"The champion '{champion.name}' has another Plan than the training store, so they cannot be compared: "
            "prepare a store with '--model champion', or put a first model of the new one in service by 'models "
            "promote --force'."
        )
    if not champion.partition.whole_volume and drawn_by != store.segmenter:
        raise Rejected(
            f"The champion '{champion.name}' serves on districts by '{drawn_by}' and the training store holds those by "
            f"'{store.segmenter}': prepare a store with the same segmenter, or put a first model of the new one in "
            "service by 'models promote --force'."
        )
    lacking = sorted(champion.partition.labels - covered.labels)
    if lacking and not covered.whole_volume:
        raise Rejected(
            f"The champion '{champion.name}' covers labels {', '.join(map(str, lacking))} and the challenger would "
            "not: train a partition that covers them too."
        )
    if not task.split.gate:
        raise Rejected("The split has no gate part, which alone decides promotion: draw or write one with it.")


def _question(task: _Task) -> Question:
    """What would be decided, before anything is trained."""
    return Question(
        champion=task.champion.model_hash,
        start=task.champion.model_hash if task.config.start == "champion" else SCRATCH,
        config=_digest(task.config.train.as_json()),
        learnt=task.data.sha256,
        judged=task.store.fingerprint_of(task.split.gate),
        rule=task.config.gate,
    )


def _answered(models: ModelStore, question: Question) -> GateRecord | None:
    """The newest decision that answers a question already."""
    answers = [record for record in read_records(models.folder) if question.settled_by(record)]
    return answers[-1] if answers else None


def _challenger(task: _Task, question: Question) -> Path:
    """The challenger's package: trained to its end, from its checkpoint where there is one, or found finished."""
    run = _run_folder(task, question)
    for record in read_records(task.models.folder):
        kept = task.models.folder / record.challenger
        if record.question.training == question.training and kept.is_dir():
            return kept
    if (run / PACKAGE).is_dir():
        return run / PACKAGE
    warm_start = task.champion_folder if task.config.start == "champion" else None
    config = replace(task.config.train, out=run, warm_start=warm_start)

    def on_step(network: str, step: int, steps: int, losses: dict[str, float]) -> None:
        task.progress(f"Training the challenger's network {network}", step, steps)

    return train(config, task.data, resume=True, on_step=on_step, stop=task.stop)


def _judged(task: _Task, question: Question, package: Path) -> GateRecord:
    """Both models scored on the gate's studies as they serve, stored precision included, and the gate's decision."""
    challenger = load_package(package)
    regions = gate_regions(challenger.partition)
    required = () if challenger.partition.whole_volume else tuple(regions)
    pairs, device = task.store.pairs(task.split.gate, keep_air=task.keep_air), local_device(_device(task))
    for network in (*task.champion.networks.values(), *challenger.networks.values()):
        network.to(device)
    told = partial(task.progress, "Scoring the champion"), partial(task.progress, "Scoring the challenger")
    of_champion = gate_scores(task.champion, pairs, regions, told[0], task.check_stop)
    of_challenger = gate_scores(challenger, pairs, regions, told[1], task.check_stop)
    decision = decide(of_champion, of_challenger, task.config.gate, required)
    log.info("gate: %s", decision.reason)
    name = _digest([asdict(question), challenger.model_hash])[:KEY_DIGITS]
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    split = {part: len(names) for part, names in task.split.parts.items()}
    return record_of(
        name, moment, question, challenger.model_hash, decision, split, joined_scores(of_champion, of_challenger)
    )


def _finish(models: ModelStore, record: GateRecord) -> bool:
    """Promote where the gate says so and nobody has yet; whether that was done now.

    A champion that was put back by hand since is not replaced again by the same decision.
    """
    done = any(promotion.decision == record.name for promotion in models.history())
    if record.verdict != "promote" or done or _hash(models.resolve("champion")) != record.champion:
        return False
    models.promote(record.challenger, by="gate", reason=record.reason, decision=record.name, instead_of=record.champion)
    return True


def _clear(task: _Task, question: Question) -> None:
    """The model store holds the challenger now: of the run's folder only the curves stay."""
    run = _run_folder(task, question)
    (run / CHECKPOINT).unlink(missing_ok=True)
    (run / LOCK_OF_RUN).unlink(missing_ok=True)
    shutil.rmtree(run / PACKAGE, ignore_errors=True)


def _outcome(record: GateRecord, *, promoted: bool, repeated: bool) -> Outcome:
    return Outcome(
        record.verdict,
        record.reason,
        record.champion,
        record.challenger,
        promoted,
        repeated,
        record.name,
        record.regions,
    )


def _run_folder(task: _Task, question: Question) -> Path:
    return task.config.train.out / _digest(question.training)[:KEY_DIGITS]


def _device(task: _Task) -> str:
    return task.config.train.compute.device


def _hash(folder: Path) -> str:
    return read_card(folder).model_hash


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
