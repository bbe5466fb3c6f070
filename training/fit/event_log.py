"""TensorBoard's scalars and pictures of a run, written only where the configuration asks for them."""

import time
from collections.abc import Mapping
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
PICTURE: Final = "real and synthetic PET"
BRIGHTEST_SUV: Final = 10.0
"""White in the pictures; the usual window of a reader is half of it."""


class EventLog:
    """The events of one network's training; those after ``step``, of a run that was killed, count no more.

    The records are written here and now: TensorBoard's own writer has a thread, which prints a traceback where the disk
    fails, and keeps two minutes of events in memory.
    """

    def __init__(self, folder: Path, network: str, step: int) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog
            from tensorboard.summary.writer.record_writer import RecordWriter
            from torch.utils.tensorboard import summary
        except ImportError as error:
            raise Rejected(
                "tensorboard = true needs TensorBoard, which is not installed: install the extra 'tensorboard', or "
                "leave the key out."
            ) from error
        self._event, self._summary, self._records = Event, summary, RecordWriter
        # TensorBoard reads the files that have this word in their names, in the order of the names.
        self._file = folder / FOLDER / network / f"events.out.tfevents.{time.time_ns():020d}"
        self._write(step, file_version="brain.Event:2")
        self._write(step + 1, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Losses and errors by name; raises Transient where the disk fails."""
        for name, value in values.items():
            self._write(step, summary=self._summary.scalar(name, value))

    def picture(self, step: int, case: Case) -> None:
        """The real and the synthetic PET side by side; raises Transient where the disk fails."""
        self._write(step, summary=self._summary.image(PICTURE, projections(case), dataformats="HW"))

    def _write(self, step: int, **content: Any) -> None:
        event = self._event(wall_time=time.time(), step=step, **content)
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as stream:
                self._records(stream).write(event.SerializeToString())
        except OSError as error:
            raise disk_fault(self._file.parent, error) from error


def event_log(config: TrainConfig, state: TrainState) -> EventLog | None:
    """The log of the state's network in the first process of a run that asks for it; None otherwise.

    Raises Rejected where TensorBoard is not installed, Transient where the disk fails.
    """
    if not config.tensorboard or process_rank() != 0:
        return None
    return EventLog(config.out, state.network, state.step)


def projections(case: Case) -> FloatArray:
    """Coronal maximum projections of real and synthetic PET side by side, head up: 0 (black) to SUV 10 (white, 1)."""
    sides = [image.max(axis=1)[::-1] for image in (case.real, case.synthetic)]
    picture: FloatArray = np.clip(np.concatenate(sides, axis=1) / np.float32(BRIGHTEST_SUV), 0.0, 1.0)
    return picture
