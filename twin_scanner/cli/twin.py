"""The verbs on twin records."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twin_scanner.cli.options import AsJson, ConfigFile, read_settings, written_file, written_folder
from twin_scanner.cli.output import log_from, print_pairs, print_table, say, stages
from twin_scanner.cli.twin_check import twin_check
from twin_scanner.errors import Misconfigured, Rejected, Transient

if TYPE_CHECKING:
    from twin_record.embedded import EmbeddedStore
    from twin_record.target import TwinTarget
    from twin_record.timeline import Timeline
    from twin_scanner.service.ledger import Which
    from twin_scanner.service.twin_sync import SyncReport
    from twin_scanner.settings import Settings

twin_cli = typer.Typer(
    help="Show, check, record again, erase, export and import the twin records of patients.", no_args_is_help=True
)
PatientId = Annotated[str, typer.Argument(metavar="PATIENT_ID", help="The Patient ID in the CT's header.")]
Issuer = Annotated[str | None, typer.Option("--issuer", help="The Issuer of Patient ID, where the CT names one.")]
LINES = ".ndjson"
NO_MORE_NAMED = 10
"""So many job ids are named on the terminal; --json names all."""

twin_cli.command("check")(twin_check)


@twin_cli.command("show")
def twin_show(
    patient_id: PatientId,
    issuer: Issuer = None,
    bundle: Annotated[bool, typer.Option("--bundle", help="Print the whole record as a FHIR Bundle.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a patient's twin record as a timeline: scans, synthetic series, models, and how the values changed."""
    from twin_record.timeline import timeline_of
    from twin_scanner.app import open_twin

    with closing(open_twin(read_settings(config))) as target:
        record = target.patient_record(patient_id, issuer)
    if bundle:
        print(json.dumps(record, indent=1, ensure_ascii=False))
        return
    timeline = timeline_of(record)
    if as_json:
        print(json.dumps(asdict(timeline), indent=1, ensure_ascii=False))
        return
    _print_timeline(timeline)


@twin_cli.command("sync")
def twin_sync(
    since: Annotated[
        datetime | None,
        typer.Option(
            "--since", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="Also all made or recorded since then (UTC)."
        ),
    ] = None,
    patient: Annotated[
        str | None, typer.Option("--patient", metavar="ID", help="All of this patient id, and nobody else's.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that the ledger keeps.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many would be recorded.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Record again what the ledger keeps and the configured target does not hold: after an outage, or after a move.

    With --since, --patient or --all also what the target did hold: after its backup was restored. What is there
    already stays as it is; a run that was stopped is gone on with by starting it again without options.
    """
    from twin_scanner.app import keep_missing_updates, open_ledger, open_twin, twin_name
    from twin_scanner.service.twin_sync import sync, to_sync

    again = _which(since, patient, everything)
    settings = read_settings(config)
    log_from("ERROR")
    with closing(open_ledger(settings)) as ledger:
        if dry_run:
            count, unkept = to_sync(ledger, twin_name(settings), again), len(ledger.updates.unkept())
            _print_counts({"would_be_recorded": count, "kept_no_update": unkept}, as_json)
            return
        keep_missing_updates(settings, ledger)
        with (
            closing(open_twin(settings)) as target,
            stages("what was recorded is noted; 'twin-scanner twin sync' goes on.") as stage,
        ):
            report = sync(ledger, target, twin_name(settings), again, stage("Records"))
    _print_report(report, as_json)
    if report.stopped:
        raise Transient(f"{report.stopped} {report.left} updates are left: 'twin-scanner twin sync' goes on with them.")
    if not report.is_whole:
        raise typer.Exit(1)


@twin_cli.command("erase")
def twin_erase(
    patient_id: PatientId,
    issuer: Issuer = None,
    yes: Annotated[bool, typer.Option("--yes", help="Erase without asking first.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Erase a patient: the record in the embedded store with its history, and what the ledger keeps to record it again.

    On a FHIR server nothing is erased: what is ours there is listed, for whoever may erase it.
    """
    from twin_scanner.app import erase_patient

    if not yes:
        if not sys.stdin.isatty():
            raise Misconfigured("Nobody is there to confirm that the patient is to be erased for good: give --yes.")
        typer.confirm("Erase this patient's twin record and what is kept to make it again, for good?", abort=True)
    erased = erase_patient(read_settings(config), patient_id, issuer)
    if as_json:
        print(json.dumps(asdict(erased), indent=1))
    else:
        print_pairs(
            {
                "erased from the embedded store": f"{len(erased.resources)} resources",
                "erased from the ledger": f"{len(erased.updates)} updates",
            }
        )
        for job_id in erased.files:
            print(f"images are still kept in the folder of job {job_id}: storage.keep_days clears them")
        for literal in erased.elsewhere:
            print(f"not erased, ask the FHIR server's administrator: {literal}")
    if erased.elsewhere:
        raise typer.Exit(1)


@twin_cli.command("export")
def twin_export(
    patient_id: Annotated[
        str | None, typer.Argument(metavar="[PATIENT_ID]", help="The patient; without it all of the embedded store.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="A folder, for a Bundle file per patient; or a file FILE.ndjson.")
    ] = Path("twin-export"),
    issuer: Issuer = None,
    config: ConfigFile = None,
) -> None:
    """Write twin records as files: a FHIR Bundle per patient in a folder, or one Bundle a line in a .ndjson file.

    The names of the files name no patient. The current version of each resource is written, not its history.
    """
    from twin_scanner.app import open_twin
    from twin_scanner.files.durable_file import write_durably

    settings = read_settings(config)
    (written_file if out.suffix == LINES else written_folder)(out)
    with closing(open_twin(settings)) as target, stages("what was written is kept.") as stage:
        report, names, lines = stage("Records"), [], []
        for number, record in enumerate(_records(target, patient_id, issuer), start=1):
            text = json.dumps(record, ensure_ascii=False)
            if out.suffix == LINES:
                lines.append(text + "\n")
            else:
                out.mkdir(parents=True, exist_ok=True)
                names.append(out / f"{_record_id(record)}.json")
                write_durably(names[-1], text.encode())
            report(number, number)
    if out.suffix == LINES:
        write_durably(out, "".join(lines).encode())
    print(f"{len(names) + len(lines)} records in {out}")


@twin_cli.command("import")
def twin_import(
    source: Annotated[
        Path, typer.Argument(metavar="FILE_OR_FOLDER", help="A Bundle file, a folder of them, or a .ndjson file.")
    ],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Put exported twin records into the embedded store: what is missing is created, what is there stays as it is.

    A record of which the store holds another state is refused, the others are imported.
    """
    from twin_scanner.errors import Held

    refused: dict[str, str] = {}
    counts = {"imported": 0, "there_already": 0}
    with _store(read_settings(config)) as store, stages("what was imported is kept.") as stage:
        report, documents = stage("Records"), list(_documents(source))
        for number, (name, text) in enumerate(documents, start=1):
            try:
                written = store.import_record(_parsed(text))
                counts["imported" if written else "there_already"] += 1
            except (Rejected, Held) as error:
                refused[name] = str(error)
            report(number, len(documents))
    if as_json:
        print(json.dumps({**counts, "refused": refused}, indent=1))
    else:
        _print_counts({**counts, "refused": len(refused)}, as_json)
        for name, reason in refused.items():
            say(f"{name}: {reason}")
    if refused:
        raise typer.Exit(1)


def _which(since: datetime | None, patient: str | None, everything: bool) -> "Which | None":
    from twin_scanner.service.ledger import Which

    if (since is not None) + (patient is not None) + everything > 1:
        raise typer.BadParameter("give one of --since, --patient and --all", param_hint="--since")
    if since is None and patient is None and not everything:
        return None
    return Which(None if since is None else since.replace(tzinfo=UTC), patient)


def _print_timeline(timeline: "Timeline") -> None:
    print_pairs({"name": timeline.name, "birth date": timeline.birth_date, "sex": timeline.sex})
    rows = [
        [scan.started[:16], scan.description, one.description, f"{one.model} {one.model_hash[:12]}", one.superseded]
        for scan in timeline.scans
        for one in scan.synthetic
    ]
    print()
    print_table(["scan", "study", "synthetic series", "model", ""], rows)
    values = [
        [scan.started[:16], v.district, v.name, f"{v.value:g} {v.unit}", "" if v.change is None else f"{v.change:+g}"]
        for scan in timeline.scans
        for v in scan.values
    ]
    if values:
        print()
        print_table(["scan", "district", "measure", "value", "change"], values)


def _print_counts(counts: dict[str, int], as_json: bool) -> None:
    if as_json:
        print(json.dumps(counts, indent=1))
    else:
        print_pairs({name.replace("_", " "): str(count) for name, count in counts.items()})


def _print_report(report: "SyncReport", as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(report), indent=1))
        return
    counts = {"written": len(report.written), "there_already": len(report.there), "refused": len(report.refused)}
    _print_counts({**counts, "left": report.left, "kept_no_update": len(report.unkept)}, as_json)
    for job_id, reason in report.refused.items():
        say(f"job {job_id}: {reason}")
    if report.unkept:
        named = ", ".join(report.unkept[:NO_MORE_NAMED]) + (" ..." if len(report.unkept) > NO_MORE_NAMED else "")
        say(f"An earlier version recorded these jobs and kept no update, and nothing is left to make it from: {named}")


def _records(target: "TwinTarget", patient_id: str | None, issuer: str | None) -> "Iterator[dict[str, Any]]":
    from twin_record.embedded import EmbeddedStore

    if patient_id is not None:
        yield target.patient_record(patient_id, issuer)
    elif isinstance(target, EmbeddedStore):
        yield from target.records()
    else:
        raise Misconfigured("A FHIR server is exported one patient at a time: give a PATIENT_ID.")


def _record_id(record: dict[str, Any]) -> str:
    return next(str(e["resource"]["id"]) for e in record["entry"] if e["resource"]["resourceType"] == "List")


def _documents(source: Path) -> Iterator[tuple[str, str]]:
    """The text of each record, with the name of its place; raises Rejected where there is none."""
    files = sorted(source.glob("*.json")) if source.is_dir() else [source]
    if not files or not source.exists():
        raise Rejected(f"There is no exported record at {source}: give a Bundle file, a folder of them, or .ndjson.")
    for file in files:
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Rejected(f"{file} cannot be read as UTF-8 text: {type(error).__name__}.") from None
        if file.suffix != LINES:
            yield file.name, text
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield f"{file.name}, line {number}", line


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Rejected("It is no JSON document.") from None


@contextmanager
def _store(settings: "Settings") -> Iterator["EmbeddedStore"]:
    from twin_record.embedded import EmbeddedStore
    from twin_scanner.app import open_twin

    with closing(open_twin(settings)) as target:
        if not isinstance(target, EmbeddedStore):
            raise Misconfigured(
                "twin.url names a FHIR server, and records are imported into the embedded store alone: "
                "'twin-scanner twin sync' records there what the ledger keeps."
            )
        yield target
