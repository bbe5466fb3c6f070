"""Memory: whether a render of the largest CT that is to be expected fits into this machine, now and ever."""

from collections.abc import Iterator
from contextlib import closing
from typing import Final

from twin_scanner import preconditions
from twin_scanner.app import open_ledger
from twin_scanner.doctor.finding import Finding
from twin_scanner.executor.memory import Memory, memory_of_this_machine
from twin_scanner.models.store import ModelStore
from twin_scanner.render.memory import GIGABYTE, CtExtent, Need, predicted
from twin_scanner.service.ledger import migration_state
from twin_scanner.settings import Settings

USUAL_SLICES: Final = 1000
"""A whole body in slices of 2 mm, where the ledger knows no CT with more."""
SLICE_VOXELS: Final = 512 * 512
SLICE_MM3: Final = 500.0 * 500.0 * 2.0
"""The field of view and the thickness that are assumed: the ledger knows how many images a CT has, not their size."""


def check_memory(settings: Settings) -> Iterator[Finding]:
    """Compare what a render takes with what this machine has; where Dask renders, its workers' memory counts."""
    if settings.executor.kind == "dask":
        return
    slices = max(USUAL_SLICES, _largest(settings))
    card = preconditions.whole_model(settings.model_store, settings.model.name)
    package = ModelStore(settings.model_store).resolve(settings.model.name)
    need = predicted(CtExtent(slices * SLICE_VOXELS, slices * SLICE_MM3), card, package)
    memory = memory_of_this_machine()
    if memory is not None:
        yield fitting(slices, need, memory)


def fitting(slices: int, need: Need, memory: Memory) -> Finding:
    """Whether such a CT can be rendered."""
    what = f"A CT of {slices} slices takes {need.peak / GIGABYTE:.1f} GB of memory"
    if need.peak > memory.total:
        fact = f"{what}, and this machine gives {memory.total / GIGABYTE:.1f} GB"
        return Finding("memory", "fault", f"{fact}: give it more, or its job is held.")
    if need.peak > memory.free:
        fact = f"{what}, and {memory.free / GIGABYTE:.1f} GB are free"
        return Finding("memory", "warning", f"{fact}: a running scanner holds some of it; else end other programs.")
    return Finding("memory", "ok", f"{what}, and {memory.free / GIGABYTE:.1f} GB are free.")


def _largest(settings: Settings) -> int:
    """The images of the largest CT that the ledger knows; 0 where there is no ledger of this version."""
    state = migration_state(settings.ledger_url)
    if state is None or state.found != state.wanted:
        return 0
    with closing(open_ledger(settings)) as ledger:
        return ledger.measures.largest_ct()
