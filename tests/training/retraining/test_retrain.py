"""Retraining on phantoms: who is promoted and who is not, what a killed run leaves, and what the schedule starts."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from tests.fakes.shared_runs import FakeLeases, FakeRuns
from tests.samples.known_cases import body_pet, districts
from training.data.prepare import prepare
from training.data.splits import Split, write_split
from training.data.studies import phantom_studies
from training.data.study import StudyReference, TrainingStudy
from training.data.training_store import TrainingStore
from training.fit.config import (
    AugmentationConfig,
    ComputeConfig,
    DataConfig,
    NetworkConfig,
    OptimiserConfig,
    PackageConfig,
    ScheduleConfig,
    TrainConfig,
    ValidationConfig,
)
from training.fit.fit import train
from training.fit.run_data import stored
from training.fit.state import architecture, fresh_state
from training.retraining.gate import GateRule
from training.retraining.gate_record import read_records
from training.retraining.gate_scores import gate_patients, gate_regions, gate_scores
from training.retraining.retrain import RetrainConfig, main, promote, read_retrain_config, retrain
from twin_scanner.errors import Rejected, Transient
from twin_scanner.imaging.volume import Geometry, Volume
from twin_scanner.models.card import Architecture, read_card
from twin_scanner.models.networks import UNetGenerator
from twin_scanner.models.package import load_package, save_package
from twin_scanner.models.partition import WHOLE_BODY, WHOLE_VOLUME, partition
from twin_scanner.models.plan import Plan
from twin_scanner.models.store import DEMONSTRATION_FOLDER, ModelStore
from twin_scanner.service.schedule import CommandSchedule

pytestmark = pytest.mark.loop

PLAN = Plan(spacing_mm=(20.0, 20.0, 20.0))
FEATURES = 4
DRAWN_MM = (12.0, 12.0, 12.0)
YEARLY = "0 3 1 1 *"
DEADLINE_S = 120.0
POLL_S = 0.005


@dataclass(frozen=True)
class Mismatched:
    """The CT of one phantom with the PET of another, stretched over it: a pair that teaches nothing."""

    of_ct: StudyReference
    of_pet: StudyReference

    @property
    def name(self) -> str:
        return self.of_ct.name

    @property
    def patient(self) -> str:
        return self.of_ct.patient

    @property
    def diagnosis(self) -> str:
        return self.of_ct.diagnosis

    def load(self) -> TrainingStudy:
        study, other = self.of_ct.load(), self.of_pet.load()
        factors = [n / m for n, m in zip(study.pet.array.shape, other.pet.array.shape, strict=True)]
        pet = ndimage.zoom(other.pet.array[::-1], factors, order=0)
        return replace(study, pet=Volume(np.ascontiguousarray(pet), study.pet.geometry), lesions=None)


@dataclass(frozen=True)
class Blocks:
    """A block body with all four districts."""

    seed: int
    diagnosis: str = ""

    @property
    def name(self) -> str:
        return f"block-{self.seed}"

    @property
    def patient(self) -> str:
        return self.name

    def load(self) -> TrainingStudy:
        grid = Geometry(districts().shape, (20.0, 20.0, 20.0), (0.0, 0.0, 0.0))
        ct = np.where(districts() > 0, np.float32(40.0), np.float32(-1000.0))
        return TrainingStudy(
            Volume(ct, grid), Volume(body_pet(self.seed), grid), "phantom", None, districts(), is_phantom=True
        )


STUDIES = phantom_studies(12, 3000, spacing_mm=DRAWN_MM)
NAMES = [study.name for study in STUDIES]
SPLIT = Split(tuple(NAMES[:5]), (NAMES[5],), tuple(NAMES[6:11]), (NAMES[11],))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TrainingStore:
    return prepare(STUDIES, tmp_path_factory.mktemp("clean") / "store", PLAN, None, registered=False)


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory: pytest.TempPathFactory) -> TrainingStore:
    """The same studies, those that are trained on mismatched."""
    mismatched = [Mismatched(one, other) for one, other in zip(STUDIES[:5], [*STUDIES[1:5], STUDIES[0]], strict=True)]
    studies, folder = [*mismatched, *STUDIES[5:]], tmp_path_factory.mktemp("shuffled")
    return prepare(studies, folder / "store", PLAN, None, registered=False)


def train_config(out: Path, steps: int = 2) -> TrainConfig:
    return TrainConfig(
        name="small",
        out=out,
        package=PackageConfig("Tests.", "CC0-1.0"),
        threads=1,
        partition="whole-body",
        plan=PLAN,
        data=DataConfig("store", Path("store"), Path("split.json")),
        network=NetworkConfig(FEATURES, 2, 1),
        optimiser=OptimiserConfig(batch_size=2, learning_rate=2e-3),
        schedule=ScheduleConfig(steps, 0, 1),
        augmentation=AugmentationConfig((), 0.0, 0.0),
        validation=ValidationConfig(0, 1),
        compute=ComputeConfig("cpu"),
        checkpoint_steps=2,
    )


def config(folder: Path, steps: int = 2, start: str = "scratch", least: int = 5) -> RetrainConfig:
    return RetrainConfig(train_config(folder / "runs", steps), start, GateRule(minimum_patients=least))  # type: ignore[arg-type]


def bad_package(folder: Path, segmenter: str = "phantom-truth", plan: Plan = PLAN) -> Path:
    """A network that says SUV 10 everywhere: any training is better."""
    torch.manual_seed(0)
    networks = {"body": UNetGenerator(FEATURES, 0.0)}
    architecture = Architecture("unet", FEATURES)
    save_package(
        folder,
        name="bad",
        plan=plan,
        partition=WHOLE_BODY,
        architecture=architecture,
        networks=networks,
        segmenter=segmenter,
        about={},
    )
    return folder


def served_by(folder: Path, package: Path) -> ModelStore:
    """A model store with this champion."""
    models = ModelStore(folder / "models")
    models.promote(str(package), by="force", reason="The first.")
    return models


@pytest.fixture
def models(tmp_path: Path, store: TrainingStore) -> ModelStore:
    return served_by(tmp_path, bad_package(tmp_path / "bad", store.segmenter))


def champion(models: ModelStore) -> str:
    return load_package(models.resolve("champion")).model_hash


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("lock")
    }


def test_a_better_challenger_is_promoted_and_the_record_says_on_what(
    store: TrainingStore, models: ModelStore, tmp_path: Path
) -> None:
    before, stages = champion(models), dict[str, tuple[int, int]]()

    def progress(stage: str, done: int, total: int) -> None:
        stages[stage] = done, total

    outcome = retrain(store, SPLIT, models, config(tmp_path), progress=progress)
    assert outcome.verdict == "promote" and outcome.promoted and not outcome.repeated
    assert (outcome.champion, outcome.challenger) == (before, champion(models))
    assert models.aliases() == {"champion": outcome.challenger, "previous": before}
    assert stages == {
        "Training the challenger's network body": (2, 2),
        "Scoring the champion": (5, 5),
        "Scoring the challenger": (5, 5),
    }
    (record,) = read_records(models.folder)
    assert record.name == outcome.record and record.split == {"train": 5, "validation": 1, "gate": 5, "test": 1}
    assert [row["study"] for row in record.scores] == list(SPLIT.gate)
    assert record.challenge.scored_on == store.fingerprint_of(SPLIT.gate)
    promotion = models.history()[-1]
    assert (promotion.by, promotion.decision, promotion.reason) == ("gate", record.name, outcome.reason)
    left = {path.name for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    assert left <= {"curve.jsonl"}, "the model store holds the challenger; checkpoints of finished runs are cleared"


def test_the_models_are_scored_as_they_serve_half_precision_included(
    store: TrainingStore, models: ModelStore, tmp_path: Path
) -> None:
    """Oracle: the error of the stored package, translated here, is the one that the record holds."""
    outcome = retrain(store, SPLIT, models, config(tmp_path))
    package = load_package(models.folder / outcome.challenger)
    assert package.card.precision == "float16"
    again = gate_scores(package, store.pairs(SPLIT.gate), gate_regions(package.partition))
    (record,) = read_records(models.folder)
    for row, expected in zip(record.scores, again, strict=True):
        assert row["challenger"] == pytest.approx(dict(expected.errors_suv))
        assert set(expected.errors_suv) == {"whole body", "head", "trunk", "arms", "legs"}


def test_the_same_question_is_answered_once_and_a_rollback_is_not_undone(
    store: TrainingStore, models: ModelStore, tmp_path: Path
) -> None:
    first = retrain(store, SPLIT, models, config(tmp_path))
    before = files(models.folder)

    def never_called(stage: str, done: int, total: int) -> None:
        pytest.fail(f"{stage}: the question was answered before")

    for _ in range(2):
        again = retrain(store, SPLIT, models, config(tmp_path), progress=never_called)
        assert again == replace(first, promoted=False, repeated=True)
    assert files(models.folder) == before
    models.rollback("Legs look wrong.")
    again = retrain(store, SPLIT, models, config(tmp_path), progress=never_called)
    assert again.repeated and not again.promoted and champion(models) == first.champion


@pytest.mark.long
def test_a_challenger_of_shuffled_pairs_is_refused_with_the_right_reason(
    store: TrainingStore, shuffled: TrainingStore, tmp_path: Path
) -> None:
    """The champion is trained; the challenger starts from it and is trained on pairs that are none."""
    good = train_config(tmp_path / "good", 45)
    package = train(good, stored(good, store, SPLIT))
    models = served_by(tmp_path, package)
    before = champion(models)
    outcome = retrain(shuffled, SPLIT, models, config(tmp_path, 30, "champion"))
    assert outcome.verdict == "worse" and not outcome.promoted
    assert outcome.reason.startswith("Worse than the champion on head (SUV ")
    assert all(district in outcome.reason for district in ("trunk", "arms", "legs"))
    assert champion(models) == before and models.aliases()["challenger"] == outcome.challenger
    with pytest.raises(Rejected, match=r"The gate has not passed model .* It said: Worse than the champion on head"):
        promote(models, "challenger")
    promote(models, "challenger", force="To see it refused no more.")
    assert champion(models) == outcome.challenger
    assert models.history()[-1].by == "force" and models.history()[-1].reason == "To see it refused no more."


def test_too_few_patients_in_the_gate_are_found_before_anything_is_trained(
    store: TrainingStore, models: ModelStore, tmp_path: Path
) -> None:
    before = champion(models)

    def nothing(stage: str, done: int, total: int) -> None:
        pytest.fail(f"{stage}: the gate's patients are known beforehand")

    with pytest.raises(
        Rejected, match=r"asks for 6 patients per district.*too few show .*head \(5\).*minimum_patients"
    ):
        retrain(store, SPLIT, models, config(tmp_path, least=6), progress=nothing)
    assert champion(models) == before and not (tmp_path / "runs").exists() and read_records(models.folder) == ()


def test_the_gates_patients_are_counted_as_its_scores_count_them(store: TrainingStore, models: ModelStore) -> None:
    """Oracle: the regions that the scores of the same studies name."""
    package = load_package(models.resolve("champion"))
    scores = gate_scores(package, store.pairs(SPLIT.gate), gate_regions(package.partition))
    counted = gate_patients(store.entries, SPLIT.gate, package.partition)
    for region, number in counted.items():
        assert number == len({score.patient for score in scores if region in score.errors_suv}), region


def test_a_dry_run_trains_and_scores_and_leaves_the_model_store_as_it_is(
    store: TrainingStore, models: ModelStore, tmp_path: Path
) -> None:
    before = files(models.folder)
    dry = retrain(store, SPLIT, models, config(tmp_path), dry_run=True)
    assert dry.verdict == "promote" and not dry.promoted and dry.record is None
    assert files(models.folder) == before
    stages: set[str] = set()
    wet = retrain(store, SPLIT, models, config(tmp_path), progress=lambda stage, *_: stages.add(stage))
    assert (wet.challenger, wet.promoted) == (dry.challenger, True)
    assert stages == {"Scoring the champion", "Scoring the challenger"}, "the dry run's challenger is used"


def test_a_challenger_that_starts_from_the_champion_begins_with_its_weights(
    store: TrainingStore, models: ModelStore, tmp_path: Path
) -> None:
    warm = retrain(store, SPLIT, models, config(tmp_path, 1, "champion"))
    card = load_package(models.folder / warm.challenger).card
    assert card.about["training"]["warm_start"] == warm.champion
    (record,) = read_records(models.folder)
    assert record.challenge.start == warm.champion
    made = {region.region: region.challenger_suv for region in warm.regions}
    assert made["arms"] is not None and made["arms"] > 5.0, "one step away from a network that says SUV 10"


class Killed(BaseException):
    """The process ends here."""


def test_a_run_that_ends_at_any_write_ends_in_the_same_place_when_run_again(
    store: TrainingStore, models: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: the n-th fsync kills the run, for every n after the training, one after the other."""
    before = champion(models)
    retrain(store, SPLIT, models, config(tmp_path), dry_run=True)
    sync, left, outcome = os.fsync, 0, None

    def fsync(descriptor: int) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        sync(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    for writes in range(40):
        left = writes
        try:
            outcome = retrain(store, SPLIT, models, config(tmp_path))
        except Killed:
            assert champion(models) in hashes(models), "it loads, whole, at every moment"
            continue
        break
    assert outcome is not None and writes > 5, "some runs must have been killed"
    assert champion(models) == outcome.challenger != before
    assert models.aliases() == {"champion": outcome.challenger, "previous": before}
    assert [promotion.by for promotion in models.history()] == ["force", "gate"]
    assert len(read_records(models.folder)) == 1
    assert not checkpoints(tmp_path) and not list((tmp_path / "runs").glob("*/package"))


def hashes(models: ModelStore) -> set[str]:
    return {row.model_hash for row in models.list()}


CONFIG = """
start = "champion"
[gate]
minimum_patients = 5
[train]
name = "small"
out = "runs"
threads = 1
partition = "whole-body"
checkpoint_steps = 2
[train.package]
intended_use = "Tests."
licence = "CC0-1.0"
[train.plan]
spacing_mm = [20.0, 20.0, 20.0]
[train.data]
kind = "store"
folder = "{store}"
split = "split.json"
[train.network]
features = 4
discriminator_features = 2
discriminator_layers = 1
[train.optimiser]
batch_size = 2
learning_rate = 2e-3
[train.schedule]
constant_epochs = 12
decay_epochs = 0
steps_per_epoch = 1
[train.validation]
every_epochs = 0
[train.compute]
device = "cpu"
"""


@pytest.fixture
def place(tmp_path: Path, store: TrainingStore, models: ModelStore) -> Path:
    """A folder as a hospital would have it: configuration, split, model store."""
    (tmp_path / "retrain.toml").write_text(CONFIG.format(store=store.folder), "utf-8")
    (tmp_path / "settings.toml").write_text('[model]\nstore = "models"\n', "utf-8")
    write_split(tmp_path / "split.json", SPLIT)
    return tmp_path


def command(folder: Path) -> list[str]:
    """The verb, as the service starts it; its places are relative to the folder."""
    program = f"import os; os.chdir('{folder}'); from twin_scanner.cli import main; main()"
    return [sys.executable, "-c", program, "retrain", "retrain.toml", "--config", "settings.toml"]


def started(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(command(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(POLL_S)


def checkpoints(folder: Path) -> list[int]:
    """When each unfinished run was saved last."""
    return [path.stat().st_mtime_ns for path in folder.glob("runs/*/checkpoint.pt")]


def schedule_of(folder: Path, runs: FakeRuns) -> CommandSchedule:
    """The schedule of a service that was started just now; ``runs`` remember those of before."""
    return CommandSchedule("retrain", YEARLY, command(folder), runs, FakeLeases(), lambda: None)


def missed(folder: Path) -> FakeRuns:
    """The memory of a schedule whose moment came while nobody ran."""
    runs = FakeRuns(lambda: datetime.now(UTC))
    long_ago = runs.begin(schedule_of(folder, runs).key)
    long_ago.started_at = datetime(2024, 12, 31, tzinfo=UTC)
    runs.finish(long_ago, 0)
    return runs


@pytest.mark.long
def test_a_killed_and_a_stopped_retraining_end_where_an_undisturbed_one_does(
    place: Path, store: TrainingStore, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The verb as real processes: one by hand, killed by SIGKILL; one that a missed moment of the schedule starts,
    ended by SIGTERM as the service stops; one that the schedule starts again with the service. Oracle: an undisturbed
    run.
    """
    models = ModelStore(place / "models")
    before, by_hand = champion(models), started(place)
    wait_for(lambda: checkpoints(place))
    with pytest.raises(Rejected, match="Another retraining runs on the model store"):
        retrain(store, SPLIT, models, config(place))
    by_hand.kill()
    by_hand.communicate(timeout=DEADLINE_S)
    killed = checkpoints(place)
    assert killed and champion(models) == before

    runs = missed(place)
    first = schedule_of(place, runs)
    first.start()
    wait_for(lambda: checkpoints(place) > killed)
    first.stop(DEADLINE_S)
    assert checkpoints(place) and champion(models) == before and not read_records(models.folder)

    second = schedule_of(place, runs)
    second.start()
    wait_for(lambda: champion(models) != before)
    second.stop(DEADLINE_S)

    calm = tmp_path_factory.mktemp("calm")
    for name in ("retrain.toml", "split.json"):
        (calm / name).write_bytes((place / name).read_bytes())
    served_by(calm, place / "bad")
    monkeypatch.chdir(calm)
    outcome = main(Path("retrain.toml"), Path("models"))
    assert outcome.promoted and champion(models) == outcome.challenger
    (disturbed,), (undisturbed,) = read_records(models.folder), read_records(calm / "models")
    assert replace(disturbed, at=undisturbed.at) == undisturbed


def test_a_retraining_that_is_asked_to_stop_says_so_and_loses_nothing(
    store: TrainingStore, models: ModelStore, tmp_path: Path
) -> None:
    """While it trains, and while it scores."""
    asked = iter([False, False, True])
    with pytest.raises(Transient, match="asked to stop"):
        retrain(store, SPLIT, models, config(tmp_path, 4), stop=lambda: next(asked))
    assert checkpoints(tmp_path)
    scoring: list[str] = []
    with pytest.raises(Transient, match="asked to stop: nothing is lost, run it again"):
        retrain(
            store,
            SPLIT,
            models,
            config(tmp_path, 4),
            progress=lambda stage, *_: scoring.append(stage) if stage.startswith("Scoring") else None,
            stop=lambda: bool(scoring),
        )
    assert retrain(store, SPLIT, models, config(tmp_path, 4)).promoted


def test_a_champion_that_cannot_be_compared_is_told_before_anything_is_trained(
    store: TrainingStore, tmp_path: Path
) -> None:
    cases = {
        "plan": (bad_package(tmp_path / "plan", store.segmenter, Plan(spacing_mm=(21.0, 20.0, 20.0))), "another Plan"),
        "segmenter": (bad_package(tmp_path / "segmenter", "moose"), "serves on districts by 'moose'"),
    }
    for name, (package, sentence) in cases.items():
        models = served_by(tmp_path / name, package)
        with pytest.raises(Rejected, match=sentence):
            retrain(store, SPLIT, models, config(tmp_path))
    models = served_by(tmp_path, bad_package(tmp_path / "good", store.segmenter))
    other_plan = replace(config(tmp_path), train=replace(train_config(tmp_path), plan=Plan()))
    with pytest.raises(Rejected, match="another Plan than this configuration"):
        retrain(store, SPLIT, models, other_plan)
    with pytest.raises(Rejected, match="has no gate part"):
        retrain(store, replace(SPLIT, gate=()), models, config(tmp_path))
    assert not (tmp_path / "runs").exists()


def test_a_champion_trained_on_grids_laid_on_the_ct_is_compared_and_gone_on_with_all_the_same(
    store: TrainingStore, tmp_path: Path
) -> None:
    """Service gives it the same images; so what is refused comes after the Plan has been compared."""
    earlier = bad_package(tmp_path / "earlier", store.segmenter, replace(PLAN, training_grid="ct"))
    models = served_by(tmp_path, earlier)
    with pytest.raises(Rejected, match="has no gate part"):
        retrain(store, replace(SPLIT, gate=()), models, config(tmp_path))
    package, warm = load_package(earlier), replace(train_config(tmp_path), warm_start=earlier)
    begun = fresh_state(warm, "body", {}).generator.state_dict()
    for name, value in package.networks["body"].state_dict().items():
        assert torch.equal(value, begun[name])


def test_a_champion_changed_by_hand_meanwhile_is_not_replaced(
    store: TrainingStore, models: ModelStore, tmp_path: Path
) -> None:
    """The moment between the decision and the promotion, seen from the progress of the last score."""
    torch.manual_seed(5)
    changed = tmp_path / "changed"
    save_package(
        changed,
        name="by hand",
        plan=PLAN,
        partition=WHOLE_BODY,
        architecture=Architecture("unet", FEATURES),
        networks={"body": UNetGenerator(FEATURES)},
        segmenter=store.segmenter,
        about={},
    )

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "Scoring the challenger" and done == total:
            models.promote(str(changed), by="force", reason="By hand.")

    outcome = retrain(store, SPLIT, models, config(tmp_path), progress=progress)
    assert outcome.verdict == "promote" and not outcome.promoted
    assert outcome.reason.endswith("But the champion was changed by hand meanwhile: run 'retrain' again.")
    assert champion(models) == load_package(changed).model_hash
    with pytest.raises(Rejected, match="The gate has not passed model"):
        promote(models, "challenger")


def test_a_model_that_the_gate_passed_can_be_promoted_by_hand_after_a_rollback(
    store: TrainingStore, models: ModelStore, tmp_path: Path
) -> None:
    outcome = retrain(store, SPLIT, models, config(tmp_path))
    models.rollback("A second look was wanted.")
    promotion = promote(models, outcome.challenger[:12])
    assert (promotion.by, promotion.decision) == ("gate", outcome.record)
    assert champion(models) == outcome.challenger


def test_the_districts_that_judge_are_the_bodys_or_the_partitions_own() -> None:
    four = {"head": (1,), "trunk": (2,), "arms": (3,), "legs": (4,)}
    assert gate_regions(WHOLE_BODY) == gate_regions(WHOLE_VOLUME) == four
    assert gate_regions(partition("upper", {"top": [1, 2]})) == {"head": (1,), "trunk": (2,)}
    assert gate_regions(partition("organs", {"kidneys": [2, 3], "rest": [9]})) == {"kidneys": (2, 3), "rest": (9,)}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"network": NetworkConfig(FEATURES + 1, 2, 1)}, "train.network says otherwise"),
        ({"partition": "districts"}, "train.partition says otherwise"),
        (
            {"partition": "districts", "network": NetworkConfig(FEATURES, 2, 1, "resnet9")},
            "train.partition and train.network says otherwise",
        ),
    ],
)
def test_a_start_from_the_champion_that_contradicts_it_is_refused_at_once(
    store: TrainingStore, models: ModelStore, tmp_path: Path, changes: dict[str, Any], key: str
) -> None:
    asked = config(tmp_path, start="champion")
    with pytest.raises(Rejected, match=key):
        retrain(store, SPLIT, models, replace(asked, train=replace(asked.train, **changes)))
    assert not (tmp_path / "runs").exists()


def documented(project: Path) -> str:
    """The configuration of docs/retraining.md, to the letter."""
    text = (project / "docs" / "retraining.md").read_text("utf-8")
    return text.split("```toml\n", 1)[1].split("```", 1)[0]


def test_the_documented_configuration_takes_plan_partition_and_networks_from_the_champion(
    project: Path, tmp_path: Path
) -> None:
    file = tmp_path / "retrain.toml"
    file.write_text(documented(project))
    for package in (bad_package(tmp_path / "bad"), DEMONSTRATION_FOLDER):
        card = read_card(package)
        train = read_retrain_config(file, card).train
        assert (train.plan, train.covered) == (replace(card.plan, training_grid="pet"), card.partition)
        assert (train.network.generator, train.network.features) == (card.architecture.kind, card.architecture.features)
    demonstration = read_card(DEMONSTRATION_FOLDER).about["training"]["network"]
    assert train.network.discriminator_features == demonstration["discriminator_features"]
    from_scratch = documented(project).replace('start = "champion"', 'start = "scratch"')
    file.write_text(from_scratch)
    assert read_retrain_config(file, card).train.plan == Plan()


def test_a_champion_that_sees_more_than_the_papers_input_is_followed_by_one_that_does_too(
    project: Path, tmp_path: Path
) -> None:
    """So is its stitching: what the configuration leaves out is the champion's."""
    file, card = tmp_path / "retrain.toml", read_card(DEMONSTRATION_FOLDER)
    file.write_text(documented(project))
    seeing = replace(
        card, architecture=Architecture("unet", 8, soft_tissue=True, context=True), stitching="gaussian", about={}
    )
    train = read_retrain_config(file, seeing).train
    assert architecture(train) == seeing.architecture and train.package.stitching == "gaussian"
    file.write_text(documented(project).replace('start = "champion"', 'start = "scratch"'))
    train = read_retrain_config(file, seeing).train
    assert architecture(train) == Architecture("unet", 64) and train.package.stitching == "uniform"


def test_the_documented_configuration_runs_as_written(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the words of the page only the schedule's length is given, and the champion is a small one."""
    studies: list[StudyReference] = [Blocks(number) for number in range(10)]
    store = prepare(studies, tmp_path / "store", PLAN, None, registered=False)
    names = [entry.name for entry in store.entries]
    write_split(tmp_path / "split.json", Split((names[0],), (names[1],), tuple(names[2:]), ()))
    short = "\n[train.schedule]\nconstant_epochs = 1\ndecay_epochs = 0\nsteps_per_epoch = 1\n"
    (tmp_path / "retrain.toml").write_text(documented(project) + short)
    models = served_by(tmp_path, bad_package(tmp_path / "bad", store.segmenter))
    monkeypatch.chdir(tmp_path)
    result = main(Path("retrain.toml"), models.folder)
    assert result.verdict in ("promote", "not better", "worse", "not enough evidence") and result.record is not None


def test_a_decision_of_version_0_1_is_still_read(store: TrainingStore, models: ModelStore, tmp_path: Path) -> None:
    """The file's older names: question, learnt, judged."""
    result = retrain(store, SPLIT, models, config(tmp_path))
    file = models.folder / "decisions" / f"{result.record}.json"
    content = json.loads(file.read_bytes())
    challenge = content.pop("challenge")
    challenge["learnt"], challenge["judged"] = challenge.pop("trained_on"), challenge.pop("scored_on")
    (now,) = read_records(models.folder)
    file.write_text(json.dumps({**content, "question": challenge}))
    assert read_records(models.folder) == (now,)
    assert retrain(store, SPLIT, models, config(tmp_path)).repeated


def test_every_fault_of_a_configuration_is_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "retrain.toml"
    text = CONFIG.format(store="store")
    file.write_text(text, "utf-8")
    assert read_retrain_config(file).gate == GateRule(5)
    file.write_text(text.replace("minimum_patients = 5", "minimum_patients = 2\nmercy = 1"), "utf-8")
    with pytest.raises(Rejected, match=r"gate\.minimum_patients.*gate\.mercy"):
        read_retrain_config(file)
    file.write_text(text.replace('start = "champion"', 'start = "yesterday"'), "utf-8")
    with pytest.raises(Rejected, match=r"retrain\.toml is no retraining configuration: start"):
        read_retrain_config(file)
    file.write_text(text.replace('name = "small"', 'name = "small"\nwarm_start = "package"'), "utf-8")
    with pytest.raises(Rejected, match=r"train\.warm_start is left out"):
        read_retrain_config(file)
    phantoms = text.replace('kind = "store"\nfolder = "store"\nsplit = "split.json"', "count = 3")
    file.write_text(phantoms, "utf-8")
    with pytest.raises(Rejected, match=r"train\.data\.kind is 'store'"):
        read_retrain_config(file)
    file.write_text("start = ", "utf-8")
    with pytest.raises(Rejected, match="is not TOML"):
        read_retrain_config(file)
    with pytest.raises(Rejected, match="does not exist"):
        read_retrain_config(tmp_path / "nothing.toml")
