"""How much memory a render takes at most, from the CT's headers and the model's card; without torch.

The coefficients are of the code as it stands: ``python -m benchmarks memory`` measures them, and a stage that begins to
hold another copy of the CT changes them.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset

from twin_scanner.dicom.read.dicom_files import quiet_pydicom, read_header
from twin_scanner.errors import Held, Rejected, Transient
from twin_scanner.executor.memory import Memory
from twin_scanner.models.card import Card, read_card
from twin_scanner.models.store import ModelStore
from twin_scanner.render.request import RenderRequest

MEGABYTE: Final = 10**6
GIGABYTE: Final = 10**9
PROCESS: Final = 600 * MEGABYTE
"""Of a worker that has loaded PyTorch, SimpleITK and the rest, before its first CT."""
CT_BYTES: Final = 4.3
"""A voxel of the CT (float32), from reading it until the PET is there."""
SEGMENTING_BYTES: Final = 3.0
"""A voxel of the CT beside that while its districts are sought: labels, and the numbers of a district's pieces."""
COARSE_BYTES: Final = 1.5
"""A mm3 of the CT at another moment then: what is computed on the coarse grid, where slices are thick."""
LABEL_BYTES: Final = 1.0
"""A voxel of the CT, from then on: its districts."""
WRITING_BYTES: Final = 4.0
"""A voxel of the CT, which itself is gone then, while its districts are written as SEG."""
GRID_BYTES: Final = 17.0
"""A voxel of the Plan's grid: CT, districts, masks, sums, and the PET in model space and in SUV."""
CHANNEL_BYTES: Final = 4.0
WEIGHT_BYTES: Final = {"float32": 1.0, "float16": 2.0}
"""In memory, where weights are float32, for each byte in their file."""
ARITHMETIC: Final = 0.09
"""Of the weights in memory, what the U-Net's arithmetic keeps beside them; networks of more features keep less."""
HEADERS: Final = ("Rows", "Columns", "NumberOfFrames", "PixelSpacing", "ImagePositionPatient", "SliceThickness")


@dataclass(frozen=True)
class CtExtent:
    """How many voxels a CT has, and the volume that they fill."""

    voxels: int
    volume_mm3: float


@dataclass(frozen=True)
class Need:
    """Bytes of a render's process: ``resident`` before its first CT, ``working`` at most beside that."""

    resident: int
    working: int

    @property
    def peak(self) -> int:
        """The most that it ever holds."""
        return self.resident + self.working


def extent_of(files: Path) -> CtExtent:
    """The extent of the CT series in a folder, from headers alone; what they do not say is left out of the volume."""
    with quiet_pydicom():
        headers = [read_header(file, HEADERS) for file in sorted(files.iterdir())]
    voxels = sum(_voxels(header) for header in headers)
    positions = np.array([list(map(float, header.ImagePositionPatient)) for header in headers if _has_place(header)])
    slices = max(1, len(positions) - 1)
    step_mm = float(np.linalg.norm(np.ptp(positions, axis=0))) / slices if len(positions) > 1 else 0.0
    volumes = (_voxels(header) * _area_mm2(header) * (step_mm or _thickness_mm(header)) for header in headers)
    return CtExtent(voxels, sum(volumes))


def need_of(request: RenderRequest) -> Need | None:
    """The need of a render of a folder; None where model or headers cannot be read: the render says why."""
    try:
        package = ModelStore(request.model_store).resolve(request.model)
        return predicted(extent_of(request.source), read_card(package), package)
    except (Rejected, ValueError, TypeError, ArithmeticError):
        return None


def predicted(ct: CtExtent, card: Card, package: Path) -> Need:
    """What the process of a render of this CT holds, on a processor; ``package`` is the model's folder."""
    weights = sum(file.stat().st_size for file in package.glob("*.safetensors")) * WEIGHT_BYTES[card.precision]
    resident = PROCESS + weights * (1.0 + ARITHMETIC)
    grid_voxels = ct.volume_mm3 / float(np.prod(card.plan.spacing_mm))
    on_grid = grid_voxels * (GRID_BYTES + CHANNEL_BYTES * card.architecture.channels)
    segmenting = ct.voxels * CT_BYTES + max(ct.voxels * SEGMENTING_BYTES, ct.volume_mm3 * COARSE_BYTES)
    translating = ct.voxels * (CT_BYTES + LABEL_BYTES) + on_grid
    writing = ct.voxels * (LABEL_BYTES + WRITING_BYTES) + on_grid
    return Need(round(resident), round(max(segmenting, translating, writing)))


def check_memory(need: Need | None, memory: Memory | None) -> None:
    """Raise Held where this machine can never render what needs so much, Transient where it cannot now.

    The worker process is there already, so what it has loaded is not free any more, and is not asked for again.
    """
    if need is None or memory is None:
        return
    if need.peak > memory.total:
        raise Held(
            f"Rendering this CT takes {need.peak / GIGABYTE:.1f} GB of memory, and this machine gives "
            f"{memory.total / GIGABYTE:.1f} GB: give it more, or raise the limit of the service's control group, and "
            "release the job; or send a CT with fewer slices."
        )
    if need.working > memory.free:
        raise Transient(
            f"Rendering this CT takes {need.working / GIGABYTE:.1f} GB of memory beside what the worker has, and "
            f"{memory.free / GIGABYTE:.1f} GB are free: it waits until there are more."
        )


def _voxels(header: Dataset) -> int:
    return int(header.get("Rows", 0)) * int(header.get("Columns", 0)) * int(header.get("NumberOfFrames", 1) or 1)


def _has_place(header: Dataset) -> bool:
    return len(header.get("ImagePositionPatient") or ()) == 3


def _area_mm2(header: Dataset) -> float:
    return math.prod(map(float, header.get("PixelSpacing") or (1.0, 1.0)))


def _thickness_mm(header: Dataset) -> float:
    return float(header.get("SliceThickness") or 1.0)
