"""A run on a training store: only the split's train and validation parts are seen, and a real study is learnt from."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.samples.small_pairs import small_config
from training.data.prepare import prepare
from training.data.splits import Split, write_split
from training.data.studies import phantom_studies
from training.data.training_store import TrainingStore, open_store
from training.fit.batches import sample_batch
from training.fit.config import AugmentationConfig, DataConfig, SamplingConfig, TrainConfig
from training.fit.curve import read_curve
from training.fit.fit import sampler_of, train
from training.fit.run_data import load_data, stored
from twin_scanner.errors import Rejected
from twin_scanner.models.package import load_package
from twin_scanner.models.plan import Plan
from twin_scanner.models.ranges import CtFacts

pytestmark = pytest.mark.loop

COARSE = Plan(spacing_mm=(12.0, 10.0, 10.0))
STUDIES = 5


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> TrainingStore:
    folder = tmp_path_factory.mktemp("phantoms") / "store"
    return prepare(
        phantom_studies(STUDIES, 30, spacing_mm=COARSE.spacing_mm),
        folder,
        COARSE,
        None,
        keep_air=True,
        registered=False,
    )


def parts(store: TrainingStore) -> Split:
    names = [entry.name for entry in store.entries]
    return Split((names[0], names[1]), (names[2],), (names[3],), (names[4],))


def on_store(out: Path, store: TrainingStore, split: Path) -> TrainConfig:
    data = DataConfig(kind="store", folder=store.folder, split=split)
    return replace(small_config(out), plan=COARSE, data=data, partition="whole-body")


def test_a_run_sees_the_training_and_the_validation_part_and_no_other(phantoms: TrainingStore, tmp_path: Path) -> None:
    split = parts(phantoms)
    write_split(tmp_path / "split.json", split)
    config = on_store(tmp_path / "run", phantoms, tmp_path / "split.json")
    data = load_data(config)
    assert [pair.name for pair in data.trained_on] == list(split.train)
    assert [pair.name for pair in data.validated] == list(split.validation)
    assert (data.kind, data.segmenter) == ("store", phantoms.segmenter)
    swapped = stored(config, phantoms, replace(split, gate=split.test, test=split.gate))
    assert swapped.sha256 == data.sha256
    patients = [replace(entry, is_phantom=entry.name != split.train[0]) for entry in phantoms.entries]
    assert stored(config, replace(phantoms, entries=tuple(patients)), split).phantoms == 1
    assert stored(config, phantoms, replace(split, train=split.gate, gate=split.train)).sha256 != data.sha256


def test_a_store_is_trained_on_to_a_package(phantoms: TrainingStore, tmp_path: Path) -> None:
    write_split(tmp_path / "split.json", parts(phantoms))
    config = on_store(tmp_path / "run", phantoms, tmp_path / "split.json")
    config = replace(config, validation=replace(config.validation, every_epochs=1))
    card = load_package(train(config, load_data(config))).card
    assert card.training_data["kind"] == "store" and card.segmenter == phantoms.segmenter
    assert [card.training_data[key] for key in ("pairs", "phantoms", "held_out")] == [2, 2, 1]
    assert card.about["training"]["data"]["folder"] == "store"
    assert [row["step"] for row in read_curve(tmp_path / "run")] == [1, 2]


@pytest.mark.parametrize("method", ["pix2pix", "cyclegan"])
def test_windows_of_a_store_are_placed_around_uptake_where_that_is_asked_for(
    phantoms: TrainingStore, tmp_path: Path, method: str
) -> None:
    """The store's maps are read-only and cut from a larger array; a PET's window shows what is above SUV 3."""
    split = replace(parts(phantoms), validation=())
    config = replace(on_store(tmp_path, phantoms, tmp_path), method=method, augmentation=AugmentationConfig((), 0, 0))
    sampling = SamplingConfig(inside=True, hot_share=1.0, hot_suv=3.0)
    config = replace(config, sampling=sampling, optimiser=replace(config.optimiser, l1_over="mask"))
    data = stored(config, phantoms, split)
    batch = sample_batch(config, "body", sampler_of(config, data, "body"), 0)
    assert (batch.pet.amax((1, 2, 3, 4)) > 3.0 / config.plan.suv_max).all()
    train(config, data)


def test_a_whole_volume_network_learns_the_air_around_the_body(phantoms: TrainingStore, tmp_path: Path) -> None:
    split = parts(phantoms)
    body, whole = (
        stored(replace(on_store(tmp_path, phantoms, tmp_path), partition=name), phantoms, split).trained_on[0]
        for name in ("whole-body", "whole-volume")
    )
    assert np.prod(whole.ct.shape) > np.prod(body.ct.shape)
    assert sum(length - 32 for length in whole.shape) >= 0 and whole.shape == body.shape


def test_a_store_of_a_version_that_laid_its_grids_on_the_ct_is_to_be_prepared_again(
    phantoms: TrainingStore, tmp_path: Path
) -> None:
    """What such a store says: a Plan without the key, and that Plan's hash."""
    content = json.loads((phantoms.folder / "store.json").read_text("utf-8"))
    del content["plan"]["training_grid"]
    content["plan_hash"] = hashlib.sha256(json.dumps(content["plan"], sort_keys=True).encode()).hexdigest()
    old = tmp_path / "old"
    old.mkdir()
    (old / "store.json").write_text(json.dumps(content), "utf-8")
    store = open_store(old)
    wanted = r"^The pairs of the store old lie on grids laid on the CT, and this configuration's are laid on the PET"
    with pytest.raises(
        Rejected, match=wanted + r" \(plan.training_grid\): run 'twin-scanner prepare' again, into a new f"
    ):
        stored(on_store(tmp_path, store, tmp_path), store, parts(phantoms))
    with pytest.raises(Rejected, match="holds studies made with grids laid on the CT: give a new folder"):
        prepare(
            phantom_studies(1, 30, spacing_mm=COARSE.spacing_mm), old, COARSE, None, keep_air=True, registered=False
        )


def test_a_store_on_another_plan_and_a_split_with_nothing_to_learn_are_rejected(
    phantoms: TrainingStore, tmp_path: Path
) -> None:
    config, split = on_store(tmp_path, phantoms, tmp_path), parts(phantoms)
    with pytest.raises(Rejected, match="made with another Plan"):
        stored(replace(config, plan=Plan()), phantoms, split)
    with pytest.raises(Rejected, match="no study in its train part"):
        stored(config, phantoms, replace(split, train=()))


def test_a_run_is_resumed_after_its_store_grew(phantoms: TrainingStore, tmp_path: Path) -> None:
    """What a run depends on are its own studies."""
    split = parts(phantoms)
    config = on_store(tmp_path, phantoms, tmp_path)
    before = stored(config, replace(phantoms, entries=phantoms.entries[:4]), replace(split, test=()))
    assert before.sha256 == stored(config, phantoms, split).sha256


def test_the_card_states_the_ranges_of_the_patients_that_are_trained_on(phantoms: TrainingStore) -> None:
    """Phantoms have no patients; of a store of an older version nothing is known."""
    split = parts(phantoms)
    config = small_config(Path("unused"))
    config = replace(config, plan=COARSE, partition="whole-body")
    assert stored(config, phantoms, split).ranges == {}
    ages = dict(zip(split.train, (34.0, 71.0), strict=True))
    entries = [
        replace(entry, is_phantom=False, ct_facts=CtFacts(ages.get(entry.name), coverage_mm=1000.0))
        for entry in phantoms.entries
    ]
    patients = stored(config, replace(phantoms, entries=tuple(entries)), split)
    assert patients.ranges == {"age_years": (34.0, 71.0), "coverage_mm": (1000.0, 1000.0)}
    assert patients.as_json()["ranges"] == {"age_years": [34.0, 71.0], "coverage_mm": [1000.0, 1000.0]}
    older = [replace(entries[0], ct_facts=None), *entries[1:]]
    assert stored(config, replace(phantoms, entries=tuple(older)), split).ranges == {}
