"""The curve of a run: losses and validation errors by step, one JSON object per line in the run's folder."""

import json
import os
from pathlib import Path
from typing import Final

from training.fit.distributed import process_rank
from twin_scanner.files.writable import disk_fault

CURVE: Final = "curve.jsonl"
DIGITS: Final = 6


class Curve:
    """The file and, where asked for, TensorBoard's events beside it; only the first process of a run writes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / CURVE

    @property
    def length(self) -> int:
        """Bytes that are written; a checkpoint holds them, so that a resumed run writes no step twice."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def cut(self, length: int) -> None:
        """Drop what was written after a checkpoint; raises Transient where the disk fails."""
        if process_rank() == 0 and self.length > length:
            try:
                os.truncate(self.path, length)
            except OSError as error:
                raise disk_fault(self.path, error) from error

    def record(self, network: str, step: int, values: dict[str, float]) -> None:
        """Add a line; raises Transient where the disk fails."""
        if process_rank() != 0:
            return
        rounded = {name: round(value, DIGITS) for name, value in values.items()}
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"network": network, "step": step, **rounded}) + "\n")
        except OSError as error:
            raise disk_fault(self.path, error) from error


def read_curve(folder: Path) -> list[dict[str, str | int | float]]:
    """Every line of a run's curve, oldest first; empty where the run has recorded nothing yet."""
    path = folder / CURVE
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []
