"""A scanner of the network cannot fill the log. Oracle: the lines, by a clock that the test sets."""

import pytest

from dicom_node.refusal_log import EVERY_S, MOST_ADDRESSES, RefusalLog

pytestmark = pytest.mark.unit


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_an_address_has_one_line_a_minute_with_the_count_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = RefusalLog(clock)
    for number in range(200):
        clock.now_s = number * 0.1
        log.refused("10.9.9.9", f"Refused {number}.")
    log.refused("10.8.8.8", "Another address.")
    assert caplog.messages == ["Refused 0.", "Another address."]
    clock.now_s = EVERY_S + 20.0
    log.flush()
    assert caplog.messages[2:] == ["199 more callers from 10.9.9.9 were refused in the last minute."]
    log.refused("10.9.9.9", "Refused again.")
    assert len(caplog.messages) == 3, "its line of this minute was the count"
    log.refused("10.8.8.8", "Another again.")
    assert caplog.messages[3:] == ["Another again."]


def test_a_line_comes_without_a_count_where_nothing_followed(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = RefusalLog(clock)
    log.refused("10.9.9.9", "First.")
    clock.now_s = EVERY_S
    log.refused("10.9.9.9", "Second.")
    assert caplog.messages == ["First.", "Second."]


def test_many_addresses_take_no_more_memory_than_a_thousand(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = RefusalLog(clock)
    for number in range(MOST_ADDRESSES + 50):
        log.refused(f"address {number}", f"Refused {number}.")
    assert len(caplog.messages) == MOST_ADDRESSES
    clock.now_s = EVERY_S
    log.flush()
    assert caplog.messages[MOST_ADDRESSES:] == ["50 callers from still other addresses were refused."]
    log.refused("new", "A new one.")
    assert caplog.messages[-1] == "A new one."
