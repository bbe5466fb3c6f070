"""The benchmark of translation: every line of it runs, on an image of a few windows."""

from types import MappingProxyType

import pytest

from benchmarks import translation

pytestmark = pytest.mark.unit


@pytest.mark.long
def test_every_figure_is_printed_against_its_goal() -> None:
    figures = translation.measure(bodies=MappingProxyType({"small": (48, 48, 48)}), rounds=MappingProxyType({16: 1}))
    assert [(figure.figure.split(",")[0], figure.peer) for figure in figures] == [
        ("MONAI's time / ours", "goal"),
        ("time of a loop that skips empty windows / ours", "goal"),
        ("networks' share of translation", "goal"),
        ("share of the matrix product's rate", "goal"),
        ("share of the rate of a convolution of 64 channels", ""),
        *((f"{name} / the paper's input", "goal") for name in list(translation.INPUTS)[1:]),
    ]
    assert all(figure.value > 0 for figure in figures)
