"""A segmentation network in a process of its own: verified weights, arrays in, labels out; nothing else is shared."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from twin_scanner.errors import Defect, Misconfigured, Rejected, Transient
from twin_scanner.files.durable_file import writing
from twin_scanner.imaging.volume import LabelArray, Volume

REQUEST: Final = "request.json"
INPUT: Final = "ct.npy"
FAILURE: Final = "failure.txt"
_CHUNK_BYTES: Final = 2**22
_OWN_PREFIX: Final = "TWIN_SCANNER__"
_PRIMUS: Final = "nnunetv2.training.nnUNetTrainer.primus.primus_trainers"


@dataclass(frozen=True)
class Weights:
    """The files that a network loads, below one folder; weights are unpickled, so they are code."""

    segmenter: str
    folder: Path
    files: tuple[Path, ...]

    @property
    def sha256(self) -> str:
        """Over names, sizes and contents, in the order of the names; raises Rejected where a file cannot be read."""
        digest = hashlib.sha256()
        for file in sorted(self.files):
            name = file.relative_to(self.folder).as_posix()
            with self._reading(name), file.open("rb") as stream:
                digest.update(f"{name}\0{file.stat().st_size}\0".encode())
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
        return digest.hexdigest()

    def fault(self, vouched: str) -> str | None:
        """What to do where these are not the weights that the configuration vouches for; None where they are."""
        key, found = f"districts.{self.segmenter}_sha256", self.sha256
        if not vouched:
            return (
                f"The weights of '{self.segmenter}' are not vouched for: set {key} to {found}, once you have made "
                "sure where they come from."
            )
        if found != vouched:
            return (
                f"The weights have SHA-256 {found}, {key} says {vouched[:12]}...: restore the weights, or, where you "
                "trust these, set that key to their hash."
            )
        return None

    @contextmanager
    def verified_copy(self, vouched: str) -> Iterator[Path]:
        """A folder that only we can read, with a copy of the files: what was verified is what is loaded.

        Raises Rejected where the copy has another SHA-256 than the one vouched for.
        """
        with tempfile.TemporaryDirectory(prefix="twin-scanner-weights-", ignore_cleanup_errors=True) as scratch:
            copies = []
            for file in self.files:
                name = file.relative_to(self.folder)
                copies.append(Path(scratch) / name)
                with self._reading(name.as_posix()), file.open("rb") as stored:
                    _copy(stored, copies[-1])
            sentence = Weights(self.segmenter, Path(scratch), tuple(copies)).fault(vouched)
            if sentence is not None:
                raise Misconfigured(sentence)
            yield Path(scratch)

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Misconfigured(
                f"The weights file {name} cannot be read ({error.strerror}): check its rights."
            ) from error


def run_network(
    module: str, ct: Volume, request: Mapping[str, object], outputs: Sequence[str], timeout_s: float
) -> dict[str, LabelArray]:
    """Run ``python -m module FOLDER`` on a CT (HU, any orientation) and read the label arrays it writes.

    The folder, which only we can read, holds the CT as an array (D, H, W) and the request with its spacing; the module
    writes one ``NAME.npy`` for each of ``outputs``. Raises Transient where the process dies or takes too long,
    Rejected or Defect as the module says.
    """
    with tempfile.TemporaryDirectory(prefix="twin-scanner-network-") as name:
        folder = Path(name)
        content = {**request, "spacing_mm": ct.geometry.spacing_mm, "affine": _ras_affine(ct)}
        with writing("The CT for the segmenter", folder):
            np.save(folder / INPUT, ct.array)
            (folder / REQUEST).write_text(json.dumps(content), "utf-8")
        _run([sys.executable, "-m", module, name], folder, str(request["segmenter"]), timeout_s)
        return {output: _labels(folder / f"{output}.npy", ct) for output in outputs}


def _copy(stored: BinaryIO, target: Path) -> None:
    with writing("A copy of the weights", target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as copy:
            shutil.copyfileobj(stored, copy)


def _ras_affine(ct: Volume) -> list[list[float]]:
    """Index (w, h, d) to RAS mm, as NIfTI has it."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ ct.geometry.affine[:, [2, 1, 0, 3]]
    return [[float(x) for x in row] for row in affine]


def _run(command: Sequence[str], folder: Path, segmenter: str, timeout_s: float) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.upper().startswith(_OWN_PREFIX)}
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            env=environment,
            cwd=folder,
        )
    except subprocess.TimeoutExpired as error:
        raise Transient(
            f"The segmenter '{segmenter}' took longer than {timeout_s:.0f} s and was stopped: raise "
            "districts.timeout_s, or give it a faster device."
        ) from error
    if done.returncode == 0:
        return
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise Transient(f"The segmenter '{segmenter}' was killed ({name}), for memory perhaps: it will be run again.")
    failure = folder / FAILURE
    if not failure.is_file():
        raise Transient(f"The segmenter '{segmenter}' ended with status {done.returncode}: it will be run again.")
    kind, _, sentence = failure.read_text("utf-8").partition(" ")
    raise {"rejected": Rejected, "transient": Transient}.get(kind, Defect)(sentence)


def _labels(file: Path, ct: Volume) -> LabelArray:
    labels = np.load(file, allow_pickle=False)
    if labels.shape != ct.array.shape or labels.dtype != np.uint8:
        raise Defect(f"A segmenter gave labels {labels.dtype} of shape {labels.shape} for a CT {ct.array.shape}.")
    return np.asarray(labels)


def serve(
    folder: Path, segmenter: str, program: str, predict: Callable[[Path, dict[str, Any]], Mapping[str, LabelArray]]
) -> int:
    """The child's side: write what ``predict`` makes of the folder and its request; the exit status.

    Where it fails, one sentence for the parent stays in the folder.
    """
    # The search for a trainer imports vision transformers first, whose torchvision may not match a CPU build of torch.
    sys.modules[_PRIMUS] = types.ModuleType(_PRIMUS)
    request = json.loads((folder / REQUEST).read_text("utf-8"))
    try:
        outputs = predict(folder, request)
        with writing(f"The labels of '{segmenter}'", folder):
            for name, labels in outputs.items():
                np.save(folder / f"{name}.npy", labels)
    except Transient as error:
        failure = f"transient {error}"
    except MemoryError:
        failure = f"transient The segmenter '{segmenter}' ran out of memory: it will be run again."
    except (RuntimeError, KeyError, ValueError, AttributeError, ImportError, OSError) as error:
        failure = f"defect {program} ({type(error).__name__}): check its version."
    else:
        return 0
    (folder / FAILURE).write_text(failure, "utf-8")
    return 1
