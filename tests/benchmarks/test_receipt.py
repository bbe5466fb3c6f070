"""What the receipt's benchmark makes of its times. The oracle is arithmetic."""

import pytest

from benchmarks import receipt

pytestmark = pytest.mark.unit


def test_the_figures_compare_ours_with_each_receiver_that_is_installed_and_with_the_goals() -> None:
    seconds = {receipt.OURS: 5.0, receipt.NOTHING: 4.0, receipt.PYNETDICOM: 9.0, receipt.ORTHANC: 5.0}
    figures = {(one.figure, one.peer): one for one in receipt._figures(seconds, together_s=4.0, slices=600)}
    ratios = {key: pytest.approx(one.ratio) for key, one in figures.items()}
    one_sender = "600 CT slices of 512 x 512, one sender"
    assert ratios == {
        (one_sender, receipt.NOTHING): 0.8,
        (one_sender, receipt.PYNETDICOM): 1.8,
        (one_sender, receipt.ORTHANC): 1.0,
        ("times as fast as pynetdicom storescp", "goal"): 1.0,
        ("times as fast as Orthanc", "goal"): 1.0 / 1.1,
        ("rate of 8 senders, of one's", "goal"): 1.25 / 0.9,
    }


def test_the_processor_time_of_a_slice_stands_beside_that_of_each_receiver() -> None:
    figures = receipt._processor_figures({receipt.OURS: 1.5, receipt.PYNETDICOM: 6.0, receipt.ORTHANC: 3.0}, slices=600)
    found = {one.peer: (one.value, one.unit, one.peer_value, one.ratio) for one in figures}
    assert found == {receipt.PYNETDICOM: (2.5, "ms", 10.0, 4.0), receipt.ORTHANC: (2.5, "ms", 5.0, 2.0)}
