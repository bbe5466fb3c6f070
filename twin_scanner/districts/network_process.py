"""A segmentation network in a process of its own: verified weights, arrays in, labels out; nothing else is shared."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from twin_scanner.errors import Defect, Rejected, Transient
from twin_scanner.volume import LabelArray, Volume, to_sitk

REQUEST: Final = "request.json"
INPUT: Final = "ct.npy"
FAILURE: Final = "failure.txt"
_CHUNK_BYTES: Final = 2**22
_OWN_PREFIX: Final = "TWIN_SCANNER__"


def sha256_of(folder: Path, files: Sequence[Path], copy_to: Path | None = None) -> str:
    """SHA-256 over names, sizes and contents of ``files`` below ``folder``, in the order of their names.

    With ``copy_to`` the very bytes that were hashed are written there, so that what is loaded later is what was
    verified. Raises Rejected where a file cannot be read.
    """
    digest = hashlib.sha256()
    for file in sorted(files):
        name = file.relative_to(folder).as_posix()
        digest.update(f"{name}\0{file.stat().st_size}\0".encode())
        try:
            _hash_file(file, digest, None if copy_to is None else copy_to / name)
        except OSError as error:
            raise Rejected(f"The weights file {name} cannot be read ({error.strerror}): check its rights.") from error
    return digest.hexdigest()


def _hash_file(file: Path, digest: "hashlib._Hash", copy: Path | None) -> None:
    if copy is None:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
        return
    copy.parent.mkdir(parents=True, exist_ok=True)
    with file.open("rb") as stream, copy.open("wb") as target:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            target.write(chunk)


@contextmanager
def private_copy(folder: Path, files: Sequence[Path], sha256: str, key: str) -> Iterator[Path]:
    """A folder only we can read with the verified ``files``; raises Rejected where their SHA-256 is another."""
    scratch = Path(tempfile.mkdtemp(prefix="twin-scanner-weights-"))
    try:
        found = sha256_of(folder, files, scratch)
        if found != sha256:
            raise Rejected(wrong_hash(found, sha256, key))
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def wrong_hash(found: str, wanted: str, key: str) -> str:
    """The sentence for weights that are not those of the configuration."""
    return (
        f"The weights have SHA-256 {found[:12]}..., {key} says {wanted[:12]}...: restore the weights, or, where you "
        "trust these, set that key to the full hash that 'twin-scanner doctor' prints."
    )


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
        np.save(folder / INPUT, ct.array)
        content = {**request, "spacing_mm": ct.geometry.spacing_mm, "affine": _ras_affine(ct)}
        (folder / REQUEST).write_text(json.dumps(content), "utf-8")
        _run([sys.executable, "-m", module, name], folder, str(request["segmenter"]), timeout_s)
        return {output: _labels(folder / f"{output}.npy", ct) for output in outputs}


def _ras_affine(ct: Volume) -> list[list[float]]:
    """Index (w, h, d) to RAS mm, as NIfTI has it."""
    image = to_sitk(np.zeros((1, 1, 1), np.uint8), ct.geometry.cropped((slice(0, 1), slice(0, 1), slice(0, 1))))
    columns = np.asarray(image.GetDirection()).reshape(3, 3) * np.asarray(image.GetSpacing())
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = columns, image.GetOrigin()
    return [[float(x) for x in row] for row in np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine]


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


def tell_failure(folder: Path, kind: str, sentence: str) -> None:
    """In the child: leave one sentence for the parent; ``kind`` is rejected, transient or defect."""
    (folder / FAILURE).write_text(f"{kind} {sentence}", "utf-8")
