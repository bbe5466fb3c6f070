"""TensorBoard's scalars and pictures of a run, written only where the configuration asks for them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from training.evaluation.case import Case
from training.fit.config import TrainConfig
from training.fit.distributed import process_rank
from training.fit.state import TrainState
from twin_scanner.errors import Rejected
from twin_scanner.files.writable import disk_fault
from twin_scanner.imaging.volume import FloatArray

FOLDER: Final = "tensorboard"
BRIGHTEST_SUV: Final = 10.0
"""White in the pictures; the usual window of a reader is half of it."""


class EventLog:
    """The events of one network's training; those after ``step``, of a run that was killed, count no more."""

    def __init__(self, folder: Path, network: str, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise Rejected(
                "tensorboard = true needs TensorBoard, which is not installed: install the extra 'tensorboard', or "
                "leave the key out."
            ) from error
        self._folder = folder / FOLDER / network
        with self._writing():
            self._writer: Any = SummaryWriter(str(self._folder), purge_step=step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Losses and errors by name; raises Transient where the disk fails."""
        with self._writing():
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def picture(self, step: int, case: Case) -> None:
        """The real and the synthetic PET side by side; raises Transient where the disk fails."""
        with self._writing():
            self._writer.add_image("real and synthetic PET", projections(case), step, dataformats="HW")

    def close(self) -> None:
        """Everything on disk; raises Transient where it fails."""
        with self._writing():
            self._writer.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise disk_fault(self._folder, error) from error


@contextmanager
def event_log(config: TrainConfig, state: TrainState) -> Iterator[EventLog | None]:
    """The log of the state's network in the first process of a run that asks for it; None otherwise.

    Raises Rejected where TensorBoard is not installed.
    """
    if not config.tensorboard or process_rank() != 0:
        yield None
        return
    log = EventLog(config.out, state.network, state.step)
    try:
        yield log
    finally:
        log.close()


def projections(case: Case) -> FloatArray:
    """Coronal maximum projections of real and synthetic PET side by side, head up: 0 (black) to SUV 10 (white, 1)."""
    sides = [image.max(axis=1)[::-1] for image in (case.real, case.synthetic)]
    picture: FloatArray = np.clip(np.concatenate(sides, axis=1) / np.float32(BRIGHTEST_SUV), 0.0, 1.0)
    return picture
