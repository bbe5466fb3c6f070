"""The circuit breaker, driven by a clock: one probe at a time while the destination is down, none before its moment."""

import threading

import pytest

from tests.fakes.clock import Clock
from twin_scanner.service.breaker import Breaker

pytestmark = pytest.mark.unit


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(lambda failures: 10.0 * failures, clock.monotonic_s)


def in_another_thread(ask: Breaker) -> bool:
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(ask.enter()))
    thread.start()
    thread.join()
    return answers[0]


def test_while_the_destination_is_up_everybody_may_begin(breaker: Breaker) -> None:
    assert breaker.enter() and in_another_thread(breaker)
    assert not breaker.up()


def test_while_it_is_down_one_probe_may_begin_when_its_moment_has_come(breaker: Breaker, clock: Clock) -> None:
    assert breaker.enter()
    assert breaker.down()
    assert not breaker.enter()
    clock.pass_s(10.0)
    assert breaker.enter()
    assert not in_another_thread(breaker)
    assert not breaker.down()
    clock.pass_s(19.0)
    assert not breaker.enter()
    clock.pass_s(1.0)
    assert breaker.enter()
    assert breaker.up()
    assert breaker.enter() and in_another_thread(breaker)


def test_a_probe_that_found_nothing_to_try_leaves_the_place_to_another(breaker: Breaker, clock: Clock) -> None:
    breaker.down()
    clock.pass_s(10.0)
    assert breaker.enter()
    breaker.idle()
    assert in_another_thread(breaker)


def test_work_that_began_before_and_fails_too_does_not_put_the_probe_off(breaker: Breaker, clock: Clock) -> None:
    assert breaker.enter()
    assert breaker.down()
    assert not breaker.down()
    clock.pass_s(10.0)
    assert breaker.enter()


def test_a_destination_that_says_when_to_ask_again_is_not_asked_before(breaker: Breaker, clock: Clock) -> None:
    breaker.down(at_least_s=120.0)
    clock.pass_s(119.0)
    assert not breaker.enter()
    clock.pass_s(1.0)
    assert breaker.enter()


def test_a_destination_that_asks_for_a_year_is_asked_within_the_hour(breaker: Breaker, clock: Clock) -> None:
    breaker.down(at_least_s=3.2e7)
    clock.pass_s(3600.0)
    assert breaker.enter()


def test_a_jump_of_the_wall_clock_moves_no_probe(breaker: Breaker, clock: Clock) -> None:
    breaker.down()
    clock.jump_s(3600.0)
    assert not breaker.enter()
    clock.jump_s(-86400.0)
    clock.pass_s(10.0)
    assert breaker.enter()
