"""What comes out on stderr: JSON lines with the context of the job, and no text that quotes the data."""

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from twin_scanner.logs import current_context, log_context, record_strays, set_up_logging

pytestmark = pytest.mark.unit

SECRET = "DOE^JANE"
OURS = logging.getLogger("twin_scanner.somewhere")
LIBRARY = logging.getLogger("pydicom.somewhere")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The records that came out so far, as JSON; everything that is set for a whole process is put back."""
    root, stderr = logging.getLogger(), io.StringIO()
    level, handlers = root.level, list(root.handlers)
    for module, hook in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(module, hook, getattr(module, hook))
    monkeypatch.setattr(sys, "stderr", stderr)
    with warnings.catch_warnings():
        root.handlers = []
        set_up_logging("INFO")
        record_strays()
        yield lambda: [json.loads(line) for line in stderr.getvalue().splitlines()]
    root.handlers = handlers
    root.setLevel(level)


def fail() -> None:
    raise ValueError(f"invalid value {SECRET}")


def caught() -> ValueError:
    try:
        fail()
    except ValueError as error:
        return error
    raise AssertionError


def test_every_record_in_a_context_names_its_ids_and_none_after_it(lines: Callable[[], list[dict[str, Any]]]) -> None:
    with log_context(job_id="7", study_uid="1.2.3"):
        with log_context(step="render"):
            OURS.info("inside")
            OURS.info("says so itself", extra={"step": "intake"})
        OURS.info("outer")
        assert current_context() == {"job_id": "7", "study_uid": "1.2.3"}
    OURS.info("after")
    inside, itself, outer, after = lines()
    assert {"job_id": "7", "study_uid": "1.2.3", "step": "render"}.items() <= inside.items()
    assert itself["step"] == "intake"
    assert outer["job_id"] == "7" and "step" not in outer
    assert "job_id" not in after


def test_two_threads_have_contexts_of_their_own(lines: Callable[[], list[dict[str, Any]]]) -> None:
    both = threading.Barrier(2)

    def work(job_id: str) -> None:
        with log_context(job_id=job_id):
            both.wait(10)
            OURS.info("job %s", job_id)

    threads = [threading.Thread(target=work, args=(job_id,)) for job_id in ("1", "2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((line["message"], line["job_id"]) for line in lines()) == [("job 1", "1"), ("job 2", "2")]


def test_an_error_comes_out_by_its_kind_and_place_and_never_by_its_text(
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    OURS.error("step failed", exc_info=caught())
    LIBRARY.error("cannot read %s", SECRET, exc_info=caught())
    LIBRARY.error(f"cannot read {SECRET}")
    ours, library, bare = lines()
    assert ours["message"] == "step failed" and ours["error"] == "ValueError"
    assert ours["where"].startswith("test_logs.fail:")
    assert library["message"] == bare["message"] == "pydicom reports a problem"
    assert library["where"].startswith("test_logs.fail:") and bare["where"].startswith("test_logs:")
    assert SECRET not in json.dumps(lines()) and "Traceback" not in json.dumps(lines())


def test_an_error_that_nobody_caught_is_a_record_in_every_thread(lines: Callable[[], list[dict[str, Any]]]) -> None:
    thread = threading.Thread(target=fail, name="dies")
    thread.start()
    thread.join()
    error = caught()
    sys.excepthook(type(error), error, error.__traceback__)
    sys.unraisablehook(
        type("Args", (), {"exc_type": ValueError, "exc_value": error, "exc_traceback": None, "object": SECRET})()
    )
    died, ended, lost = lines()
    assert died["thread_name"] == "dies" and died["where"].startswith("test_logs.fail:")
    assert (died["error"], ended["error"], lost["error"]) == ("ValueError",) * 3
    assert ended["level"] == "CRITICAL"
    assert SECRET not in json.dumps(lines())


def test_a_thread_that_leaves_on_purpose_is_no_error(lines: Callable[[], list[dict[str, Any]]]) -> None:
    thread = threading.Thread(target=sys.exit)
    thread.start()
    thread.join()
    assert lines() == []


def test_a_warning_is_said_once_for_each_job_and_place_without_its_text(
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    for job_id in ("warned-1", "warned-2"):
        with log_context(job_id=job_id):
            for number in range(3):
                warnings.warn(f"{SECRET} {number}", UserWarning, stacklevel=1)
    warnings.warn("an old name", DeprecationWarning, stacklevel=1)
    assert [line["job_id"] for line in lines()] == ["warned-1", "warned-2"]
    assert all(line["error"] == "UserWarning" and line["where"].startswith("test_logs:") for line in lines())
    assert SECRET not in json.dumps(lines())
