"""From studies to a training store: each study once, whole or not at all, checked before it may be trained on."""

import hashlib
import json
import logging
import shutil
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from training.data.pairs import GridStudy, Segment, on_plan_grid, phantom_truth, whole_box
from training.data.registration import one_thread, register
from training.data.study import StudyReference, TrainingStudy
from training.data.training_store import (
    REFUSED,
    STORE_FILE,
    STUDIES,
    STUDY_NAME,
    UNFINISHED,
    Entry,
    FoundMotion,
    Refusal,
    StoreKind,
    TrainingStore,
    json_bytes,
    open_store,
    read_kind,
    refusal_file,
    remove_study,
    restamp,
    write_kind,
    write_study,
)
from twin_scanner.districts.district_map import Segmenter
from twin_scanner.errors import Rejected, Transient
from twin_scanner.files.durable_file import PART, write_durably
from twin_scanner.files.file_lock import take_lock
from twin_scanner.files.writable import check_writable, disk_fault
from twin_scanner.imaging.volume import LabelArray, Volume, label_counts
from twin_scanner.models.plan import Plan
from twin_scanner.models.ranges import CtFacts, extent_facts
from twin_scanner.progress import Progress

Recipe: TypeAlias = Callable[[], Segmenter]
"""Makes the segmenter in whichever process asks; it must survive pickling, so no lambda."""
Results: TypeAlias = Generator[Refusal | None, None, None]

LOG = logging.getLogger("twin_scanner.prepare")
LOCK_FILE: Final = "lock"
_OF_AN_EMPTY_STORE: Final = (LOCK_FILE, STORE_FILE, STORE_FILE + PART)
TRUTH: Final = "phantom-truth"
"""Whose the districts are where no segmenter made them."""
LEAST_COVERED: Final = 0.8
"""The PET shows at least this share of the body's voxels: below it the two images were not meant as one examination.
What lacks is not trained on either way."""
BODY_SUV_MEAN: Final = (0.2, 5.0)
"""A body that lost no activity has mean SUV 1; decay, urine and wrong weights move it, wrong units leave this range."""
LEAST_BODY_SUV_MAX: Final = 1.0


@dataclass(frozen=True)
class _Task:
    """What a worker needs to put one study into the store."""

    reference: StudyReference
    folder: Path
    kind: StoreKind
    recipe: Recipe | None
    held: Entry | None = None
    """What the store made of it before its source changed."""


def prepare(
    references: Iterable[StudyReference],
    folder: Path,
    plan: Plan,
    recipe: Recipe | None,
    *,
    keep_air: bool = False,
    registered: bool = True,
    executor: Executor | None = None,
    workers: int = 1,
    retry_refused: bool = False,
    progress: Progress | None = None,
) -> TrainingStore:
    """Put every study into the store that is not in it as its source stands, and return the store.

    ``recipe`` makes the segmenter; None takes a phantom's own districts. ``keep_air`` stores the whole field of view,
    which a whole-volume network needs. ``registered``: each PET is compared with its CT and moved onto it where the
    patient moved; False for phantoms, whose images lie in one place.

    A study whose files changed is read again, and made again where its images or lesions are others. One that must not
    be trained on is listed with its reason, is no longer in the store and stops nothing; it is tried again where its
    source changed, or all are with ``retry_refused``. ``progress`` receives (studies dealt with, studies in all), those
    of earlier runs included. ``workers`` studies are with the executor at any time, None prepares them in this process;
    the result is the same.

    Raises Rejected where the store's studies were made with another Plan or segmenter or two studies share a name,
    Transient where another run writes to the store, the disk fails or a worker process was lost; what is finished
    stays, and the next run goes on from there.
    """
    check_writable(folder)
    studies = _checked(references)
    segmenter = recipe() if recipe is not None else None
    name, digest = (segmenter.name, segmenter.segmenter_hash) if segmenter is not None else (TRUTH, "")
    kind = StoreKind(plan, name, digest, keep_air, registered)
    busy = Transient(f"Another run writes to the training store {folder}: wait until it ends.")
    with take_lock(folder / LOCK_FILE, busy):
        store = _begun(folder, kind)
        held = {entry.name: entry for entry in store.entries}
        waiting = _waiting(studies, store, retry_refused=retry_refused)
        tasks = [_Task(reference, folder, kind, recipe, held.get(reference.name)) for reference in waiting]
        results = _in_this_process(tasks) if executor is None else _in_executor(tasks, executor, workers)
        try:
            with closing(results):
                _follow(results, len(studies) - len(tasks), len(studies), progress)
        except KeyboardInterrupt as stop:
            held_now = len(open_store(folder).entries)
            raise Transient(
                f"The preparation was stopped: the training store {folder} holds {held_now} of {len(studies)} studies "
                "whole; run it again to go on."
            ) from stop
        return open_store(folder)


def _follow(results: Results, before: int, total: int, progress: Progress | None) -> None:
    """Log every refusal and report progress, until no result is left."""
    _report(progress, before, total)
    for done, refusal in enumerate(results, before + 1):
        if refusal is not None:
            LOG.warning("study refused", extra={"study": refusal.name, "reason": refusal.reason})
        _report(progress, done, total)


def prepare_study(task: _Task) -> Refusal | None:
    """Put one study into its store, or why it is not in it; raises Transient where the disk fails."""
    reference, folder = task.reference, task.folder
    refusal = refusal_file(folder, reference.name)
    try:
        stamp = source_stamp(reference)
        with one_thread():
            study = reference.load()
            source = source_sha256(study)
            if task.held is not None and task.held.source_sha256 == source:
                restamp(folder, replace(task.held, diagnosis=reference.diagnosis, source_stamp=stamp))
                refusal.unlink(missing_ok=True)
                return None
            entry, whole = _made(task, study)
        entry = replace(entry, source_sha256=source, source_stamp=stamp)
        arrays: dict[str, npt.NDArray[Any]] = {"ct": whole.ct, "pet": whole.pet, "districts": whole.labels}
        if whole.lesions is not None:
            arrays["lesions"] = whole.lesions
        box = whole_box(entry.shape) if task.kind.keep_air else entry.body
        boxed = {key: np.ascontiguousarray(array[box]) for key, array in arrays.items()}
        write_study(folder, entry, boxed, made_again=task.held is not None)
        refusal.unlink(missing_ok=True)
    except Rejected as reason:
        refused = Refusal(reference.name, reference.patient, reference.diagnosis, str(reason), stamp)
        return _refused(task, refused)
    except OSError as error:
        raise disk_fault(folder, error) from error
    return None


def _refused(task: _Task, refused: Refusal) -> Refusal:
    """Say in the store why it does not hold a study, and hold it no longer; raises Transient where the disk fails."""
    try:
        write_durably(refusal_file(task.folder, refused.name), json_bytes(asdict(refused)))
        if task.held is not None:
            remove_study(task.folder, refused.name)
    except OSError as error:
        raise disk_fault(task.folder, error) from error
    return refused


def source_stamp(reference: StudyReference) -> str:
    """SHA-256 over what can be known of a source without reading it: its fields, and its files' sizes and times.

    A file counts by its place below the reference's own path, so a source keeps its stamp where it is moved as a whole.
    """
    digest = hashlib.sha256(f"{reference.name} {reference.patient} {reference.diagnosis}".encode())
    for field in getattr(type(reference), "__dataclass_fields__", {}):
        value = getattr(reference, field)
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, Path):
                _add_files(digest, item)
            elif isinstance(item, str | int | float):
                digest.update(f"{field} {item}\n".encode())
    return digest.hexdigest()


def source_sha256(study: TrainingStudy) -> str:
    """SHA-256 over everything that was loaded: values, grids and where the CT comes from."""
    digest = hashlib.sha256(study.ct_origin.encode())
    for volume in (study.ct, study.pet):
        digest.update(json.dumps(asdict(volume.geometry), default=float, sort_keys=True).encode())
        digest.update(np.ascontiguousarray(volume.array).data)
    for labels in (study.lesions, study.truth):
        digest.update(b"none" if labels is None else np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def _made(task: _Task, study: TrainingStudy) -> tuple[Entry, GridStudy]:
    """One study aligned, segmented, brought to the grid and checked, without its source; Rejected with the reason."""
    reference, kind = task.reference, task.kind
    study, motion = registered_study(study) if kind.registered else (study, None)
    whole = on_plan_grid(study, _segment(task.recipe), kind.plan)
    mean = _check_plausible(whole)
    counts = label_counts(whole.labels)
    d, h, w = ((part.start, part.stop) for part in whole.body_box)
    depth, height, width = whole.ct.shape
    entry = Entry(
        name=reference.name,
        patient=reference.patient,
        diagnosis=reference.diagnosis,
        ct_origin=study.ct_origin,
        source_sha256="",
        plan_hash=kind.plan.plan_hash,
        segmenter=kind.segmenter,
        segmenter_hash=kind.segmenter_hash,
        version=version("twin-scanner"),
        shape=(depth, height, width),
        box=(d, h, w),
        hu_range=whole.hu_range,
        voxels={int(label): int(counts[label]) for label in np.flatnonzero(counts) if label},
        lesion_voxels=None if whole.lesions is None else int(np.count_nonzero(whole.lesions)),
        covered=round(whole.covered, 4),
        body_suv_mean=round(mean, 4),
        motion=motion,
        arrays_sha256={},
        is_phantom=study.is_phantom,
        ct_facts=_facts(study),
    )
    return entry, whole


def _facts(study: TrainingStudy) -> CtFacts:
    """What ranges are made of; the spacing of a CT that lies on its PET's grid is not the scanner's."""
    field_of_view_mm, coverage_mm, *spacing_mm = extent_facts(study.ct.geometry)
    own_spacing_mm = (None, None) if study.ct_origin == "CTres" else spacing_mm
    return CtFacts(study.age_years, field_of_view_mm, coverage_mm, *own_spacing_mm)


def registered_study(study: TrainingStudy) -> tuple[TrainingStudy, FoundMotion]:
    """The study with its PET where the CT shows the same tissue; raises Rejected where the patient moved too far."""
    motion = register(study.ct, study.pet)
    x, y, z = (round(component, 3) for component in motion.translation_mm)
    found = FoundMotion((x, y, z), round(motion.rotation_deg, 3), round(motion.displacement_mm, 3), motion.corrected)
    return replace(study, pet=Volume(study.pet.array, motion.taken_back(study.pet.geometry))), found


def _check_plausible(whole: GridStudy) -> float:
    """The mean SUV of the body; raises Rejected where the study cannot teach what uptake looks like."""
    if whole.covered < LEAST_COVERED:
        raise Rejected(
            f"The PET shows {whole.covered:.0%} of the CT's body, at least {LEAST_COVERED:.0%} are needed: check that "
            "both belong to one examination."
        )
    return check_uptake(whole.pet[whole.body_box][whole.labels[whole.body_box] > 0])


def check_uptake(body: npt.NDArray[np.floating[Any]]) -> float:
    """The mean of a body's SUV (g/ml, any shape); raises Rejected where no FDG-PET in these units looks like it."""
    mean, highest = float(body.mean(dtype=np.float64)), float(body.max())
    low, high = BODY_SUV_MEAN
    if not low <= mean <= high:
        raise Rejected(
            f"The body's mean SUV is {mean:.3g}, between {low} and {high} is plausible: check units, weight and dose."
        )
    if highest < LEAST_BODY_SUV_MAX:
        raise Rejected(
            f"The body's highest SUV is {highest:.3g}, every FDG-PET has more than {LEAST_BODY_SUV_MAX}: check units, "
            "weight and dose."
        )
    return mean


def _segment(recipe: Recipe | None) -> Segment:
    if recipe is None:
        return phantom_truth

    def segment(study: TrainingStudy) -> LabelArray:
        return recipe().segment(study.ct).labels

    return segment


def _checked(references: Iterable[StudyReference]) -> list[StudyReference]:
    """The studies in the order of their names; raises Rejected for names that two share or no file can have."""
    studies = sorted(references, key=lambda reference: reference.name)
    if not studies:
        raise Rejected("The source holds no study: give a folder in autoPET's layout or one of DICOM studies.")
    times = Counter(reference.name for reference in studies)
    wrong = [name for name, count in times.items() if count > 1 or not STUDY_NAME.fullmatch(name)]
    if wrong:
        raise Rejected(
            f"{len(wrong)} studies, '{wrong[0][:60]}' first, share their name or have one that is no file's: give each "
            "a name of its own, of letters, digits, '.', '_' and '-'."
        )
    return studies


def _begun(folder: Path, kind: StoreKind) -> TrainingStore:
    """The store as an earlier run left it, without its half-written studies; raises Rejected for another kind."""
    held = read_kind(folder)
    if held is not None and held != kind:
        raise Rejected(
            f"The training store {folder} holds studies made with {_difference(held, kind)}: give a new folder, "
            "or what it was made with."
        )
    try:
        if held is None:
            if any(path.name not in _OF_AN_EMPTY_STORE for path in folder.iterdir()):
                raise Rejected(f"{folder} is not empty and no training store: give a new folder.")
            write_kind(folder, kind)
        for part in (STUDIES, REFUSED):
            (folder / part).mkdir(exist_ok=True)
        for unfinished in (folder / STUDIES).glob(f"{UNFINISHED}*"):
            shutil.rmtree(unfinished)
    except OSError as error:
        raise disk_fault(folder, error) from error
    return open_store(folder)


def _difference(held: StoreKind, wanted: StoreKind) -> str:
    if held.plan.training_grid != wanted.plan.training_grid:
        return f"grids laid on the {held.plan.training_grid.upper()}"
    if held.plan != wanted.plan:
        return "another Plan"
    if held.registered != wanted.registered:
        return "PETs that were compared with their CTs" if held.registered else "PETs as they came"
    if (held.segmenter, held.segmenter_hash) != (wanted.segmenter, wanted.segmenter_hash):
        return f"the segmenter '{held.segmenter}' {held.segmenter_hash[:12]}"
    return "the air around bodies" if held.keep_air else "bodies alone"


def _waiting(studies: Sequence[StudyReference], store: TrainingStore, *, retry_refused: bool) -> list[StudyReference]:
    """Studies neither finished nor refused as they stand; raises Rejected where a name is another patient's."""
    finished = {entry.name: entry for entry in store.entries}
    refused = {refusal.name: refusal.source_stamp for refusal in store.refused}
    waiting = []
    for reference in studies:
        entry = finished.get(reference.name)
        if entry is not None and entry.patient != reference.patient:
            raise Rejected(
                f"The training store {store.folder} holds a study '{reference.name}' of another patient: give the "
                "sources a store each."
            )
        stamp = source_stamp(reference)
        if entry is not None:
            settled = entry.source_stamp in ("", stamp)
        else:
            settled = refused.get(reference.name) == stamp and not retry_refused
        if not settled:
            waiting.append(reference)
    return waiting


def _in_this_process(tasks: Sequence[_Task]) -> Results:
    for task in tasks:
        yield prepare_study(task)


def _in_executor(tasks: Sequence[_Task], executor: Executor, workers: int) -> Results:
    """Each study as work of its own, ``workers`` at once; yields after each."""
    waiting, under_way = deque(tasks), dict[Future[Refusal | None], str]()
    try:
        while waiting or under_way:
            while waiting and len(under_way) < workers:
                task = waiting.popleft()
                under_way[executor.submit(prepare_study, task)] = task.reference.name
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                yield future.result()
                del under_way[future]
    except BrokenExecutor as error:
        lost = " or ".join(f"'{name}'" for name in sorted(under_way.values()))
        raise Transient(
            f"A process that prepared study {lost} was lost, most often for want of memory: run again with fewer "
            "workers, finished studies are kept."
        ) from error
    finally:
        for future in under_way:
            future.cancel()


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


def _add_files(digest: "hashlib._Hash", path: Path) -> None:
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            status, place = file.stat(), file.relative_to(path.parent).as_posix()
            digest.update(f"{place} {status.st_size} {status.st_mtime_ns}\n".encode())
