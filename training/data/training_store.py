"""The training store: a folder of studies on one Plan's grid, mapped into memory, each with its provenance."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from training.data.pairs import Box, Pair, placed, whole_box
from training.data.study import CtOrigin
from twin_scanner.errors import Rejected
from twin_scanner.files.durable_file import sync_folder, write_durably, write_whole
from twin_scanner.imaging.volume import Shape, Triple
from twin_scanner.models.plan import Plan, plan_from_json
from twin_scanner.models.ranges import CtFacts
from twin_scanner.progress import Progress

SCHEMA: Final = 1
STORE_FILE: Final = "store.json"
STUDY_FILE: Final = "study.json"
STUDIES: Final = "studies"
REFUSED: Final = "refused"
UNFINISHED: Final = ".part-"
"""Begins the folder of a study that is being written; one that a crash left is deleted by the next run."""
STUDY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
ARRAYS: Final = {"ct": np.int16, "pet": np.float16, "districts": np.uint8, "lesions": np.uint8}
"""Files of a study: HU, SUV, district labels, and 1 in every lesion where somebody annotated them."""


@dataclass(frozen=True)
class StoreKind:
    """What all studies of a store have in common; a study made otherwise is never mixed in.

    ``keep_air`` stores keep the whole field of view, others the body's box. In ``registered`` ones each PET was
    compared with its CT, and moved onto it where the patient had moved between them.
    """

    plan: Plan
    segmenter: str
    segmenter_hash: str
    keep_air: bool = False
    registered: bool = True

    def as_json(self) -> dict[str, Any]:
        """The content of the store's own file."""
        rest = {key: value for key, value in vars(self).items() if key != "plan"}
        return {"schema": SCHEMA, "plan": self.plan.as_json(), "plan_hash": self.plan.plan_hash, **rest}


@dataclass(frozen=True)
class FoundMotion:
    """How far the PET lay from its CT (LPS, mm and degrees), and whether that was taken back or is within the error.

    ``displacement_mm`` is the root mean square over the body's voxels.
    """

    translation_mm: Triple
    rotation_deg: float
    displacement_mm: float
    corrected: bool


@dataclass(frozen=True)
class Entry:
    """One study of the store and its provenance.

    ``shape`` is the CT's whole field of view on the Plan's grid, ``box`` the body's first voxel and the one after its
    last along each axis, ``voxels`` how many voxels each label has. ``lesion_voxels`` is None where nobody annotated.
    ``covered`` is the share of the body that the PET shows, ``motion`` None where nobody looked for one.
    ``source_sha256`` names the images as they were loaded, ``arrays_sha256`` each stored file. ``is_phantom`` is called
    ``drawn`` in the file. ``source_stamp`` is by what the source is known to have changed, empty in stores of older
    versions. ``ct_facts`` are None
    there.
    """

    name: str
    patient: str
    diagnosis: str
    ct_origin: CtOrigin
    source_sha256: str
    plan_hash: str
    segmenter: str
    segmenter_hash: str
    version: str
    shape: Shape
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    hu_range: tuple[int, int]
    voxels: Mapping[int, int]
    lesion_voxels: int | None
    covered: float
    body_suv_mean: float
    motion: FoundMotion | None
    arrays_sha256: Mapping[str, str]
    is_phantom: bool = False
    source_stamp: str = ""
    ct_facts: CtFacts | None = None

    def as_json(self) -> dict[str, Any]:
        """The content of the study's file; its key ``drawn`` keeps its name, so that stores and their hashes stay."""
        content = asdict(self)
        if self.ct_facts is None:
            del content["ct_facts"]
        content["drawn"] = content.pop("is_phantom")
        return content

    @property
    def body(self) -> Box:
        """The body's box in the field of view."""
        d, h, w = (slice(first, end) for first, end in self.box)
        return d, h, w


@dataclass(frozen=True)
class Refusal:
    """A study that must not be trained on: why, and by what its source is known to have changed."""

    name: str
    patient: str
    diagnosis: str
    reason: str
    source_stamp: str


@dataclass(frozen=True, eq=False)
class TrainingStore:
    """What a store holds, read once; the images stay on disk and are mapped when pairs are asked for."""

    folder: Path
    kind: StoreKind
    entries: tuple[Entry, ...]
    refused: tuple[Refusal, ...]
    fingerprint: str

    @property
    def plan(self) -> Plan:
        """On whose grid the studies lie."""
        return self.kind.plan

    @property
    def segmenter(self) -> str:
        """Whose the districts are."""
        return self.kind.segmenter

    @property
    def segmenter_hash(self) -> str:
        """SHA-256 of whatever decided the districts."""
        return self.kind.segmenter_hash

    def pairs(self, names: Iterable[str], *, keep_air: bool = False) -> list[Pair]:
        """The named studies in the names' order, as read-only memory maps cut to the body.

        ``keep_air``: the whole field of view. Raises Rejected for names that the store does not hold, and for
        ``keep_air`` where it holds bodies only.
        """
        if keep_air and not self.kind.keep_air:
            raise Rejected(
                f"The store {self.folder.name} holds bodies without the air around them, which a whole-volume network "
                "needs too: prepare a store with --keep-air."
            )
        known = {entry.name: entry for entry in self.entries}
        wanted = list(names)
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise Rejected(f"The store {self.folder.name} holds no study {_listed(unknown)}: check the split file.")
        return [self._pair(known[name], keep_air=keep_air) for name in wanted]

    def fingerprint_of(self, names: Iterable[str]) -> str:
        """SHA-256 over some studies' images and what made them: what a run on them depends on, and no more.

        A store that grew by other studies since gives the same value.
        """
        chosen = set(names)
        return _fingerprint(self.kind, [entry for entry in self.entries if entry.name in chosen])

    def check(self, progress: Progress | None = None) -> None:
        """Read every file again; raises Rejected, naming the study, where one is not what was written."""
        for number, entry in enumerate(self.entries, 1):
            for name, expected in entry.arrays_sha256.items():
                if _sha256_of(self.folder / STUDIES / entry.name / f"{name}.npy") != expected:
                    raise Rejected(
                        f"{name}.npy of study '{entry.name}' in {self.folder.name} is damaged: delete the study's "
                        "folder and prepare again."
                    )
            if progress is not None:
                progress(number, len(self.entries))

    def _pair(self, entry: Entry, *, keep_air: bool) -> Pair:
        folder = self.folder / STUDIES / entry.name
        box = whole_box(entry.shape) if keep_air else entry.body
        cut = box if self.kind.keep_air else whole_box([part.stop - part.start for part in box])
        arrays = {name: _mapped(folder / f"{name}.npy", ARRAYS[name])[cut] for name in entry.arrays_sha256}
        shape, corner = placed(entry.shape, box)
        return Pair(
            entry.name,
            entry.patient,
            entry.diagnosis,
            arrays["ct"],
            arrays["pet"],
            arrays["districts"],
            arrays.get("lesions"),
            entry.hu_range,
            shape,
            corner,
        )


def open_store(folder: Path) -> TrainingStore:
    """Read what a store holds; raises Rejected where it is none, or a study in it was made otherwise than the rest."""
    kind = read_kind(folder)
    if kind is None:
        raise Rejected(f"{folder} is no training store: make one with 'twin-scanner prepare'.")
    files = sorted((folder / STUDIES).glob(f"*/{STUDY_FILE}"))
    entries = tuple(_entry(path, kind) for path in files if not path.parent.name.startswith(UNFINISHED))
    refused = tuple(Refusal(**_read_json(path)) for path in sorted((folder / REFUSED).glob("*.json")))
    return TrainingStore(folder, kind, entries, refused, _fingerprint(kind, entries))


def patients_in(folder: Path) -> set[str]:
    """The patients of the store in a folder, none where there is none; raises as ``open_store`` does."""
    return set() if read_kind(folder) is None else {entry.patient for entry in open_store(folder).entries}


def read_kind(folder: Path) -> StoreKind | None:
    """What the studies of a folder have in common, None where it is no store; raises Rejected for another schema."""
    path = folder / STORE_FILE
    if not path.is_file():
        return None
    content = _read_json(path)
    if content.get("schema") != SCHEMA:
        raise Rejected(
            f"{path} has schema {content.get('schema')}, this version reads {SCHEMA}: prepare the store again."
        )
    try:
        plan = plan_from_json(content["plan"])
        kind = StoreKind(plan, *(content[key] for key in ("segmenter", "segmenter_hash", "keep_air", "registered")))
    except (KeyError, TypeError, ValueError) as error:
        raise Rejected(f"{path} is not the file of a training store: prepare the store again.") from error
    if content.get("plan_hash") != plan.plan_hash:
        raise Rejected(f"{path} names another Plan than it holds: it was changed by hand, prepare the store again.")
    return kind


def write_kind(folder: Path, kind: StoreKind) -> None:
    """Begin a store in an empty folder; raises OSError."""
    write_durably(folder / STORE_FILE, json_bytes(kind.as_json()))


def write_study(
    folder: Path, entry: Entry, arrays: Mapping[str, npt.NDArray[Any]], *, made_again: bool = False
) -> None:
    """Put one study into the store, whole or not at all; ``arrays`` as ARRAYS names them. Raises OSError.

    The entry's ``arrays_sha256`` is filled in here. Two processes that write the same study write the same bytes, so
    whichever comes first has made it. ``made_again``: in the place of what the store holds under its name.
    """
    final = folder / STUDIES / entry.name
    part = final.with_name(f"{UNFINISHED}{os.getpid()}-{entry.name}")
    part.mkdir()
    for name, array in arrays.items():
        _write_array(part / f"{name}.npy", array)
    digests = {name: _sha256_of(part / f"{name}.npy") for name in sorted(arrays)}
    write_durably(part / STUDY_FILE, json_bytes({**entry.as_json(), "arrays_sha256": digests}))
    if made_again:
        remove_study(folder, entry.name)
    try:
        part.rename(final)
    except OSError:
        if not (final / STUDY_FILE).is_file():
            raise
        shutil.rmtree(part)
    sync_folder(final.parent)


def restamp(folder: Path, entry: Entry) -> None:
    """Write a held study's entry anew, its images as they are; raises OSError."""
    write_durably(folder / STUDIES / entry.name / STUDY_FILE, json_bytes(entry.as_json()))


def remove_study(folder: Path, name: str) -> None:
    """Take a study out of the store, at once; a run that has it mapped keeps its images. Raises OSError."""
    held = folder / STUDIES / name
    unwanted = held.with_name(f"{UNFINISHED}{os.getpid()}-old-{name}")
    held.rename(unwanted)
    sync_folder(held.parent)
    shutil.rmtree(unwanted)


def refusal_file(folder: Path, name: str) -> Path:
    """Where a store says why it does not hold a study."""
    return folder / REFUSED / f"{name}.json"


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """JSON that is the same for the same content, one key per line."""
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _entry(path: Path, kind: StoreKind) -> Entry:
    content = _read_json(path)
    try:
        recorded = (content["plan_hash"], content["segmenter"], content["segmenter_hash"])
        is_phantom = content.pop("drawn", False)
        if content["motion"] is not None:
            found = content["motion"]
            content["motion"] = FoundMotion(**{**found, "translation_mm": _triple(found["translation_mm"])})
        content["voxels"] = {int(label): int(count) for label, count in content["voxels"].items()}
        content["shape"], content["hu_range"] = tuple(content["shape"]), tuple(content["hu_range"])
        content["box"] = tuple((first, end) for first, end in content["box"])
        facts = content.pop("ct_facts", None)
        entry = Entry(**content, is_phantom=is_phantom, ct_facts=None if facts is None else CtFacts(**facts))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Rejected(f"{path} does not describe a study: delete its folder and prepare again.") from error
    if recorded != (kind.plan.plan_hash, kind.segmenter, kind.segmenter_hash) or entry.name != path.parent.name:
        raise Rejected(
            f"The study '{path.parent.name}' was made for another store than {path.parents[2].name}, with another Plan "
            "or segmenter or under another name: delete its folder and prepare again."
        )
    return entry


def _fingerprint(kind: StoreKind, entries: Sequence[Entry]) -> str:
    digest = hashlib.sha256(json_bytes(kind.as_json()))
    for entry in sorted(entries, key=lambda entry: entry.name):
        content = entry.as_json()
        del content["source_stamp"]
        digest.update(json_bytes(content))
    return digest.hexdigest()


def _mapped(path: Path, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A .npy file as a read-only memory map that holds no file open.

    numpy.memmap keeps a descriptor a map, and 1,014 studies are 4,056 maps where a process has 1,024 descriptors;
    PyTorch closes the file once it is mapped.
    """
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            shape, fortran_order, stored = np.lib.format.read_array_header_1_0(stream)
            start, size = stream.tell(), os.fstat(stream.fileno()).st_size
        if version != (1, 0) or fortran_order or stored != np.dtype(dtype):
            raise ValueError(f"not a C-ordered array of {np.dtype(dtype)}")
        if size != start + int(np.prod(shape)) * stored.itemsize:
            raise ValueError("not as long as its shape says")
        raw = torch.from_file(str(path), size=size, dtype=torch.uint8).numpy()
    except (OSError, ValueError, RuntimeError) as error:
        raise Rejected(
            f"{path.name} of study '{path.parent.name}' cannot be read: delete the study's folder and prepare again."
        ) from error
    array: npt.NDArray[Any] = raw[start:].view(stored).reshape(shape)
    array.flags.writeable = False
    return array


def _write_array(path: Path, array: npt.NDArray[Any]) -> None:
    write_whole(path, lambda stream: np.lib.format.write_array(stream, array, (1, 0), allow_pickle=False))


def _sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Rejected(f"{path} cannot be read: delete it and prepare again.") from error
    if not isinstance(content, dict):
        raise Rejected(f"{path} cannot be read: delete it and prepare again.")
    return content


def _triple(values: Sequence[float]) -> Triple:
    d, h, w = (float(value) for value in values)
    return d, h, w


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
