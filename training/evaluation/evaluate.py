"""The evaluation: every study and model measured once, whatever interrupts it, then tables, figures and one report."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from training.data.prepare import source_stamp
from training.data.splits import read_split
from training.data.study import StudyReference
from training.evaluation.case import Case, Row
from training.evaluation.evaluated_study import Loaded, evaluated_case, load
from training.evaluation.organs import OrganMaps
from training.evaluation.score import score
from training.evaluation.statistics import family
from twin_scanner.districts.district_map import Segmenter
from twin_scanner.errors import Rejected, Transient
from twin_scanner.files.durable_file import write_durably
from twin_scanner.files.file_lock import take_lock
from twin_scanner.files.writable import check_writable, disk_fault
from twin_scanner.models.compute import PROCESSOR, Compute
from twin_scanner.models.device import placed
from twin_scanner.models.package import ModelPackage, load_package
from twin_scanner.progress import Progress
from twin_scanner.synthesis.pipeline import PipelineOptions

MEASURED: Final = "measured"
LOCK: Final = "lock"
SCHEMA: Final = 3
"""A change of any metric's definition raises it, and everything is measured again."""


@dataclass(frozen=True)
class EvaluatedModel:
    """One model to evaluate: its package, and what the tables call it ("NAME" or "NAME#SEED")."""

    name: str
    package: ModelPackage


@dataclass(frozen=True)
class Refused:
    """A study that could not be evaluated, and why."""

    study: str
    reason: str


@dataclass(frozen=True)
class EvaluationResult:
    """Everything that was measured, and what could not be."""

    rows: Sequence[Row]
    refused: Sequence[Refused]
    studies: int
    patients: int


@dataclass(frozen=True)
class EvaluationRequest:
    """What is evaluated: models (the first is the model, the others are what it is compared with), on which studies.

    ``look`` sees each study's cases while they are in memory, once (model name to Case), to plot them; it returns when
    its pictures are on disk.
    """

    models: Sequence[EvaluatedModel]
    studies: Sequence[StudyReference]
    out: Path
    segmenter: Segmenter
    options: PipelineOptions = field(default_factory=PipelineOptions)
    registered: bool = True
    organs: OrganMaps | None = None
    look: Callable[[Mapping[str, Case]], None] | None = None

    @property
    def plotted(self) -> list[EvaluatedModel]:
        """Whose images are plotted side by side, and so kept in memory: the model's and the first baseline's."""
        first = self.models[0]
        others = [model for model in self.models if family(model.name) != family(first.name)]
        return [first, *others[:1]]

    def load(self, reference: StudyReference) -> Loaded:
        """A study, ready for every model; raises Rejected with its fault."""
        return load(reference, self.segmenter, registered=self.registered, organs=self.organs)


def evaluated_models(folders: Sequence[Path], compute: Compute = PROCESSOR) -> list[EvaluatedModel]:
    """Packages by folder, on a device, named by their cards.

    Packages that differ in the training seed alone share a name: "NAME-s3" of a grid's run with seed 3 is "NAME#3".
    Raises Rejected for two that would be called the same.
    """
    found: dict[str, EvaluatedModel] = {}
    for folder in folders:
        package = placed(load_package(folder), compute)
        name = called(package)
        if name in found:
            same = "the same package" if found[name].package.model_hash == package.model_hash else "another package"
            raise Rejected(f"{folder} is called '{name}' as {same} is that was given before: give each model once.")
        found[name] = EvaluatedModel(name, package)
    return list(found.values())


def called(package: ModelPackage) -> str:
    """What the tables call a package: its name, and the seed apart where the name of a grid's run ends in it."""
    seed = package.card.about.get("training", {}).get("seed")
    ending = f"-s{seed}"
    return f"{package.name.removesuffix(ending)}#{seed}" if package.name.endswith(ending) else package.name


def chosen_studies(
    studies: Sequence[StudyReference], split: Path | None = None, part: str = "test"
) -> list[StudyReference]:
    """The studies of a split's part, or all where no split is given.

    Raises Rejected where the split does not fit the studies, or the part is empty.
    """
    if split is None:
        return list(studies)
    names = frozenset(read_split(split, studies).parts[part])
    if not names:
        raise Rejected(f"The part '{part}' of the split {split.name} is empty: choose another part.")
    return [study for study in studies if study.name in names]


def measure_all(request: EvaluationRequest, progress: Progress | None = None) -> EvaluationResult:
    """Measure every model on every study, those apart that were measured before; ``progress`` gets (done, in all).

    A study that cannot be evaluated is left out for every model, so that all are scored on the same ones, and is tried
    again by the next run. Raises Transient where the disk fails or another run writes to the same folder, Rejected
    where no study could be evaluated.
    """
    rows: list[Row] = []
    refused: list[Refused] = []
    patients: set[str] = set()
    done, total = 0, len(request.studies)
    check_writable(request.out)
    busy = Transient(f"Another evaluation writes to {request.out}: wait until it ends.")
    try:
        (request.out / MEASURED).mkdir(parents=True, exist_ok=True)
        with take_lock(request.out / LOCK, busy):
            for done, reference in enumerate(request.studies):
                _report(progress, done, total)
                try:
                    rows += _measured(request, reference)
                    patients.add(reference.patient)
                except Rejected as reason:
                    refused.append(Refused(reference.name, str(reason)))
    except OSError as error:
        raise disk_fault(request.out, error) from error
    except KeyboardInterrupt as stop:
        raise Transient(
            f"The evaluation was stopped: {request.out} keeps what was measured of {done} of {total} studies; run it "
            "again to go on."
        ) from stop
    _report(progress, total, total)
    if not rows:
        first = f" The first was refused because: {refused[0].reason}" if refused else ""
        raise Rejected(f"None of {total} studies could be evaluated: give others.{first}")
    return EvaluationResult(rows, refused, total - len(refused), len(patients))


def _measured(request: EvaluationRequest, reference: StudyReference) -> list[Row]:
    """One study's rows: from its files where they are whole, else measured now and written."""
    files = {model.name: measured_file(request, reference, model).with_suffix(".json") for model in request.models}
    kept = {name: rows for name, file in files.items() if (rows := _kept(file, name)) is not None}
    if len(kept) < len(files):
        kept |= _scored_now(request, request.load(reference), files, kept)
    return [row for model in request.models for row in kept[model.name]]


def _scored_now(
    request: EvaluationRequest, loaded: Loaded, files: Mapping[str, Path], kept: Mapping[str, list[Row]]
) -> dict[str, list[Row]]:
    """The missing models and those to be plotted; nothing is written unless each of them could be evaluated."""
    plotted = [model.name for model in request.plotted] if request.look is not None else []
    if all(name in kept for name in plotted):
        plotted = []
    rows: dict[str, list[Row]] = {}
    cases: dict[str, Case] = {}
    for model in request.models:
        if model.name in kept and model.name not in plotted:
            continue
        case = evaluated_case(loaded, model.package, request.options)
        rows[model.name] = score(case, model.name)
        if model.name in plotted:
            cases[model.name] = case
    if request.look is not None and cases:
        request.look(cases)
    for name, found in rows.items():
        content = {"schema": SCHEMA, "rows": [asdict(row) for row in found]}
        write_durably(files[name], json.dumps(content).encode())
    return rows


def measured_file(
    request: EvaluationRequest, reference: StudyReference, model: EvaluatedModel, what: str = "rows"
) -> Path:
    """Where what was measured of a study with a model lies, without its ending: the name holds all that decides it."""
    decides = {
        "what": what,
        "schema": SCHEMA,
        "version": version("twin-scanner"),
        "study": source_stamp(reference),
        "model": model.package.model_hash,
        "segmenter": [request.segmenter.name, request.segmenter.segmenter_hash],
        "options": asdict(request.options),
        "registered": request.registered,
        "organs": "" if request.organs is None else request.organs.stamp(reference.name),
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return request.out / MEASURED / digest[:32]


def _kept(file: Path, name: str) -> list[Row] | None:
    """Rows that an earlier run wrote, under the model's present name; None where there are none."""
    if not file.is_file():
        return None
    content: dict[str, Any] = json.loads(file.read_bytes())
    return [Row(**{**row, "model": name}) for row in content["rows"]]


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
