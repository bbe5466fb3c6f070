"""The ways of a render's files: one result whole in its place, however often it was rendered, and nothing left."""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.scanner_node import PET_SLICES
from tests.fakes.scanner_node import fake_render as render_with_beat
from tests.samples.small_ct import write_series
from twin_scanner.app import render_template
from twin_scanner.errors import Misconfigured, Rejected
from twin_scanner.models.card import read_card
from twin_scanner.models.store import DEMONSTRATION_FOLDER
from twin_scanner.render.exchange import Carried, Exchange, Shared, render_beside, write_files
from twin_scanner.render.report import RenderReport, read_report
from twin_scanner.render.request import RenderRequest
from twin_scanner.settings import Settings

pytestmark = pytest.mark.unit

REJECTION = "The slice at z = 3 mm is missing."


def render(request: RenderRequest) -> RenderReport:
    return render_with_beat(request, lambda: None)


def reject(request: RenderRequest) -> RenderReport:
    (request.result / "pet").mkdir(parents=True)
    raise Rejected(REJECTION)


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


@pytest.fixture
def request_(tmp_path: Path) -> RenderRequest:
    job = tmp_path / "job"
    write_series(job / "ct", slices=4, step_mm=5.0)
    return replace(
        render_template(Settings()), source=job / "ct", result=job / "result", model_store=tmp_path / "models"
    )


@pytest.mark.parametrize("kind", [Shared, Carried])
def test_the_result_stands_whole_in_its_place_and_nothing_else_is_left(
    kind: Callable[[Callable[[RenderRequest], RenderReport]], Exchange],
    executor: Executor,
    request_: RenderRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "worker").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "worker"))
    exchange = kind(render)
    (request_.result / "pet").mkdir(parents=True)
    (request_.result / "pet" / "half.dcm").write_bytes(b"of a lost process")
    report = exchange.end(request_, exchange.begin(executor, request_).result(30.0))
    assert report == read_report(request_.result)
    assert len(list((request_.result / "pet").iterdir())) == len(report.pet_files) == PET_SLICES
    assert sorted(path.name for path in request_.result.parent.iterdir()) == ["ct", "result"]
    assert not list((tmp_path / "worker").iterdir())


def test_of_two_workers_that_render_the_same_the_one_that_the_executor_names_counts(
    executor: Executor, request_: RenderRequest
) -> None:
    """A worker that the scheduler takes for lost goes on: both used to write into one folder."""
    lost, named = (render_beside(render, request_) for _ in range(2))
    assert lost != named
    (request_.result.with_name(lost) / "report.json").unlink()
    report = Shared(render).end(request_, named)
    assert report == read_report(request_.result)
    assert sorted(path.name for path in request_.result.parent.iterdir()) == ["ct", "result"]


@pytest.mark.parametrize("kind", [Shared, Carried])
def test_a_result_that_is_there_is_not_rendered_again(
    kind: Callable[[Callable[[RenderRequest], RenderReport]], Exchange], executor: Executor, request_: RenderRequest
) -> None:
    """The service may have ended after the result took its place and before the ledger knew."""
    first = render(request_)
    exchange = kind(reject)
    assert exchange.end(request_, exchange.begin(executor, request_).result(30.0)) == first


@pytest.mark.parametrize("kind", [Shared, Carried])
def test_a_render_that_fails_leaves_nothing_and_says_why(
    kind: Callable[[Callable[[RenderRequest], RenderReport]], Exchange], executor: Executor, request_: RenderRequest
) -> None:
    with pytest.raises(Rejected, match=REJECTION):
        kind(reject).begin(executor, request_).result(30.0)
    assert [path.name for path in request_.result.parent.iterdir()] == ["ct"]


def test_the_model_that_stands_when_a_render_is_asked_for_is_the_one_that_is_used(
    executor: Executor, request_: RenderRequest
) -> None:
    asked: list[str] = []

    def note(request: RenderRequest) -> RenderReport:
        asked.append(request.model)
        return render(request)

    Shared(note).begin(executor, request_).result(30.0)
    assert asked == [read_card(DEMONSTRATION_FOLDER).model_hash]
    with pytest.raises(Misconfigured, match="There is no model 'none'"):
        Shared(note).begin(executor, replace(request_, model="none"))


@pytest.mark.parametrize("name", ["../escaped", "/escaped"])
def test_a_file_that_would_leave_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no path within"):
        write_files(tmp_path / "folder", {name: b""})
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
