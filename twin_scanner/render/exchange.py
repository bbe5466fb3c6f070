"""How a render's CT comes to the process that renders, and its result back: in place, on shared storage, or as bytes.

A worker of a cluster may be taken for lost and go on all the same, while another one renders the same CT. So each
writes into a folder of its own, and the one whose outcome the executor gives takes its place, whole and once.
"""

import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from twin_scanner.errors import Misconfigured, Rejected
from twin_scanner.files.durable_file import sync_folder, write_durably, writing
from twin_scanner.models.card import read_card
from twin_scanner.models.store import ModelStore
from twin_scanner.render.in_worker import render_in_worker
from twin_scanner.render.report import REPORT, RenderReport, read_report
from twin_scanner.render.request import RenderRequest

Render: TypeAlias = Callable[[RenderRequest], RenderReport]
"""It can be named, and so sent to another process."""
Files: TypeAlias = Mapping[str, bytes]
"""The files of a folder by their relative path."""


class Exchange(Protocol):
    """One way to have a render done by an executor."""

    def begin(self, executor: Executor, request: RenderRequest) -> Future[Any]:
        """Ask for the render; raises Transient where the executor or the disk fails."""
        ...

    def end(self, request: RenderRequest, outcome: Any) -> RenderReport:
        """What the future gave becomes the result in its place; raises Transient where the disk fails."""
        ...


@dataclass(frozen=True)
class InPlace:
    """A process on this machine reads the CT and writes the result where they are."""

    render: Render = render_in_worker

    def begin(self, executor: Executor, request: RenderRequest) -> Future[Any]:
        """The report itself."""
        return executor.submit(self.render, request)

    def end(self, request: RenderRequest, outcome: Any) -> RenderReport:
        """Nothing is to be done."""
        report: RenderReport = outcome
        return report


@dataclass(frozen=True)
class Shared:
    """A worker sees the job's folder under the same path, and writes into a new folder beside the result's."""

    render: Render = render_in_worker

    def begin(self, executor: Executor, request: RenderRequest) -> Future[Any]:
        """The name of that folder."""
        if _is_there(request.result):
            return _given(request.result.name)
        return executor.submit(render_beside, self.render, _pinned(request))

    def end(self, request: RenderRequest, outcome: Any) -> RenderReport:
        """The folder takes the result's name."""
        with writing("The result", request.result):
            _take_place(request.result.with_name(str(outcome)), request.result)
        return read_report(request.result)


@dataclass(frozen=True)
class Carried:
    """The CT travels to the worker and the result back; the model store has the same path on both machines."""

    render: Render = render_in_worker

    def begin(self, executor: Executor, request: RenderRequest) -> Future[Any]:
        """The files of the result."""
        if _is_there(request.result):
            return _given({})
        with writing("What a worker is sent", request.source):
            ct = read_files(request.source)
        return executor.submit(render_carried, self.render, _pinned(request), ct)

    def end(self, request: RenderRequest, outcome: Any) -> RenderReport:
        """The files are written beside the result, and take its place."""
        files: Files = outcome
        if files:
            with writing("The result", request.result):
                folder = _beside(request.result)
                write_files(folder, files)
                _take_place(folder, request.result)
        return read_report(request.result)


def render_beside(render: Render, request: RenderRequest) -> str:
    """On a worker: the name of the folder, beside that of the request, that holds the result."""
    folder = _beside(request.result)
    with ExitStack() as failing:
        failing.callback(shutil.rmtree, folder, ignore_errors=True)
        render(replace(request, result=folder))
        failing.pop_all()
    return folder.name


def render_carried(render: Render, request: RenderRequest, ct: Files) -> Files:
    """On a worker: the files of the result; nothing of the patient stays there."""
    with tempfile.TemporaryDirectory(prefix="render-") as scratch:
        source, result = Path(scratch) / request.source.name, Path(scratch) / request.result.name
        with writing("The CT", source):
            write_files(source, ct)
        render(replace(request, source=source, result=result))
        with writing("The result", result):
            return read_files(result)


def read_files(folder: Path) -> Files:
    """Every file below a folder; raises OSError."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def write_files(folder: Path, files: Files) -> None:
    """Write them into a new folder, on disk when this returns; raises OSError, ValueError for a path that leaves it."""
    folder.mkdir()
    for name, content in files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{name} is no path within a folder.")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, content)


def _pinned(request: RenderRequest) -> RenderRequest:
    """With the model's hash instead of its alias: the one that stands now, whatever stands when a worker begins."""
    try:
        model_hash = read_card(ModelStore(request.model_store).resolve(request.model)).model_hash
    except Rejected as error:
        raise Misconfigured(str(error)) from error
    return replace(request, model=model_hash)


def _is_there(result: Path) -> bool:
    return (result / REPORT).is_file()


def _given(outcome: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(outcome)
    return future


def _beside(result: Path) -> Path:
    return result.with_name(f".{result.name}-{uuid.uuid4().hex}")


def _take_place(folder: Path, result: Path) -> None:
    """Give a result its name, in place of an unfinished one; what lost workers left goes too. Raises OSError."""
    if folder != result:
        shutil.rmtree(result, ignore_errors=True)
        folder.rename(result)
        sync_folder(result.parent)
    for left in result.parent.glob(f".{result.name}-*"):
        shutil.rmtree(left, ignore_errors=True)
