"""What the processes of one run tell each other: gradients, images, verdicts; nothing where there is only one.

Gradients are averaged here and not by DistributedDataParallel: a GAN's step runs a network several times and freezes
another between two backward passes, which that wrapper's hooks do not count, and clipping must follow the average.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import torch
from torch import Tensor, distributed, nn

from twin_scanner.errors import Rejected, Transient
from twin_scanner.models.device import find_device

TIMEOUT: Final = timedelta(hours=2)
"""A process that was not heard of for so long is lost: measuring the finished package is the longest silence."""


def process_count() -> int:
    """Processes of this run."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def process_rank() -> int:
    """This process's place among them; the first one writes the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def local_device(name: str) -> torch.device:
    """The device of this name; for ``cuda`` and ``auto`` the GPU that torchrun's LOCAL_RANK gives this process.

    Raises Rejected where it is not there.
    """
    device = find_device(name)
    rank = os.environ.get("LOCAL_RANK")
    if rank is None or device.type == "cpu":
        return device
    if ":" in name:
        raise Rejected(f"torchrun gives each process a GPU of its own, and compute.device is '{name}': choose 'cuda'.")
    return find_device(f"cuda:{rank}")


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started (NCCL on GPUs, Gloo on processors); does nothing without torchrun.

    Raises Transient where the others cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    except (distributed.DistError, RuntimeError, ValueError) as error:
        raise Transient("The processes of this run do not find each other: start them together by torchrun.") from error
    try:
        yield
    finally:
        distributed.destroy_process_group()


def average_gradients(networks: Iterable[nn.Module]) -> None:
    """Every gradient becomes its mean over the processes, in one message."""
    if process_count() == 1:
        return
    gradients = [p.grad for network in networks for p in network.parameters() if p.grad is not None]
    message = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(message)
    message /= process_count()
    for gradient, mean in zip(gradients, message.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def gathered(images: Tensor) -> Tensor:
    """The images of all processes, (N, ...) each, in the order of the processes; without gradients."""
    images = images.detach()
    if process_count() == 1:
        return images
    parts = [torch.empty_like(images, memory_format=torch.contiguous_format) for _ in range(process_count())]
    distributed.all_gather(parts, images.contiguous())
    return torch.cat(parts)


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is up in at least one process; all get the same answer."""
    if process_count() == 1:
        return flag
    raised = torch.tensor(float(flag), device=device)
    distributed.all_reduce(raised, op=distributed.ReduceOp.MAX)
    return bool(raised.item())


def averaged(value: Tensor) -> Tensor:
    """The mean of numbers over the processes, where they lie and without gradients."""
    value = value.detach().clone()
    if process_count() > 1:
        distributed.all_reduce(value)
        value /= process_count()
    return value


def mean_over_processes(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Scalars as numbers, averaged over the processes; one copy from the device for all of them."""
    stacked = averaged(torch.stack([value.detach().float() for value in values.values()]))
    return dict(zip(values, stacked.tolist(), strict=True))


def sum_over_processes(values: list[float]) -> list[float]:
    """Sums of numbers over the processes, in double precision."""
    if process_count() == 1:
        return values
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    summed: list[float] = total.tolist()
    return summed


def wait_for_all() -> None:
    """No process goes on before every process came here."""
    if process_count() > 1:
        distributed.barrier()
