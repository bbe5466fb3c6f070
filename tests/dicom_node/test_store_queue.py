"""What the associations of one sending share: each place is taken once, and the first has the last word."""

import threading

import pytest

from dicom_node.store_queue import StoreQueue
from tests.samples.loopback_node import DEADLINE_S


def never() -> bool:
    return False


def test_what_is_given_back_is_the_next_and_what_is_not_shared_comes_after_everything_shared() -> None:
    queue = StoreQueue(4, 3, never)
    first, second = queue.take(shared=True), queue.take(shared=True)
    assert (first, second) == (0, 1)
    with queue.working():
        queue.give_back(0)
    assert [queue.take(shared=True) for _ in range(3)] == [0, 2, None]
    assert queue.take(shared=False) == 3


def test_the_first_waits_for_what_is_under_way_and_alone_takes_what_comes_back() -> None:
    queue = StoreQueue(2, 2, never)
    assert queue.take(shared=True) == 0
    let_go, settled = threading.Event(), threading.Event()

    def help_out() -> None:
        with queue.working():
            assert let_go.wait(DEADLINE_S)
            assert not settled.is_set()
            queue.give_back(0)

    def settle() -> None:
        queue.settle()
        settled.set()

    threads = [threading.Thread(target=work) for work in (help_out, settle)]
    for thread in threads:
        thread.start()
    assert not settled.wait(0.05)
    let_go.set()
    assert settled.wait(DEADLINE_S)
    for thread in threads:
        thread.join(DEADLINE_S)
    assert queue.take(shared=True) is None
    assert [queue.take(shared=False) for _ in range(3)] == [0, 1, None]


def test_a_stop_and_an_error_end_it_for_every_association() -> None:
    stopped = StoreQueue(2, 2, lambda: True)
    assert stopped.take(shared=True) is None
    assert stopped.stopped
    broken = StoreQueue(2, 2, never)
    assert broken.take(shared=True) == 0
    with pytest.raises(KeyError), broken.working():
        raise KeyError("caller")
    assert broken.take(shared=False) is None
    assert not broken.stopped
