"""The command line: verbs on nouns; stdout is the result, stderr the log, exit 0 done, 1 failed, 2 wrong usage."""

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from rich import progress as rich_progress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from twin_scanner import app as application
from twin_scanner.districts.choice import SEGMENTERS, SegmenterChoice
from twin_scanner.errors import Rejected, TwinScannerError
from twin_scanner.logs import set_up_logging
from twin_scanner.progress import Progress
from twin_scanner.service.ledger import Job, Ledger, State
from twin_scanner.settings import Settings, load_settings

if TYPE_CHECKING:
    from twin_scanner.models.store import ModelStore
    from twin_scanner.render.report import RenderReport

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="The TOML configuration; see deploy/.", dir_okay=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
SegmenterName = Annotated[
    str | None, typer.Option("--segmenter", help=f"{', '.join(SEGMENTERS)}; default: the configuration's.")
]
LabelmapFile = Annotated[
    Path | None, typer.Option("--labelmap", help="The label map (NIfTI or DICOM SEG) for the segmenter labelmap.")
]

cli = typer.Typer(
    help="A virtual PET scanner: CT in by DICOM, synthetic FDG-PET out, the twin record kept by FHIR. Research only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
models_cli = typer.Typer(help="Model packages.", no_args_is_help=True)
jobs_cli = typer.Typer(help="Jobs of the running or stopped scanner.", no_args_is_help=True)
twin_cli = typer.Typer(help="The patients' twin records.", no_args_is_help=True)
cli.add_typer(models_cli, name="models")
cli.add_typer(jobs_cli, name="jobs")
cli.add_typer(twin_cli, name="twin")


def main() -> NoReturn:
    """Entry point: a known error is one sentence on stderr, never a traceback."""
    try:
        cli()
    except TwinScannerError as error:
        Console(stderr=True, highlight=False).print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(1)
    sys.exit(0)


@cli.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Where the results go.", file_okay=False)] = Path("demo-out"),
) -> None:
    """Run the main job end to end on a generated whole-body CT, everything embedded, on loopback."""
    from twin_scanner.demo import run_demo

    set_up_logging("WARNING")
    with _progress() as bars:
        result = run_demo(out, _reporter(bars))
    _print_pairs(
        {
            "PET series": f"{result.pet_folder} ({result.pet_count} instances, as received back by the PACS stand-in)",
            "Twin record": str(result.twin_record),
            "Preview": str(result.preview),
            "PET as NIfTI": str(result.pet_nifti),
            "Report": str(result.report),
        }
    )
    print("Synthetic, research, not for diagnosis: the demonstration model has seen phantoms only.")


@cli.command()
def serve(config: ConfigFile = None) -> None:
    """Run the scanner: receive CTs, send synthetic PETs back, record them in the twin; stops on SIGTERM or Ctrl-C."""
    settings = _settings(config)
    set_up_logging(settings.log.level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with application.Scanner(settings) as scanner:
        print(f"listening {scanner.receiver.port}", flush=True)
        stop.wait()


@cli.command()
def doctor(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Examine this installation: disk, ledger, model, segmenters, PACS and twin; exit 1 where something is at fault."""
    from twin_scanner.doctor import Finding, examine

    marks = {"ok": "ok     ", "warning": "warning", "fault": "FAULT  "}

    def tell(finding: Finding) -> None:
        if not as_json:
            print(f"{marks[finding.state]}  {finding.name}: {finding.sentence}", flush=True)

    findings = examine(_settings(config), tell)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)


@cli.command()
def translate(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A folder of a CT series, or a .nii.gz file in HU.")],
    out: Annotated[Path, typer.Option("--out", help="A new or empty folder for the results.", file_okay=False)],
    model: Annotated[str | None, typer.Option("--model", help="An alias (champion), a name or a hash.")] = None,
    segmenter: SegmenterName = None,
    labelmap: LabelmapFile = None,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Write the standard deviation of SUV; seven more translations.")
    ] = False,
    explain: Annotated[
        str,
        typer.Option(
            "--explain",
            metavar="TARGET",
            help="Which CT evidence made the uptake: voxel:D,H,W, mm:X,Y,Z (LPS), MASK.nii.gz[:LABEL] on the grid of "
            "pet.nii.gz, or a district.",
        ),
    ] = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Translate one CT: writes pet/ seg/ sr/ key/ (DICOM), pet.nii.gz, districts.nii.gz, preview.png, report.json."""
    from twin_scanner.render.render import render

    settings = _settings(config)
    set_up_logging("WARNING")
    if not source.exists():
        raise Rejected(f"{source} does not exist: give a folder of a CT series, or a .nii.gz file.")
    if out.exists() and any(out.iterdir()):
        raise Rejected(f"{out} is not empty: give a new folder, nothing is overwritten.")
    request = replace(
        application.render_template(settings),
        source=source,
        result=out,
        made_at=datetime.now().astimezone(),
        model=model or settings.model.name,
        segmenter=_segmenter_choice(settings, segmenter, labelmap),
        uncertainty=uncertainty,
        explain=explain,
    )
    with _progress() as bars:
        report = render(request, _reporter(bars)("Translating windows"))
    for note in (*report.notes, *_doubts(report)):
        Console(stderr=True).print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print((out / "report.json").read_text("utf-8"))
        return
    _print_pairs(
        {
            "PET series": str(out / "pet") if report.pet_files else "none (NIfTI input)",
            "PET as NIfTI": str(out / "pet.nii.gz"),
            "Beside it": ", ".join(companion.file for companion in report.companions) or "none",
            "Preview": str(out / "preview.png"),
            "Report": str(out / "report.json"),
            "Model": f"{report.model_name} {report.model_hash[:12]}",
        }
    )


def _doubts(report: "RenderReport") -> Iterator[str]:
    """What a user must know of the files beside the PET."""
    if report.uncertainty and not report.uncertainty["calibrated"]:
        yield "The uncertainty is the raw deviation of mirrored translations: 'evaluate --calibrate' calibrates it."
    if report.explanation and not report.explanation["complete"]:
        yield "The explanation does not add up to the whole uptake: read it as an indication."


@cli.command()
def segment(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A folder of a CT series, or a .nii.gz file in HU.")],
    out: Annotated[Path, typer.Option("--out", help="The label map to write (.nii.gz).", dir_okay=False)],
    segmenter: SegmenterName = None,
    labelmap: LabelmapFile = None,
    config: ConfigFile = None,
) -> None:
    """Split a CT into districts: 0 outside the body, 1 head, 2 trunk, 3 arms, 4 legs, on the CT's grid."""
    from twin_scanner.dicom.read.ct_series import read_ct_series
    from twin_scanner.districts.choice import make_segmenter
    from twin_scanner.imaging.volume import read_nifti, write_nifti

    if not out.name.endswith((".nii", ".nii.gz")):
        raise Rejected(f"{out} is no NIfTI name: let it end in .nii.gz.")
    is_nifti = source.name.endswith((".nii", ".nii.gz"))
    ct = read_nifti(source) if is_nifti else read_ct_series(source, accept_synthetic=True).volume
    districts = make_segmenter(_segmenter_choice(_settings(config), segmenter, labelmap)).segment(ct)
    write_nifti(out, districts.labels, districts.geometry)
    for part in districts.quality:
        print(part.sentence(), file=sys.stderr)
    print(out)


@cli.command()
def phantom(
    out: Annotated[Path, typer.Option("--out", help="A folder for the studies.", file_okay=False)],
    count: Annotated[int, typer.Option("--count", min=1, help="How many patients.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same bytes.")] = 0,
    dicom: Annotated[bool, typer.Option("--dicom", help="Write DICOM too.")] = False,
    world: Annotated[
        Literal["district-dependent", "appearance-only"], typer.Option("--world", help="What decides the uptake.")
    ] = "district-dependent",
) -> None:
    """Generate paired whole-body CT and PET studies of phantoms in the autoPET layout."""
    from training.phantom.files import write_studies

    with _progress() as bars:
        write_studies(out, count, seed, world=world, dicom=dicom, progress=_reporter(bars)("Phantoms"))
    print(out)


@cli.command()
def train(
    config: Annotated[
        Path,
        typer.Argument(
            help="A training configuration or a grid of them (TOML); see training/configs/.", dir_okay=False
        ),
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint; a grid always does.")
    ] = False,
    only: Annotated[str, typer.Option("--only", metavar="PATTERN", help="Of a grid: the runs of such names.")] = "*",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Of a grid: networks that are trained at once.")] = 1,
) -> None:
    """Train the networks of a configuration, or of every run of a grid, and write the model packages."""
    from training.fit.fit import main as fit
    from training.fit.grid import is_grid, read_grid, train_grid
    from twin_scanner.executor.local import local_workers

    set_up_logging("INFO")
    if not is_grid(config):
        print(fit(config, resume=resume))
        return
    grid = read_grid(config)
    with local_workers(workers) as executor, _progress() as bars:
        for package in train_grid(grid, executor, at_once=workers, only=only, progress=_reporter(bars)("Networks")):
            print(package)


@cli.command()
def prepare(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Studies: autoPET's layout, or DICOM PET/CT.")],
    out: Annotated[
        Path, typer.Option("--out", help="The training store; one that was begun goes on.", file_okay=False)
    ],
    split: Annotated[
        Path | None,
        typer.Option("--split", help="Draw a split by patient into this file; the patients of one that is there stay."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the split.")] = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes; each needs 2.5 to 3.5 GB.")] = 1,
    keep_air: Annotated[
        bool, typer.Option("--keep-air", help="Store the whole field of view, for a whole-volume network.")
    ] = False,
    retry_refused: Annotated[bool, typer.Option("--retry-refused", help="Try refused studies again.")] = False,
    accept_synthetic: Annotated[
        bool, typer.Option("--accept-synthetic", help="Take DICOM that is marked synthetic: phantoms, never our PET.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="Whose grid the store has; default: 3 x 2.04 x 2.04 mm.")
    ] = None,
    segmenter: SegmenterName = None,
    config: ConfigFile = None,
) -> None:
    """Bring PET/CT studies into a training store: checked, registered, on the networks' grid, with districts."""
    from training.data.prepare import prepare as fill
    from training.data.splits import draw_into
    from training.data.studies import find_studies
    from twin_scanner.districts.choice import make_segmenter
    from twin_scanner.models.plan import Plan
    from twin_scanner.models.store import load_package

    settings = _settings(config)
    set_up_logging("ERROR")
    recipe = partial(make_segmenter, _segmenter_choice(settings, segmenter, None))
    plan = Plan() if model is None else load_package(_package(settings, model)).plan
    with _progress() as bars:
        report = _reporter(bars)
        studies = find_studies(source, accept_synthetic=accept_synthetic, progress=report("Headers"))
        store = fill(
            studies,
            out,
            plan,
            recipe,
            keep_air=keep_air,
            workers=workers,
            retry_refused=retry_refused,
            progress=report("Studies"),
        )
    for refusal in store.refused:
        print(f"refused {refusal.name}: {refusal.reason}", file=sys.stderr)
    print(f"{out}: {len(store.entries)} studies, {len(store.refused)} refused")
    if split is not None:
        draw_into(split, store.entries, seed, store=store.fingerprint)


@cli.command()
def retrain(
    train_config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="A retraining configuration (TOML).", dir_okay=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Train and score, but change no model.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Train a challenger on the store as it stands; it goes live only where it is not worse and is better overall."""
    from training.retraining.retrain import main as challenge

    settings = _settings(config)
    set_up_logging("INFO")
    chosen = train_config or settings.retrain.config
    if chosen is None:
        raise Rejected("There is no retraining configuration: give one, or set retrain.config.")
    with _progress() as bars:
        stage = cache(_reporter(bars))
        outcome = challenge(
            chosen,
            application.model_store(settings),
            dry_run=dry_run,
            progress=lambda name, done, total: stage(name)(done, total),
        )
    print(json.dumps(outcome.as_json(), indent=1) if as_json else f"{outcome.verdict}: {outcome.reason}")


@cli.command()
def evaluate(
    model: Annotated[
        list[str], typer.Option("--model", help="An alias, name, hash or folder; once for each seed of one model.")
    ],
    dataset: Annotated[Path, typer.Option("--dataset", help="Studies: autoPET's layout, or DICOM PET/CT.")],
    out: Annotated[
        Path, typer.Option("--out", help="Of tables and report; an evaluation that was begun goes on.", file_okay=False)
    ],
    baseline: Annotated[
        list[str] | None, typer.Option("--baseline", help="What the model is compared with; more than once for more.")
    ] = None,
    split: Annotated[Path | None, typer.Option("--split", help="Only the studies of a part of this split.")] = None,
    part: Annotated[
        Literal["train", "validation", "gate", "test"], typer.Option("--part", help="Of the split.")
    ] = "test",
    registration: Annotated[
        bool, typer.Option(help="Move each PET onto its CT first; phantoms, drawn in one place, need none.")
    ] = True,
    accept_synthetic: Annotated[
        bool, typer.Option("--accept-synthetic", help="Take DICOM that is marked synthetic: phantoms, never our PET.")
    ] = False,
    organs: Annotated[
        Path | None,
        typer.Option("--organs", help="Label maps STUDY.nii.gz and names.json: each organ's bias.", file_okay=False),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Also calibrate the model's uncertainty, on half of the patients; slow."),
    ] = False,
    segmenter: SegmenterName = None,
    config: ConfigFile = None,
) -> None:
    """Measure models on studies with a real PET: the paper's tables, statistics, figures and report.html."""
    from training.data.studies import find_studies
    from training.evaluation.calibrate import calibrate as calibrate_model
    from training.evaluation.evaluate import Question, chosen_studies, judged_models, measure_all
    from training.evaluation.organs import organ_maps
    from training.evaluation.pictures import Pictures
    from training.evaluation.result_files import conclude
    from twin_scanner.districts.choice import make_segmenter
    from twin_scanner.synthesis.pipeline import PipelineOptions

    settings = _settings(config)
    set_up_logging("ERROR")
    models = judged_models([_package(settings, reference) for reference in (*model, *(baseline or ()))])
    with _progress() as bars:
        report = _reporter(bars)
        studies = find_studies(dataset, accept_synthetic=accept_synthetic, progress=report("Headers"))
        question = Question(
            models=models,
            studies=chosen_studies(studies, split, part),
            out=out,
            segmenter=make_segmenter(_segmenter_choice(settings, segmenter, None)),
            options=PipelineOptions(settings.model.allow_other_segmenter, settings.model.missing_district),
            registered=registration,
            organs=None if organs is None else organ_maps(organs),
        )
        question = replace(question, look=Pictures(question).look)
        outcome = measure_all(question, report("Studies"))
        conclude(question, outcome, dataset.name)
        if calibrate:
            calibrate_model(question, application.model_store(settings), report("Calibration"))
    for refused in outcome.refused:
        print(f"refused {refused.study}: {refused.reason}", file=sys.stderr)
    print(f"{out}: studies {outcome.studies}, patients {outcome.patients}, refused {len(outcome.refused)}")


@models_cli.command("promote")
def models_promote(
    model: Annotated[str, typer.Argument(help="An alias (challenger), a name or a hash.")],
    force: Annotated[str, typer.Option("--force", metavar="REASON", help="Past the gate; the reason is kept.")] = "",
    config: ConfigFile = None,
) -> None:
    """Make a model the champion, where the gate's record says so."""
    from training.retraining.retrain import promote

    promotion = promote(_model_store(config), model, force=force)
    print(f"champion {promotion.champion}")


@models_cli.command("rollback")
def models_rollback(reason: Annotated[str, typer.Argument(help="Why; it is kept.")], config: ConfigFile = None) -> None:
    """Put the previous champion back in service."""
    promotion = _model_store(config).rollback(reason)
    print(f"champion {promotion.champion}")


@models_cli.command("export")
def models_export(
    model: Annotated[str, typer.Argument(help="An alias, a name or a hash.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder.", file_okay=False)],
    layout: Annotated[
        Literal["folder", "monai"], typer.Option("--layout", help="Our own folder, or a MONAI Bundle.")
    ] = "folder",
    config: ConfigFile = None,
) -> None:
    """Write a model package as a folder of our own or as a MONAI Bundle."""
    from training.exchange.monai_bundle import export_package

    print(export_package(_model_store(config).resolve(model), out, layout))


@models_cli.command("import")
def models_import(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="A package, or a bundle that was exported.")],
    config: ConfigFile = None,
) -> None:
    """Take a model package into the store; weights and card are read, nothing in it is run."""
    from training.exchange.monai_bundle import import_package

    print(import_package(source, _model_store(config)).name)


@models_cli.command("list")
def models_list(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """The model packages that are here, and their aliases."""
    rows = _model_store(config).list()
    if as_json:
        print(json.dumps([row.as_json() for row in rows], indent=1))
        return
    _print_table(
        ["name", "hash", "aliases", "partition", "intended use"],
        [[r.name, r.model_hash[:12], ", ".join(r.aliases), r.partition, r.intended_use] for r in rows],
    )


@models_cli.command("show")
def models_show(
    model: Annotated[str, typer.Argument(help="An alias, a name or a hash.")], config: ConfigFile = None
) -> None:
    """The card of one model package, as JSON."""
    folder = _model_store(config).resolve(model)
    print((folder / "card.json").read_text("utf-8"))


@jobs_cli.command("list")
def jobs_list(
    state: Annotated[str | None, typer.Option("--state", help="Only jobs in this state.")] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """The newest jobs."""
    if state is not None and state not in tuple(State):
        raise typer.BadParameter(f"choose one of {', '.join(State)}", param_hint="--state")
    with _ledger(_settings(config)) as ledger:
        jobs = ledger.jobs.newest(State(state) if state else None)
    if as_json:
        print(json.dumps([_job_json(job) for job in jobs], indent=1))
        return
    _print_table(
        ["job", "state", "since", "CT series", "attempts", "reason"],
        [
            [j.job_id[:12], j.state, f"{j.updated_at:%Y-%m-%d %H:%M:%S}Z", j.series_uid, str(j.attempts), j.reason]
            for j in jobs
        ],
    )


@jobs_cli.command("show")
def jobs_show(
    job_id: Annotated[str, typer.Argument(help="A job's id, or its beginning.")], config: ConfigFile = None
) -> None:
    """One job, as JSON."""
    with _ledger(_settings(config)) as ledger:
        print(json.dumps(_job_json(ledger.jobs.find(job_id)), indent=1))


@jobs_cli.command("retry")
def jobs_retry(
    job_id: Annotated[str, typer.Argument(help="A job's id, or its beginning.")], config: ConfigFile = None
) -> None:
    """Try a failed or rejected job again from where it stood."""
    with _ledger(_settings(config)) as ledger:
        job = ledger.retry(job_id)
    print(f"{job.job_id} {job.state}")


@twin_cli.command("show")
def twin_show(
    patient_id: Annotated[str, typer.Argument(help="The Patient ID of the CT.")],
    issuer: Annotated[
        str | None, typer.Option("--issuer", help="Issuer of Patient ID, where the CT names one.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """A patient's twin record as a FHIR Bundle, JSON."""
    target = application.open_twin(_settings(config))
    print(json.dumps(target.patient_record(patient_id, issuer), indent=1, ensure_ascii=False))


def _model_store(config: Path | None) -> "ModelStore":
    from twin_scanner.models.store import ModelStore

    return ModelStore(application.model_store(_settings(config)))


def _package(settings: Settings, reference: str) -> Path:
    """A package by its folder, or by what the model store calls it."""
    from twin_scanner.models.store import ModelStore

    folder = Path(reference)
    return folder if folder.is_dir() else ModelStore(application.model_store(settings)).resolve(reference)


def _segmenter_choice(settings: Settings, name: str | None, labelmap: Path | None) -> SegmenterChoice:
    """The configuration's, with what the command line says otherwise."""
    choice = application.segmenter_choice(settings)
    return replace(choice, name=name or choice.name, labelmap=labelmap or choice.labelmap)


def _settings(config: Path | None) -> Settings:
    try:
        return load_settings(config)
    except Rejected as error:
        Console(stderr=True, highlight=False).print(str(error), markup=False, soft_wrap=True)
        sys.exit(2)


@contextmanager
def _ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = application.open_ledger(settings)
    try:
        yield ledger
    finally:
        ledger.close()


@contextmanager
def _progress() -> Iterator[rich_progress.Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with rich_progress.Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        yield bars


def _reporter(bars: rich_progress.Progress) -> Callable[[str], Progress]:
    """For each named stage, a function that takes (done, total); outside a terminal a stage is one line, said once."""

    def stage(name: str) -> Progress:
        task = bars.add_task(name, total=None)
        begun = not bars.disable

        def report(done: int, total: int) -> None:
            nonlocal begun
            if not begun:
                print(f"{name} ...", file=sys.stderr, flush=True)
                begun = True
            bars.update(task, completed=done, total=total)

        return report

    return stage


def _job_json(job: Job) -> dict[str, Any]:
    values = {name: getattr(job, name) for name in job.__dataclass_fields__}
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in values.items()}


def _print_table(columns: list[str], rows: list[list[str]]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 200).print(table)


def _print_pairs(pairs: dict[str, str]) -> None:
    width = max(len(name) for name in pairs)
    for name, value in pairs.items():
        print(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    main()
