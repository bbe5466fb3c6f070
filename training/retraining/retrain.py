"""Retraining: a challenger is trained on the training store as it stands, and the gate decides what serves."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
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
from training.fit.config import TrainConfig, merged, on_device, read_table, validated
from training.fit.distributed import local_device
from training.fit.finished_package import PACKAGE
from training.fit.fit import LOCK as LOCK_OF_RUN
from training.fit.fit import train
from training.fit.run_data import RunData, stored
from training.fit.state import architecture
from training.fit.stopping import Stop, never, stopped_by_signals
from training.retraining.gate import GateRule, RegionComparison, Verdict, decide
from training.retraining.gate_record import (
    SCRATCH,
    Challenge,
    GateRecord,
    joined_scores,
    read_records,
    record_of,
    write_record,
)
from training.retraining.gate_scores import gate_patients, gate_regions, gate_scores, required_regions
from twin_scanner.errors import Rejected, Transient
from twin_scanner.files.file_lock import take_lock
from twin_scanner.files.writable import check_writable, disk_fault
from twin_scanner.models.card import Card, read_card
from twin_scanner.models.package import ModelPackage, load_package
from twin_scanner.models.partition import PARTITIONS, Partition
from twin_scanner.models.promotions import Promotion
from twin_scanner.models.store import ModelStore
from twin_scanner.progress import StageProgress

log = logging.getLogger(__name__)

LOCK: Final = "retrain.lock"
KIND: Final = "retraining"
"""What a fault of the configuration calls it."""
OVERTAKEN: Final = "But the champion was changed by hand meanwhile: run 'retrain' again."
KEY_DIGITS: Final = 16
"""Names of runs and decisions have so many digits of a SHA-256."""


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
            raise ValueError("train.data.kind is 'store': a challenger is trained on a training store")
        if self.train.warm_start is not None:
            raise ValueError("train.warm_start is left out: 'start' says what a challenger begins with")


@dataclass(frozen=True)
class RetrainResult:
    """How a retraining ended: the verdict, its reason, both models' hashes, and the numbers.

    ``promoted``: the challenger serves from now on. ``repeated``: an earlier run had answered the same challenge.
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


def main(
    config_path: Path,
    model_store: Path,
    *,
    dry_run: bool = False,
    progress: StageProgress = nobody,
    device: str | None = None,
) -> RetrainResult:
    """Retrain as a configuration file says, on the store and split that it names; ends gracefully on SIGTERM.

    Training and gate run on another ``device`` than the configuration's where one is named. Raises as
    ``retrain`` and ``read_retrain_config`` do.
    """
    models = ModelStore(model_store)
    config = read_retrain_config(config_path, read_card(models.resolve("champion")))
    config = replace(config, train=on_device(config.train, device))
    torch.set_num_threads(config.train.threads or torch.get_num_threads())
    data = config.train.data
    if data.folder is None or data.split is None:
        raise Rejected(f"{config_path.name} names no training store and split: give train.data.folder and .split.")
    store = open_store(data.folder)
    split = read_split(data.split, store.entries)
    with stopped_by_signals() as stop:
        return retrain(store, split, models, config, dry_run=dry_run, progress=progress, stop=stop)


def retrain(
    store: TrainingStore,
    split: Split,
    models: ModelStore,
    config: RetrainConfig,
    *,
    dry_run: bool = False,
    progress: StageProgress = nobody,
    stop: Stop = never,
) -> RetrainResult:
    """Train a challenger on the split's ``train`` part, score it and the champion on ``gate``, and let the gate decide.

    Ended at any moment, it goes on where it stood when it is run again, and ends in the same place. The same challenge
    (champion, configuration, images) is answered once: a champion is not trained again on what made it. A dry run
    trains and scores too, and leaves the model store as it is.

    Raises Rejected, before anything is trained, where another retraining runs on this model store, the champion and the
    challenger cannot be compared, the gate has too few patients or training refuses its data; Transient where it was
    asked to stop or the disk fails.
    """
    busy = Rejected(f"Another retraining runs on the model store {models.folder}: wait until it has ended.")
    with take_lock(models.folder / LOCK, busy):
        data, folder = stored(config.train, store, split), models.resolve("champion")
        check_writable(config.train.out)
        task = _Task(store, split, models, config, data, load_package(folder), folder, progress, stop)
        _check_comparable(task)
        challenge = _challenge(task)
        answered = _answered(models, challenge)
        if answered is not None and dry_run:
            return _result(answered, promoted=False, repeated=True)
        if answered is not None:
            promoted = _finish(models, answered)
            _clear(task, answered.challenge)
            return _result(answered, promoted=promoted, repeated=True)
        _check_gate(task)
        package = _challenger(task, challenge)
        record = _scored(task, challenge, package)
        if dry_run:
            return replace(_result(record, promoted=False, repeated=False), record=None)
        models.challenge(str(package))
        write_record(models.folder, record)
        promoted = _finish(models, record)
        _clear(task, challenge)
        result = _result(record, promoted=promoted, repeated=False)
        if record.verdict == "promote" and not promoted:
            return replace(result, reason=f"{record.reason} {OVERTAKEN}")
        return result


def read_retrain_config(path: Path, champion: Card | None = None) -> RetrainConfig:
    """A RetrainConfig from a TOML file; raises Rejected with every fault of the file in one sentence.

    Where training starts from the champion, its card gives the Plan, partition and networks that the file leaves out.
    """
    values = read_table(path, KIND)
    if champion is not None and values.get("start", "champion") == "champion":
        values = completed(values, champion)
    return validated(values, RetrainConfig, path.name, KIND)


def completed(values: dict[str, Any], champion: Card) -> dict[str, Any]:
    """A retraining's table with what it leaves out of Plan, partition, networks and stitching as the champion has them.

    Not where the champion's training pairs lay: that is the store's matter, and changes nothing in service.
    """
    train = values.get("train", {})
    if not isinstance(train, dict):
        return values
    trained = champion.about.get("training") or {}
    of_champion = {
        "plan": {key: value for key, value in asdict(champion.plan).items() if key != "training_grid"},
        "network": {
            **trained.get("network", {}),
            "generator": champion.architecture.kind,
            "features": champion.architecture.features,
            "soft_tissue": champion.architecture.soft_tissue,
            "context": champion.architecture.context,
        },
        "package": {"stitching": champion.stitching},
    }
    partition = {"partition": _named_partition(champion.partition)}
    return {**values, "train": partition | merged(of_champion, train)}


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


def _named_partition(partition: Partition) -> str | dict[str, object]:
    """As a configuration names it: a ready one by its name, another one as a table."""
    ready = PARTITIONS.get(partition.name)
    return partition.name if ready is not None and ready.networks == partition.networks else partition.as_json()


def _check_comparable(task: _Task) -> None:
    """Before hours of training: what the gate, or the node that serves, would refuse for certain."""
    champion, store, covered = task.champion, task.store, task.config.train.covered
    segmenter = champion.card.segmenter
    if not champion.plan.serves_like(store.plan):
        raise Rejected(
            f"The champion '{champion.name}' has another Plan than the training store, so they cannot be compared: "
            "prepare a store with '--model champion', or put a first model of the new one in service by 'models "
            "promote --force'."
        )
    if not champion.partition.whole_volume and segmenter != store.segmenter:
        raise Rejected(
            f"The champion '{champion.name}' serves on districts by '{segmenter}' and the training store holds those "
            f"by '{store.segmenter}': prepare a store with the same segmenter, or put a first model of the new one in "
            "service by 'models promote --force'."
        )
    lacking = sorted(champion.partition.labels - covered.labels)
    if lacking and not covered.whole_volume:
        raise Rejected(
            f"The champion '{champion.name}' covers labels {', '.join(map(str, lacking))} and the challenger would "
            "not: train a partition that covers them too."
        )
    if not task.split.gate:
        raise Rejected("The split has no gate part, which alone decides promotion: make or write one with it.")
    if task.config.start == "champion":
        _check_start(champion, task.config.train)


def _check_start(champion: ModelPackage, config: TrainConfig) -> None:
    """What the configuration says otherwise than the champion that training is to start from."""
    others = {
        "train.plan": not champion.plan.serves_like(config.plan),
        "train.partition": champion.partition.networks != config.covered.networks,
        "train.network": champion.architecture != architecture(config),
    }
    keys = [key for key, differs in others.items() if differs]
    if keys:
        raise Rejected(
            f"start = 'champion' goes on with the champion '{champion.name}', and {' and '.join(keys)} says otherwise: "
            "leave it out, so that the champion's is taken, or set start = 'scratch'."
        )


def _check_gate(task: _Task) -> None:
    """The patients of the gate are known before anything is trained; raises Rejected where they are too few."""
    covered, least = task.config.train.covered, task.config.gate.minimum_patients
    patients = gate_patients(task.store.entries, task.split.gate, covered)
    few = {region: number for region, number in patients.items() if number < least}
    if few:
        raise Rejected(
            f"The gate asks for {least} patients per district, and in its part of the split too few show "
            f"{_counts(few)}: add such patients to the part 'gate', or lower gate.minimum_patients (5 at least)."
        )
    log.info("gate: patients by region: %s", _counts(patients))


def _counts(patients: Mapping[str, int]) -> str:
    return ", ".join(f"{region} ({number})" for region, number in patients.items())


def _challenge(task: _Task) -> Challenge:
    """What would be decided, before anything is trained."""
    return Challenge(
        champion=task.champion.model_hash,
        start=task.champion.model_hash if task.config.start == "champion" else SCRATCH,
        config=_digest(task.config.train.as_json()),
        trained_on=task.data.sha256,
        scored_on=task.store.fingerprint_of(task.split.gate),
        rule=task.config.gate,
    )


def _answered(models: ModelStore, challenge: Challenge) -> GateRecord | None:
    """The newest decision that answers a challenge already."""
    answers = [record for record in read_records(models.folder) if challenge.settled_by(record)]
    return answers[-1] if answers else None


def _challenger(task: _Task, challenge: Challenge) -> Path:
    """The challenger's package: trained to its end, from its checkpoint where there is one, or found finished."""
    run = _run_folder(task, challenge)
    for record in read_records(task.models.folder):
        kept = task.models.folder / record.challenger
        if record.challenge.training == challenge.training and kept.is_dir():
            return kept
    if (run / PACKAGE).is_dir():
        return run / PACKAGE
    warm_start = task.champion_folder if task.config.start == "champion" else None
    config = replace(task.config.train, out=run, warm_start=warm_start)

    def on_step(network: str, step: int, steps: int, losses: dict[str, float]) -> None:
        task.progress(f"Training the challenger's network {network}", step, steps)

    return train(config, task.data, resume=True, on_step=on_step, stop=task.stop, go_on="run 'retrain' again")


def _scored(task: _Task, challenge: Challenge, package: Path) -> GateRecord:
    """Both models scored on the gate's studies as they serve, stored precision included, and the gate's decision."""
    challenger = load_package(package)
    regions = gate_regions(challenger.partition)
    required = required_regions(challenger.partition)
    pairs, device = task.store.pairs(task.split.gate, keep_air=task.keep_air), local_device(_device(task))
    for network in (*task.champion.networks.values(), *challenger.networks.values()):
        network.to(device)
        of_champion = gate_scores(
            task.champion, pairs, regions, partial(task.progress, "Scoring the champion"), task.check_stop
        )
    of_challenger = gate_scores(
        challenger, pairs, regions, partial(task.progress, "Scoring the challenger"), task.check_stop
    )
    decision = decide(of_champion, of_challenger, task.config.gate, required)
    log.info("gate: %s", decision.reason)
    name = _digest([asdict(challenge), challenger.model_hash])[:KEY_DIGITS]
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    split = {part: len(names) for part, names in task.split.parts.items()}
    return record_of(
        name, moment, challenge, challenger.model_hash, decision, split, joined_scores(of_champion, of_challenger)
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


def _clear(task: _Task, challenge: Challenge) -> None:
    """The model store holds the challenger now: of the run's folder only the curves stay."""
    run = _run_folder(task, challenge)
    try:
        (run / CHECKPOINT).unlink(missing_ok=True)
        (run / LOCK_OF_RUN).unlink(missing_ok=True)
    except OSError as error:
        raise disk_fault(run, error) from error
    shutil.rmtree(run / PACKAGE, ignore_errors=True)


def _result(record: GateRecord, *, promoted: bool, repeated: bool) -> RetrainResult:
    return RetrainResult(
        record.verdict,
        record.reason,
        record.champion,
        record.challenger,
        promoted,
        repeated,
        record.name,
        record.regions,
    )


def _run_folder(task: _Task, challenge: Challenge) -> Path:
    return task.config.train.out / _digest(challenge.training)[:KEY_DIGITS]


def _device(task: _Task) -> str:
    return task.config.train.compute.device


def _hash(folder: Path) -> str:
    return read_card(folder).model_hash


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
