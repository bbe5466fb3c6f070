"""What a Dask worker loads to render and train: ``dask worker URL --nthreads 1 --preload twin_scanner.dask_worker``.

Before the worker joins, it waits until it sees the storage folders, and loads torch, the model and the segmenter. What
stands in the way is logged; the worker then joins all the same and is given no work of ours.
"""

import asyncio
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from distributed import Worker

from twin_scanner.app import compute_of, segmenter_choice
from twin_scanner.errors import Misconfigured, Transient, TwinScannerError
from twin_scanner.executor.work_place import WorkPlace, read_storage_id
from twin_scanner.logs import set_up_service_logging
from twin_scanner.render.in_worker import load_in_worker
from twin_scanner.settings import Settings, configuration_file, load_settings
from twin_scanner.settings.executor import is_safe_address

LOG = logging.getLogger("twin_scanner.dask_worker")

LOOK_S: Final = 2.0
"""How often a storage folder that is not there yet is looked for."""


@click.command()
@click.option(
    "--config", type=click.Path(path_type=Path), help="The configuration, as of the node; default the machine's."
)
@click.option(
    "--storage",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A node's storage folder that this worker sees under the same path; default the configuration's.",
)
@click.option("--training", is_flag=True, help="Take the networks of a training grid too; renders go before them.")
async def dask_setup(worker: Worker, config: Path | None, storage: Sequence[Path], training: bool) -> None:
    """Called by Dask in the worker's process, before the worker joins."""
    try:
        settings = load_settings(configuration_file(config))
        set_up_service_logging(settings.log.level)
        check(worker)
        # What a killed worker leaves there of a patient, Dask removes at the next start of one.
        tempfile.tempdir = worker.local_directory
        folders = [folder.resolve() for folder in storage or (settings.storage.folder,)]
        places = await _places(settings, folders, training)
        loads = (settings.model.name, settings.model_store.resolve(), segmenter_choice(settings), compute_of(settings))
        await asyncio.to_thread(load_in_worker, *loads)
    except TwinScannerError as error:
        LOG.error("this worker takes no work", extra={"reason": str(error)})
        return
    for place in places:
        worker.state.total_resources[place.resource] = worker.state.available_resources[place.resource] = 1
    LOG.info("this worker takes work", extra={"count": len(places)})


def check(worker: Worker) -> None:
    """Raise Misconfigured where the worker was started so that it could not work well, or not safely."""
    if worker.state.nthreads != 1:
        raise Misconfigured("This worker has several threads, and each render takes a worker: give it --nthreads 1.")
    if not is_safe_address(worker.scheduler.address):
        raise Misconfigured(
            "The scheduler is another machine without TLS, and Dask runs whatever it receives: give its tls:// address."
        )


async def _places(settings: Settings, folders: Sequence[Path], training: bool) -> list[WorkPlace]:
    """All that this worker is, once every folder that it needs is there."""
    shared = settings.executor.transfer == "shared"
    ids = {folder: await _seen(folder) for folder in folders} if shared or training else {}
    places = [WorkPlace("render", folder, ids[folder]) for folder in folders] if shared else [WorkPlace("render")]
    return places + ([WorkPlace("training", folder, ids[folder]) for folder in folders] if training else [])


async def _seen(folder: Path) -> str:
    """The storage folder's id, once it is there: a node makes it at its first start, a mount may come late."""
    waiting = False
    while True:
        try:
            return await asyncio.to_thread(read_storage_id, folder)
        except Transient as error:
            if not waiting:
                LOG.warning("this worker waits", extra={"reason": str(error)})
            waiting = True
            await asyncio.sleep(LOOK_S)
