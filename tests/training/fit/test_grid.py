"""A grid of runs: what it is made of, that a network trained as a job is the network trained in a run, and failures."""

from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training.data.pairs import Pair
from training.fit import phantom_pairs
from training.fit.checkpoint import CHECKPOINT
from training.fit.config import DataConfig
from training.fit.fit import train
from training.fit.grid import Grid, is_grid, merged, read_grid, train_grid
from training.fit.phantom_pairs import make_pairs
from training.fit.run_data import load_data
from twin_scanner.errors import Rejected, Transient
from twin_scanner.models.package import load_package
from twin_scanner.models.plan import Plan

pytestmark = pytest.mark.loop

COMMON: dict[str, Any] = {
    "package": {"intended_use": "Tests.", "licence": "CC0-1.0"},
    "plan": {"spacing_mm": [12.0, 10.0, 10.0]},
    "data": {"count": 2, "held_out": 1, "segmenter": "truth"},
    "network": {"features": 2, "discriminator_features": 2},
    "schedule": {"constant_epochs": 1, "steps_per_epoch": 2},
    "validation": {"every_epochs": 0},
    "compute": {"device": "cpu"},
}
HALVES = {"partition": {"name": "halves", "networks": {"upper": [1, 3], "lower": [2, 4]}}}


def grid(out: Path, **changes: Any) -> Grid:
    """Two variants of two and of one network, on one dataset, with one seed."""
    values: dict[str, Any] = {
        "out": out,
        "variants": {"halves": HALVES, "whole-body": {"partition": "whole-body"}},
        "datasets": {"phantoms": {}},
        "seeds": (3,),
        "common": COMMON,
    }
    return Grid(**{**values, **changes})


@pytest.fixture
def one_worker() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def test_every_variant_meets_every_dataset_and_seed_and_the_last_table_is_on_top(tmp_path: Path) -> None:
    datasets = {"few": {}, "many": {"data": {"count": 9}}}
    runs = grid(tmp_path, datasets=datasets, seeds=(1, 2)).runs()
    names = [run.name for run in runs]
    assert names[:4] == ["halves-few-s1", "halves-many-s1", "halves-few-s2", "halves-many-s2"] and len(set(names)) == 8
    by_name = {run.name: run for run in runs}
    many = by_name["whole-body-many-s2"]
    assert (many.seed, many.data.count, many.data.held_out, many.partition) == (2, 9, 1, "whole-body")
    assert many.out == tmp_path / "whole-body-many-s2"
    assert [run.name for run in grid(tmp_path, seeds=(1, 2)).runs("whole-*-s2")] == ["whole-body-phantoms-s2"]


def test_tables_are_merged_as_deep_as_they_go_and_stay_as_they_were() -> None:
    below = {"a": {"b": {"c": 1, "d": 2}}, "e": [1]}
    assert merged(below, {"a": {"b": {"c": 3}}, "e": [2]}) == {"a": {"b": {"c": 3, "d": 2}}, "e": [2]}
    assert below == {"a": {"b": {"c": 1, "d": 2}}, "e": [1]}


def test_the_phantoms_of_a_run_are_made_once_for_all_networks_that_a_process_trains(
    tmp_path: Path, one_worker: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They took most of the time of a short run: once for every network, and once more for the package."""
    made: list[int] = []

    def counted(config: DataConfig, plan: Plan, *, keep_air: bool) -> list[Pair]:
        made.append(config.count)
        return make_pairs(config, plan, keep_air=keep_air)

    phantom_pairs.kept_pairs.cache_clear()
    monkeypatch.setattr(phantom_pairs, "make_pairs", counted)
    train_grid(grid(tmp_path, variants={"halves": HALVES}), one_worker)
    assert made == [2]


@pytest.mark.long
def test_a_grid_trains_only_the_networks_that_its_runs_name(tmp_path: Path, one_worker: Executor) -> None:
    (begun,) = train_grid(grid(tmp_path / "first", variants={"halves": HALVES}), one_worker)
    upper = HALVES | {"networks": ["upper"], "warm_start": str(begun)}
    jobs: list[int] = []
    (package,) = train_grid(
        grid(tmp_path / "second", variants={"halves": upper}), one_worker, progress=lambda _, total: jobs.append(total)
    )
    assert set(jobs) == {2}
    before, after = load_package(begun), load_package(package)
    old, new = before.networks["lower"].state_dict(), after.networks["lower"].state_dict()
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert before.model_hash != after.model_hash


@pytest.mark.long
def test_a_network_is_the_same_as_a_job_and_in_a_run_and_a_finished_grid_is_left_alone(
    tmp_path: Path, one_worker: Executor
) -> None:
    """Oracle: ``train`` of the same configuration, all networks in one process, one after the other."""
    wanted = grid(tmp_path / "grid", variants={"halves": HALVES})
    told: list[tuple[int, int]] = []
    packages = train_grid(wanted, one_worker, at_once=2, progress=lambda *at: told.append(at))
    assert told[0] == (0, 3) and told[-1] == (3, 3)
    for config, package in zip(wanted.runs(), packages, strict=True):
        alone = replace(config, out=tmp_path / "alone" / config.name)
        assert load_package(package).model_hash == load_package(train(alone, load_data(alone))).model_hash
    cards = [(package / "card.json").stat().st_mtime_ns for package in packages]
    assert train_grid(wanted, one_worker) == packages
    assert [(package / "card.json").stat().st_mtime_ns for package in packages] == cards


def test_a_run_that_fails_is_named_and_ends_no_other(tmp_path: Path, one_worker: Executor) -> None:
    lacking = {"partition": {"name": "organs", "networks": {"liver": [77]}}}
    wanted = grid(tmp_path, variants={"organs": lacking, "whole-body": {"partition": "whole-body"}})
    with pytest.raises(Rejected, match=r"1 of 2 runs of the grid failed, the first is organs-phantoms-s3: .*\[77\]"):
        train_grid(wanted, one_worker)
    assert (tmp_path / "whole-body-phantoms-s3" / "package" / "card.json").is_file()
    assert not (tmp_path / "organs-phantoms-s3" / "package").exists()


def test_a_lost_worker_is_said_in_one_sentence(tmp_path: Path) -> None:
    class Lost(Executor):
        """Every job of it is on a process that was killed."""

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            job: Future[Any] = Future()
            job.set_exception(BrokenProcessPool())
            return job

    with pytest.raises(Transient, match="A worker process was lost while it trained halves-phantoms-s3"):
        train_grid(grid(tmp_path), Lost())


class Untouched(Executor):
    """May not be asked."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        raise AssertionError("the output cannot be written: nothing is begun")


def test_an_output_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Rejected, match="file is no folder, so nothing can be written into it"):
        train_grid(grid(tmp_path / "file" / "grid"), Untouched())


def test_ctrl_c_says_what_is_kept(tmp_path: Path) -> None:
    class Interrupted(Executor):
        """Ctrl-C comes while the second job is given to it."""

        given = 0

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            self.given += 1
            if self.given == 2:
                raise KeyboardInterrupt
            job: Future[Any] = Future()
            job.set_result(None)
            return job

    kept = r"1 of 5 jobs are done, and every run keeps its last checkpoint; start it again to go on"
    with pytest.raises(Transient, match=kept):
        train_grid(grid(tmp_path), Interrupted())


def test_another_configuration_in_the_same_place_is_refused(tmp_path: Path, one_worker: Executor) -> None:
    only = {"whole-body": {"partition": "whole-body"}}
    train_grid(grid(tmp_path, variants=only), one_worker)
    run = tmp_path / "whole-body-phantoms-s3"
    assert (run / "networks" / "body" / CHECKPOINT).is_file()
    (run / "package").rename(run / "set-aside")
    other = merged(COMMON, {"optimiser": {"learning_rate": 1e-3}})
    with pytest.raises(Rejected, match="holds a run of another configuration"):
        train_grid(grid(tmp_path, variants=only, common=other), one_worker)


def test_a_faulty_run_is_named_with_every_fault(tmp_path: Path) -> None:
    common = merged(COMMON, {"optimiser": {"beta1": 2.0}, "colour": "red"})
    with pytest.raises(Rejected, match=r"The run halves-phantoms-s3 of the grid .*(beta1.*colour|colour.*beta1)"):
        grid(tmp_path, common=common).runs()
    with pytest.raises(Rejected, match="No run of this grid is called 'nothing'"):
        grid(tmp_path).runs("nothing")
    with pytest.raises(Rejected, match="This grid has no run"):
        grid(tmp_path, seeds=()).runs()


def test_the_grid_of_the_experiment_is_one(tmp_path: Path) -> None:
    file = Path("training/configs/districts-or-whole.toml")
    assert is_grid(file) and not is_grid(Path("training/configs/smoke.toml")) and not is_grid(tmp_path / "none.toml")
    runs = {run.name: run for run in read_grid(file).runs()}
    assert len(runs) == 8 * 3 * 2
    assert {run.schedule.epochs * run.steps_per_epoch(1) for run in runs.values()} == {6000, 24000}
    assert all((run.network.features == 16) == ("x4" in name) for name, run in runs.items())
