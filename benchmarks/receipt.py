"""How fast CT slices are taken by C-STORE: our node, durable, beside other receivers; dcmtk's storescu sends to all."""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from benchmarks.figures import Figure, at_least, at_most

NAME: Final = "receipt"
SLICES: Final = 600
ROUNDS: Final = 3
"""The receivers take turns, each with an empty folder; the median counts, for the machine may have other work."""
SENDERS: Final = 8
PIXELS: Final = 512
TITLE: Final = "RECEIVER"
TIMES_PYNETDICOM: Final = 1.8
TIMES_ORTHANC: Final = 1.1
TOGETHER: Final = 0.9
"""What the senders together must reach of the rate of one alone."""
_START_S: Final = 60.0
_SEND_S: Final = 600.0
OURS, NOTHING, PYNETDICOM, ORTHANC, DCMTK = (
    "our node, durable", "do-nothing handler", "pynetdicom storescp", "Orthanc", "dcmtk storescp (not durable)"
)  # fmt: skip


@dataclass(frozen=True)
class _Times:
    """How long it took, and how much of that the receiver worked."""

    wall_s: float
    processor_s: float


Command = Callable[[Path, int], list[str]]
"""How a receiver is started on a folder and a port."""


def measure(
    progress: Callable[[int, int], None] = lambda done, total: None, slices: int = SLICES, rounds: int = ROUNDS
) -> list[Figure]:
    """Seconds for all slices from one sender, receiver by receiver, and the rate of eight senders together.

    And the processor time that a receiver takes for them, which says more where the machine has other work.
    """
    known = receivers()
    times: dict[str, list[_Times]] = {name: [] for name in known}
    together: list[_Times] = []
    with tempfile.TemporaryDirectory() as scratch:
        series = [_series(Path(scratch) / f"sent{number}", number, slices // SENDERS) for number in range(SENDERS)]
        for turn in range(rounds):
            for step, (name, command) in enumerate(known.items()):
                times[name].append(_times(command, Path(scratch) / f"received{turn}.{step}", [series]))
                progress(turn * (len(known) + 1) + step + 1, rounds * (len(known) + 1))
            together.append(_times(known[OURS], Path(scratch) / f"received{turn}", [[one] for one in series]))
            progress((turn + 1) * (len(known) + 1), rounds * (len(known) + 1))
    seconds, processor_s = (
        {name: statistics.median(getattr(one, what) for one in each) for name, each in times.items()}
        for what in ("wall_s", "processor_s")
    )
    together_s = statistics.median(one.wall_s for one in together)
    return [*_figures(seconds, together_s, slices), *_processor_figures(processor_s, slices)]


def _figures(seconds: dict[str, float], together_s: float, slices: int) -> list[Figure]:
    ours = seconds[OURS]
    what = f"{slices} CT slices of {PIXELS} x {PIXELS}, one sender"
    figures = [at_most(NAME, what, ours, seconds[peer], "s", peer) for peer in seconds if peer != OURS]
    goals = ((PYNETDICOM, TIMES_PYNETDICOM), (ORTHANC, TIMES_ORTHANC))
    figures += [
        at_least(NAME, f"times as fast as {peer}", seconds[peer] / ours, goal, "x")
        for peer, goal in goals
        if peer in seconds
    ]
    return [*figures, at_least(NAME, f"rate of {SENDERS} senders, of one's", ours / together_s, TOGETHER, "x")]


def _processor_figures(seconds: dict[str, float], slices: int) -> list[Figure]:
    ours = 1000 * seconds[OURS] / slices
    return [
        at_most(NAME, "processor time of a slice", ours, 1000 * seconds[peer] / slices, "ms", peer)
        for peer in seconds
        if peer != OURS
    ]


def receivers() -> dict[str, Command]:
    """Ours, and those that are installed here."""
    ours = [sys.executable, "-m", "benchmarks.receiver"]
    found: dict[str, Command] = {
        OURS: lambda folder, port: [*ours, "durable", str(folder), str(port)],
        NOTHING: lambda folder, port: [*ours, "nothing", str(folder), str(port)],
        PYNETDICOM: lambda folder, port: [
            sys.executable, "-m", "pynetdicom", "storescp", str(port), "-q", "-od", str(folder), "-aet", TITLE
        ],
    }  # fmt: skip
    orthanc = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    if orthanc is not None:
        found[ORTHANC] = lambda folder, port: [orthanc, str(_orthanc_settings(folder, port))]
    storescp = shutil.which("storescp")
    if storescp is not None:
        found[DCMTK] = lambda folder, port: [storescp, "-od", str(folder), "-aet", TITLE, "+B", str(port)]
    return found


def _times(command: Command, folder: Path, senders: Sequence[Sequence[Path]]) -> _Times:
    """From the first sender's start to the last one's end, on a receiver with an empty folder."""
    with running(command, folder) as (port, process_id):
        storescu = ["storescu", "-aec", TITLE, "-aet", "SENDER", "+sd", "+r", "127.0.0.1", str(port)]
        environment = os.environ | {"TCP_NODELAY": "1"}
        begun_s, worked_s = time.perf_counter(), _processor_s(process_id)
        processes = [
            subprocess.Popen([*storescu, *map(str, folders)], env=environment, stderr=subprocess.DEVNULL)
            for folders in senders
        ]
        codes = [process.wait(_SEND_S) for process in processes]
        if any(codes):
            raise RuntimeError(f"storescu ended with {codes}: it could not send to {command(folder, port)[0]}.")
        return _Times(time.perf_counter() - begun_s, _processor_s(process_id) - worked_s)


def _processor_s(process_id: int) -> float:
    """User and system time of a process so far, as Linux counts it; 0 elsewhere."""
    status = Path(f"/proc/{process_id}/stat")
    if not status.exists():
        return 0.0
    fields = status.read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(command: Command, folder: Path) -> Iterator[tuple[int, int]]:
    """A receiver that answers: the port it answers on, and its process id.

    What it received is emptied, not deleted: an ext4 without journal steps over each inode that was deleted lately, and
    the next receiver would pay for it.
    """
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    process = subprocess.Popen(
        command(folder, port),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TCP_NODELAY": "1"},
    )
    try:
        deadline_s = time.monotonic() + _START_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"{command(folder, port)[0]} did not start.")
            time.sleep(0.05)
        yield port, process.pid
    finally:
        process.kill()
        process.wait()
        for file in folder.rglob("*"):
            if file.is_file():
                os.truncate(file, 0)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _series(folder: Path, number: int, slices: int) -> Path:
    """A folder with one series, whose pixels no compression shortens."""
    folder.mkdir()
    noise = np.random.default_rng(number)
    for index in range(1, slices + 1):
        pixels = noise.integers(-1024, 3072, (PIXELS, PIXELS), np.int16).tobytes()
        _slice(f"1.2.826.9.{number}", index, pixels).save_as(folder / f"{index:04}.dcm", enforce_file_format=True)
    return folder


def _slice(series_uid: str, number: int, pixels: bytes) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"{series_uid}.{number}"
    dataset.Modality = "CT"
    dataset.PatientID = "BENCHMARK"
    dataset.PatientName = "Benchmark"
    dataset.StudyInstanceUID = "1.2.826.9"
    dataset.SeriesInstanceUID = series_uid
    dataset.InstanceNumber = number
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = dataset.Columns = PIXELS
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.PixelData = pixels
    return dataset


def _orthanc_settings(folder: Path, port: int) -> Path:
    """Orthanc as it comes, without what it does beside receiving."""
    settings = folder / "orthanc.json"
    content = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "DicomAet": TITLE,
        "DicomPort": port,
        "HttpServerEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "Plugins": [],
    }
    settings.write_text(json.dumps(content))
    return settings
