"""What a real Dask worker loads: it waits for its files, renders as this machine does, and refuses what is not safe."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.samples.saved_packages import saved_package
from training.phantom.files import write_ct_dicom
from training.phantom.phantom import make_phantom, sample_options
from twin_scanner.app import render_template
from twin_scanner.doctor.executor import other_versions
from twin_scanner.doctor.finding import Finding, findings_of
from twin_scanner.errors import Misconfigured, Transient
from twin_scanner.executor.work_place import STORAGE_ID
from twin_scanner.models.plan import Plan
from twin_scanner.models.store import ModelStore
from twin_scanner.render.exchange import InPlace, Shared
from twin_scanner.render.in_worker import render_in_worker
from twin_scanner.settings import Settings

pytestmark = [
    pytest.mark.long,
    pytest.mark.system,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

DEADLINE_S = 180.0
MODEL = "small"
PLAN = Plan(spacing_mm=(20.0, 20.0, 20.0))
"""Coarse, so that the networks take a moment."""


def settings_of(folder: Path, scheduler: str) -> Settings:
    return Settings.model_validate(
        {
            "executor": {"kind": "dask", "scheduler": scheduler},
            "storage": {"folder": folder / "storage"},
            "model": {"name": MODEL, "accept_phantom_only": True},
            "scanner": {"accept_synthetic_ct": True},
        }
    )


def write_config(folder: Path, scheduler: str) -> Path:
    file = folder / "worker.toml"
    storage = json.dumps(str(folder / "storage"))
    executor = f'[executor]\nkind = "dask"\nscheduler = "{scheduler}"\n'
    file.write_text(f'{executor}[storage]\nfolder = {storage}\n[model]\nname = "{MODEL}"\n')
    return file


def look(settings: Settings) -> list[Finding]:
    from twin_scanner.doctor.executor import check_executor

    return list(findings_of("executor", check_executor, settings))


def contents(result: Path) -> dict[str, bytes]:
    """Of every DICOM file, by its path."""
    return {file.relative_to(result).as_posix(): file.read_bytes() for file in sorted(result.rglob("*.dcm"))}


def test_a_worker_joins_when_it_sees_the_files_and_renders_what_this_machine_renders(
    dask: None, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    from tests.peers.dask_processes import Scheduler, WorkerProcess, wait_until
    from twin_scanner.app import open_cluster

    job = tmp_path / "storage" / "jobs" / "1"
    options = sample_options(3, spacing_mm=(10.0, 10.0, 10.0))
    write_ct_dicom(make_phantom(3, options).ct, job / "ct", seed=3, options=options)
    about = {"training_data": {"kind": "phantoms", "pairs": 1}}
    package = saved_package(tmp_path / "package", MODEL, plan=PLAN, about=about)
    ModelStore(tmp_path / "storage" / "models").add(package)
    scheduler = Scheduler(tmp_path, free_port())
    settings = settings_of(tmp_path, scheduler.address)
    (finding,) = look(settings)
    assert finding.state == "fault" and "storage-id cannot be read: mount the storage folder" in finding.sentence
    preload = ("twin_scanner.dask_worker", "--config", str(write_config(tmp_path, scheduler.address)))
    with scheduler, WorkerProcess(tmp_path, "worker", scheduler, preload=preload) as worker:
        wait_until(lambda: "this worker waits" in worker.log(), "the worker looks for the folder", DEADLINE_S)
        (tmp_path / "storage" / STORAGE_ID).write_text("0123")
        with closing(open_cluster(settings, "render")) as cluster:

            def takes_renders() -> bool:
                try:
                    return cluster.places() == 1
                except Transient:
                    return False

            wait_until(takes_renders, "the worker joins", DEADLINE_S)
            request = replace(render_template(settings), source=job / "ct", result=job / "result")
            exchange = Shared()
            report = exchange.end(request, exchange.begin(cluster, request).result(DEADLINE_S))
        assert [finding.state for finding in look(settings)] == ["ok", "ok"]
    (finding,) = look(settings)
    assert finding.state == "fault" and "does not answer" in finding.sentence
    here = replace(request, result=tmp_path / "here")
    assert InPlace().end(here, render_in_worker(here)).pet_instance_uids == report.pet_instance_uids
    assert contents(request.result) == contents(here.result)


@pytest.mark.parametrize(
    ("threads", "scheduler", "sentence"),
    [
        (2, "tls://10.0.0.5:8786", "give it --nthreads 1"),
        (1, "tcp://10.0.0.5:8786", "without TLS, and Dask runs whatever it receives"),
    ],
)
def test_a_worker_that_would_not_be_safe_takes_no_work(dask: None, threads: int, scheduler: str, sentence: str) -> None:
    from twin_scanner.dask_worker import check

    worker: Any = SimpleNamespace(state=SimpleNamespace(nthreads=threads), scheduler=SimpleNamespace(address=scheduler))
    with pytest.raises(Misconfigured, match=sentence):
        check(worker)


def test_a_worker_with_another_version_of_dask_is_named() -> None:
    ours = {"packages": {"python": "3.11", "dask": "2026.8.0", "distributed": "2026.8.0", "numpy": "2"}}
    other = {"packages": {**ours["packages"], "distributed": "2025.1.0", "numpy": "1"}}
    assert other_versions({"client": ours, "scheduler": ours, "workers": {"a": ours}}) == []
    assert other_versions({"client": ours, "scheduler": ours, "workers": {"a": ours, "b": other}}) == ["distributed"]
