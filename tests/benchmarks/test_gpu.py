"""The benchmark of the GPU: every line of it runs on a processor too, so that it works where a GPU is."""

import pytest
from typer.testing import CliRunner

import benchmarks.__main__ as program
from benchmarks import gpu

pytestmark = pytest.mark.unit


@pytest.mark.long
def test_every_part_is_measured_on_whatever_device() -> None:
    figures = gpu.measure(device="cpu", shape=(34, 40, 40), features=(2,), steps=1, matrix=64)
    assert [figure.figure.split(",")[0] for figure in figures] == [
        "share of the matrix product's rate",
        "whole body",
        "MONAI's time / ours",
        *["training"] * 4,
    ]
    assert all(figure.value > 0 for figure in figures)


def test_without_a_gpu_nothing_is_measured_and_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    import typer

    app = typer.Typer()
    app.command()(program.main)
    result = CliRunner().invoke(app, ["gpu", "--json"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert gpu.ABSENT in result.stderr
