"""Several processes train one network: the same weights everywhere, and those that one process would have learnt."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.samples.small_pairs import small_config, small_sampler
from tests.training.fit.distributed_run import BATCH, RUNS, four_steps, weights
from training.fit import batches
from training.fit.batches import sample_batch
from training.fit.distributed import any_process, gathered, local_device, mean_over_processes, sum_over_processes
from training.fit.state import fresh_state
from twin_scanner.errors import Rejected

pytestmark = pytest.mark.loop

DEADLINE_S = 120
PROCESSES = 2


@pytest.mark.long
def test_two_processes_learn_what_one_learns_with_twice_the_batch(tmp_path: Path, project: Path) -> None:
    """Real processes, started by torchrun, over Gloo: equal bit for bit to each other, within 1e-5 to one process."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES)),
        *("-m", "tests.training.fit.distributed_run", str(tmp_path)),
    ]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"process-{rank}.pt") for rank in range(PROCESSES))
    for run in RUNS:
        alone = weights(four_steps(*run, tmp_path))
        assert set(alone) == set(first[run]) == set(second[run])
        for name, value in alone.items():
            assert torch.equal(first[run][name], second[run][name])
            torch.testing.assert_close(first[run][name], value, rtol=0, atol=1e-5)


def test_the_patches_of_a_step_are_dealt_out_to_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together, in order, they are the batch of one process."""
    config, sampler = small_config(tmp_path), small_sampler(0, 1)
    whole, shares = sample_batch(config, "trunk", sampler, 7), []
    monkeypatch.setattr(batches, "process_count", lambda: BATCH)
    for rank in range(BATCH):
        monkeypatch.setattr(batches, "process_rank", lambda rank=rank: rank)
        shares.append(sample_batch(config, "trunk", sampler, 7))
    assert torch.equal(torch.cat([share.ct for share in shares]), whole.ct)
    assert torch.equal(torch.cat([share.pet for share in shares]), whole.pet)
    monkeypatch.setattr(batches, "process_count", lambda: 3)
    with pytest.raises(Rejected, match="batch_size 2 does not divide among 3 processes"):
        sample_batch(config, "trunk", sampler, 7)


def test_one_process_alone_agrees_with_itself() -> None:
    values = torch.rand(2, 3)
    assert torch.equal(gathered(values), values)
    assert any_process(True, values.device) and not any_process(False, values.device)
    assert sum_over_processes([1.5, 2.0]) == [1.5, 2.0]
    assert mean_over_processes({"L1": torch.tensor(0.5)}) == {"L1": 0.5}


def test_a_gpu_that_is_asked_for_and_missing_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert local_device("auto") == local_device("cpu") == torch.device("cpu")
    with pytest.raises(Rejected, match="PyTorch sees no GPU"):
        local_device("cuda")
    half = replace(small_config(tmp_path).compute, device="auto", precision="float16")
    with pytest.raises(Rejected, match="float16 needs a GPU"):
        fresh_state(replace(small_config(tmp_path), compute=half), "trunk", {})
