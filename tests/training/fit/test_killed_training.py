"""Real training processes ended by SIGTERM and SIGKILL: what is resumed ends in the package of an undisturbed run."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.fit.curve import read_curve
from training.fit.fit import main
from twin_scanner.models.card import read_card

pytestmark = pytest.mark.loop

DEADLINE_S = 120.0
POLL_S = 0.02
CHECKPOINT_STEPS = 2
CONFIG = f"""
name = "tiny"
out = "runs/tiny"
threads = 1
partition = "whole-body"
checkpoint_steps = {CHECKPOINT_STEPS}
[package]
intended_use = "Tests."
licence = "CC0-1.0"
[plan]
spacing_mm = [12.0, 10.0, 10.0]
[data]
count = 3
held_out = 1
seed = 3
segmenter = "truth"
[network]
features = 2
discriminator_features = 2
[schedule]
constant_epochs = 15
decay_epochs = 5
steps_per_epoch = 5
[validation]
every_epochs = 4
[compute]
device = "cpu"
"""
CHECKPOINTS_OF_THE_GRID = 1000
ENDED_WITHIN_S = 60.0
GRID = f"""
out = "runs"
seeds = [1]
[variants.one]
[datasets.phantoms]
[common]
threads = 1
partition = "whole-body"
checkpoint_steps = {CHECKPOINTS_OF_THE_GRID}
[common.package]
intended_use = "Tests."
licence = "CC0-1.0"
[common.plan]
spacing_mm = [12.0, 10.0, 10.0]
[common.data]
count = 2
held_out = 1
seed = 3
segmenter = "truth"
[common.network]
features = 2
discriminator_features = 2
[common.schedule]
constant_epochs = 100000
decay_epochs = 0
steps_per_epoch = 5
[common.validation]
every_epochs = 1
[common.compute]
device = "cpu"
"""


def started(folder: Path, *options: str) -> "subprocess.Popen[str]":
    """The command line's own process, which hears Ctrl-C although this one may have been started to ignore it."""
    return subprocess.Popen(
        [sys.executable, "-m", "twin_scanner.cli", "train", "tiny.toml", *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Poll until the run is so far; the process must still be at it."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(POLL_S)


def validations(folder: Path) -> int:
    return len(read_curve(folder / "runs" / "tiny"))


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_grid_that_is_stopped_keeps_the_step_that_it_is_at(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C waited until the network was trained, and SIGTERM lost the steps since the last checkpoint."""
    (tmp_path / "tiny.toml").write_text(GRID, "utf-8")
    run = tmp_path / "runs" / "one-phantoms-s1" / "networks" / "body"
    process = started(tmp_path)
    wait_for(lambda: bool(read_curve(run)), process)
    process.send_signal(number)
    asked_at_s = time.monotonic()
    _, complaint = process.communicate(timeout=DEADLINE_S)
    assert time.monotonic() - asked_at_s < ENDED_WITHIN_S
    assert process.returncode == 1 and "start it again to go on" in complaint and "Traceback" not in complaint
    kept = int(torch.load(run / "checkpoint.pt", weights_only=True)["step"])
    assert kept > int(read_curve(run)[-1]["step"]), "the steps since the last validation, which saves too, are lost"


@pytest.mark.long
def test_sigterm_and_sigkill_change_nothing_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the same configuration, undisturbed, in this process."""
    straight, disturbed = tmp_path / "straight", tmp_path / "disturbed"
    for folder in (straight, disturbed):
        folder.mkdir()
        (folder / "tiny.toml").write_text(CONFIG, "utf-8")
    checkpoint = disturbed / "runs" / "tiny" / "checkpoint.pt"

    process = started(disturbed)
    wait_for(checkpoint.is_file, process)
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1 and "go on with --resume" in complaint and "Traceback" not in complaint
    stopped_at = int(torch.load(checkpoint, weights_only=True)["step"])

    process = started(disturbed, "--resume")
    begun_with = validations(disturbed)
    wait_for(lambda: validations(disturbed) > begun_with + 1, process)
    process.kill()
    process.communicate(timeout=DEADLINE_S)
    last_known = max(int(row["step"]) for row in read_curve(disturbed / "runs" / "tiny"))
    killed_at = int(torch.load(checkpoint, weights_only=True)["step"])
    assert killed_at > stopped_at and killed_at >= last_known - CHECKPOINT_STEPS

    hashes = []
    for folder, resume in ((disturbed, True), (straight, False)):
        monkeypatch.chdir(folder)
        hashes.append(read_card(main(folder / "tiny.toml", resume=resume).folder).model_hash)
    assert hashes[0] == hashes[1]
    curves = [read_curve(folder / "runs" / "tiny") for folder in (disturbed, straight)]
    assert curves[0] == curves[1] and len(curves[0]) == 6
