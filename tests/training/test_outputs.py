"""What training cannot write: found before the work where it can be, else one sentence, whatever the moment."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.fakes.full_disk import disk_that_fills
from tests.samples.block_studies import Block, some
from tests.samples.known_cases import body_pet, case_of
from tests.samples.small_pairs import small_config, small_data, small_sampler
from tests.training.evaluation.test_evaluate import STUDIES, Blocks, package, request_of
from training.data.prepare import prepare
from training.data.splits import Split, write_split
from training.evaluation.evaluate import EvaluatedModel, evaluated_models, measure_all
from training.evaluation.figures import plot_study
from training.evaluation.result_files import write_results
from training.evaluation.rows_table import table_of, write_table
from training.evaluation.score import score
from training.fit.batches import sample_batch
from training.fit.config import ValidationConfig
from training.fit.curve import Curve
from training.fit.event_log import EventLog
from training.fit.finished_package import write_package
from training.fit.fit import Run, check_place, fit, train
from training.fit.gradient_step import check_finite
from training.fit.state import fresh_state
from training.phantom.files import write_studies
from twin_scanner.errors import Rejected, Transient
from twin_scanner.models.plan import Plan

pytestmark = pytest.mark.loop

PLAN = Plan(spacing_mm=(6.0, 4.0, 5.0))
SPACING_MM = (12.0, 12.0, 12.0)


@pytest.fixture
def models(tmp_path: Path) -> list[EvaluatedModel]:
    return evaluated_models([package(tmp_path / "model", "model", 1)])


def never(*_: object) -> None:
    pytest.fail("the output cannot be written: nothing is begun")


class Untouched(Blocks):
    """May not be asked."""

    segment = never  # type: ignore[assignment]


def test_a_file_in_the_outputs_place_is_found_before_the_work(models: list[EvaluatedModel], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    sentence = "file is no folder, so nothing can be written into it: choose another folder"
    with pytest.raises(Rejected, match=sentence):
        measure_all(request_of(models, file / "out", segmenter=Untouched()))
    with pytest.raises(Rejected, match=sentence):
        check_place(replace(small_config(tmp_path), out=file / "run"), resume=False)
    with pytest.raises(Rejected, match=sentence):
        prepare(some(1), file / "store", PLAN, never)
    with pytest.raises(Rejected, match=sentence):
        write_studies(file, 1, 0, options_of=never)


def test_a_full_disk_is_found_before_the_work(models: list[EvaluatedModel], tmp_path: Path) -> None:
    out, full = tmp_path / "out", "out cannot be written: the disk is full"
    with disk_that_fills() as fill:
        fill()
        with pytest.raises(Transient, match=full):
            measure_all(request_of(models, out, segmenter=Untouched()))
        with pytest.raises(Transient, match=full):
            check_place(replace(small_config(tmp_path), out=out), resume=False)
        with pytest.raises(Transient, match=full):
            prepare(some(1), out, PLAN, never)
        with pytest.raises(Transient, match=full):
            write_studies(out, 1, 0, options_of=never)
    assert not out.exists()


def evaluated(models: list[EvaluatedModel], out: Path, fill: Callable[[], None]) -> None:
    measure_all(request_of(models, out, look=lambda cases: fill()))


def concluded(models: list[EvaluatedModel], out: Path, fill: Callable[[], None]) -> None:
    asked = request_of(models, out, studies=STUDIES[:1])
    result = measure_all(asked)
    fill()
    write_results(asked, result, "blocks")


def table(models: list[EvaluatedModel], out: Path, fill: Callable[[], None]) -> None:
    rows = table_of(score(case_of(body_pet(), body_pet(1)), "m"))
    fill()
    write_table(rows, out / "metrics.parquet")


def figures(models: list[EvaluatedModel], out: Path, fill: Callable[[], None]) -> None:
    fill()
    plot_study({"m": case_of(body_pet(), body_pet(1))}, out)


def store(models: list[EvaluatedModel], out: Path, fill: Callable[[], None]) -> None:
    prepare(some(3), out, PLAN, None, registered=False, progress=lambda done, total: fill() if done else None)


def refusals(models: list[EvaluatedModel], out: Path, fill: Callable[[], None]) -> None:
    spoilt = [Block(f"study-{n}", "patient-" * 99, fault="cold") for n in range(2)]
    prepare(spoilt, out, PLAN, None, registered=False, progress=lambda done, total: fill())


def checkpoint(models: list[EvaluatedModel], out: Path, fill: Callable[[], None]) -> None:
    config = replace(small_config(out), checkpoint_steps=1)
    train(config, small_data(config), on_step=lambda *_: fill())


def curve(models: list[EvaluatedModel], out: Path, fill: Callable[[], None]) -> None:
    (out / "curve.jsonl").write_text("x" * 600 + "\n")
    fill()
    Curve(out).record("trunk", 100, {"L1": 0.5})


def finished(models: list[EvaluatedModel], out: Path, fill: Callable[[], None]) -> None:
    config = small_config(out)
    weights = {name: fresh_state(config, name, {}).generator.state_dict() for name in config.covered.networks}
    fill()
    write_package(config, weights, small_data(config))


def events(models: list[EvaluatedModel], out: Path, fill: Callable[[], None]) -> None:
    log = EventLog(out, "trunk", 0)
    log.scalars(1, {"L1": 0.5})
    fill()
    log.picture(2, case_of(body_pet(), body_pet(1)))


def tensorboard(models: list[EvaluatedModel], out: Path, fill: Callable[[], None]) -> None:
    config = replace(small_config(out, 1), tensorboard=True, validation=ValidationConfig(1, 1))
    fill()
    fit(config, fresh_state(config, "trunk", {}), small_sampler(0), Run(validated=small_data(config).validated))


def phantoms(models: list[EvaluatedModel], out: Path, fill: Callable[[], None]) -> None:
    write_studies(out, 2, 0, spacing_mm=SPACING_MM, progress=lambda done, total: fill())


def split(models: list[EvaluatedModel], out: Path, fill: Callable[[], None]) -> None:
    fill()
    write_split(out / "split.json", Split(tuple(f"study-{n}" for n in range(99)), (), (), ()))


@pytest.mark.parametrize(
    "work",
    [evaluated, concluded, table, figures, store, refusals, checkpoint, curve, finished, phantoms, split,
     events, tensorboard],
)  # fmt: skip
def test_a_disk_that_fills_up_in_the_middle_is_one_sentence(
    work: Callable[[list[EvaluatedModel], Path, Callable[[], None]], None],
    models: list[EvaluatedModel],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with disk_that_fills() as fill, pytest.raises(Transient, match=r"cannot be written") as error:
        work(models, out, fill)
    assert str(error.value).count(".") >= 1 and "\n" not in str(error.value)


def test_a_batch_that_cannot_be_kept_does_not_hide_that_training_diverged(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    state, batch = fresh_state(config, "trunk", {}), sample_batch(config, "trunk", small_sampler(0), 0)
    with disk_that_fills() as fill:
        fill()
        with pytest.raises(Rejected, match=r"diverged at step 1.*could not be written.*optimiser\.learning_rate"):
            check_finite(config, state, batch, "generator", torch.tensor(float("nan")))


def after_one(done: int, total: int) -> None:
    if done == 1:
        raise KeyboardInterrupt


def test_ctrl_c_says_what_is_kept(tmp_path: Path) -> None:
    with pytest.raises(Transient, match=r"store holds 1 of 3 studies whole; run it again to go on"):
        prepare(some(3), tmp_path / "store", PLAN, None, registered=False, progress=after_one)
    assert len(prepare(some(3), tmp_path / "store", PLAN, None, registered=False).entries) == 3
    with pytest.raises(Transient, match=r"holds 1 of 3 whole, with their table"):
        write_studies(tmp_path / "phantoms", 3, 0, spacing_mm=SPACING_MM, progress=after_one)
    assert (tmp_path / "phantoms" / "fdg_metadata.csv").is_file()
