"""Whoever looks at a job is noted, once in ten minutes of moving through its slices."""

import pytest
from fastapi import Request

from twin_scanner.console.access.roles import Role, User
from twin_scanner.console.looks import ONE_LOOK_S, LookLog

pytestmark = pytest.mark.unit


def _request(name: str) -> Request:
    return Request({"type": "http", "state": {"user": User(name, Role.VIEWER)}})


def test_each_person_is_noted_once_a_job_until_the_look_is_over() -> None:
    noted: list[str] = []
    now_s = 0.0
    log = LookLog(noted.append, lambda: now_s)
    for name, job in (("ana", "1"), ("ana", "1"), ("rui", "1"), ("ana", "2"), ("rui", "1")):
        log(_request(name), job)
    assert noted == ["1", "1", "2"]
    now_s = ONE_LOOK_S
    log(_request("ana"), "1")
    assert noted == ["1", "1", "2", "1"]


def test_a_look_that_could_not_be_noted_is_tried_again() -> None:
    noted: list[str] = []

    def note(job_id: str) -> None:
        noted.append(job_id)
        if len(noted) == 1:
            raise OSError("full")

    log = LookLog(note, lambda: 0.0)
    with pytest.raises(OSError, match="full"):
        log(_request("ana"), "1")
    log(_request("ana"), "1")
    assert noted == ["1", "1"]
