"""The device: this machine has the one that the networks are to run on, and it can compute in their precision."""

from collections.abc import Iterator

from twin_scanner.app import check_compute, compute_of
from twin_scanner.doctor.finding import Finding
from twin_scanner.settings import Settings


def check_device(settings: Settings) -> Iterator[Finding]:
    """Check that the networks can run where and how the configuration wants it."""
    compute = compute_of(settings)
    if settings.executor.kind == "dask":
        yield Finding(
            "device", "ok", "The networks run where the Dask workers are: this machine's devices do not count."
        )
        return
    check_compute(compute)
    where = {"auto": "on a GPU where PyTorch sees one, else on the processor", "cpu": "on the processor"}
    place = where.get(compute.device, f"on {compute.device}")
    yield Finding("device", "ok", f"The networks run {place}, in {compute.precision}.")
