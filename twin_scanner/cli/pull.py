"""The verb `pull`: studies from a PACS, into a folder for training or to the node for translation."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twin_scanner.cli.options import AsJson, ConfigFile, read_settings, written_folder
from twin_scanner.cli.output import log_from, print_table, say, stages
from twin_scanner.errors import Misconfigured, Transient

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from dicom_node.peers import Peer
    from dicom_node.query import FoundStudy, Query, SeriesCount
    from dicom_node.retrieve import Pace, WantedSeries
    from twin_scanner.progress import Progress
    from twin_scanner.settings import Settings


@dataclass(frozen=True)
class PulledStudy:
    """A study that was found, and what is wanted of it; no patient is named."""

    study_uid: str
    study_date: str
    series: dict[str, int]
    """Instances that are still to be fetched, by series."""
    present: int
    """Instances that are there already."""


def pull(
    patient: Annotated[str, typer.Option("--patient", help="All studies of this Patient ID.")] = "",
    study: Annotated[str, typer.Option("--study", help="The study of this Study Instance UID.")] = "",
    accession: Annotated[str, typer.Option("--accession", help="The studies of this Accession Number.")] = "",
    since: Annotated[
        datetime | None, typer.Option("--since", formats=["%Y-%m-%d"], help="All studies since this day.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Fetch CT and PET into this folder by C-GET, for `prepare`; without it the PACS sends the CT to the "
            "node by C-MOVE.",
            file_okay=False,
        ),
    ] = None,
    peer: Annotated[
        str | None, typer.Option("--peer", help="The peer's name; default: the first one with the role query.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.1, help="Fetch no more instances a second than this.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The number of studies at most.")] = 1000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be fetched.")] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Fetch studies from a PACS: into a folder, or to the node. What is there already is not fetched again."""
    from dicom_node.query import querying
    from dicom_node.retrieve import Pace
    from twin_scanner.settings import Folders

    settings = read_settings(config)
    log_from("ERROR")
    wanted = _wanted(patient, study, accession, since)
    source, calling_ae = _source(settings, peer), settings.node.ae_title
    if out is not None and not dry_run:
        written_folder(out)
    with stages("what came is kept; start it again to go on.") as stage:
        ask = partial(querying, source, calling_ae=calling_ae)
        with ask() as query:
            found = query.studies(wanted)
        present = partial(_present, out if out is not None else Folders(settings.storage.folder).spool)
        modalities = ("CT", "PT") if out is not None else ("CT",)
        plans = _plan(ask, found, modalities, present, limit, stage("Studies"))
        if not dry_run:
            _fetch(settings, source, [series for _, some in plans for series in some], out, Pace(rate), stage("Images"))
    _print([pulled for pulled, _ in plans], as_json)
    if len(plans) == limit < len(found):
        say(f"{len(found)} studies match; the first {limit} were taken (--limit).")


def _wanted(patient: str, study: str, accession: str, since: datetime | None) -> dict[str, str]:
    """The matching keys; raises Misconfigured unless one thing says which studies are meant."""
    keys = {"PatientID": patient, "StudyInstanceUID": study, "AccessionNumber": accession}
    if since is not None:
        keys["StudyDate"] = f"{since:%Y%m%d}-"
    given = {keyword: value for keyword, value in keys.items() if value}
    if not given:
        raise Misconfigured("pull needs to know which studies: give --patient, --study, --accession or --since.")
    return given


def _source(settings: "Settings", name: str | None) -> "Peer":
    from dicom_node.peers import Role
    from twin_scanner.app import peer_of

    able = [peer for peer in settings.known_peers if peer.host and Role.QUERY in peer.roles]
    for peer in able:
        if name in (None, peer.name):
            return peer_of(settings, peer)
    known = ", ".join(peer.name for peer in able) or "none"
    raise Misconfigured(f"There is no peer '{name or ''}' with a host and the role query: such peers are {known}.")


def _present(folder: Path, study_uid: str, series_uid: str) -> frozenset[str]:
    """The instances of a series that lie in a folder laid out as a spool, which the node's own may be."""
    return frozenset(file.stem for file in (folder / study_uid / series_uid).glob("*.dcm"))


def _plan(
    ask: "Callable[[], AbstractContextManager[Query]]",
    found: "Sequence[FoundStudy]",
    modalities: Sequence[str],
    present: Callable[[str, str], frozenset[str]],
    limit: int,
    progress: "Progress",
) -> "list[tuple[PulledStudy, list[WantedSeries]]]":
    """What is to be fetched of each study that holds CT, the oldest first; an association, and its limits, for each."""
    plans: list[tuple[PulledStudy, list[WantedSeries]]] = []
    for number, study in enumerate(found, start=1):
        progress(number, len(found))
        if len(plans) == limit:
            break
        with ask() as query:
            series = [one for one in query.series(study.study_uid) if one.modality in modalities and one.instances]
            if any(one.modality == "CT" for one in series):
                plans.append(_plan_of(query, study, series, present))
    return plans


def _plan_of(
    query: "Query",
    study: "FoundStudy",
    series: "Sequence[SeriesCount]",
    present: Callable[[str, str], frozenset[str]],
) -> "tuple[PulledStudy, list[WantedSeries]]":
    """One study: what of its series is not there yet."""
    from dicom_node.retrieve import WantedSeries, missing_of

    wanted, there = [], 0
    for one in series:
        whole = WantedSeries(study.study_uid, one.series_uid, query.instances(study.study_uid, one.series_uid))
        missing = missing_of(whole, present(study.study_uid, one.series_uid))
        there += len(whole.instances) - len(missing.instances)
        if missing.instances:
            wanted.append(missing)
    counts = {one.series_uid: len(one.instances) for one in wanted}
    return PulledStudy(study.study_uid, study.study_date, counts, there), wanted


def _fetch(
    settings: "Settings",
    source: "Peer",
    wanted: "Sequence[WantedSeries]",
    out: Path | None,
    pace: "Pace",
    progress: "Progress",
) -> None:
    """Fetch all of it; raises Transient where something did not come."""
    from dicom_node.retrieve import get_series, move_series
    from dicom_node.spool import Spool

    total = sum(len(series.instances) for series in wanted)
    done = 0

    def came(count: int = 1) -> None:
        nonlocal done
        done += count
        progress(min(done, total), total)

    if not wanted:
        return
    if out is None:
        ae_title = settings.node.ae_title
        move_series(source, wanted, ae_title, calling_ae=ae_title, pace=pace, on_instances=came)
        return
    into = Spool(out)
    get_series(source, wanted, into, calling_ae=settings.node.ae_title, pace=pace, on_instance=came)
    missing = sum(len(one.instances - _present(out, one.study_uid, one.series_uid)) for one in wanted)
    if missing:
        raise Transient(f"{source} has listed {missing} instances that it did not send: start the pull again.")


def _print(studies: Sequence[PulledStudy], as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(study) for study in studies], indent=1))
        return
    rows = [
        (one.study_uid, one.study_date, str(len(one.series)), str(sum(one.series.values())), str(one.present))
        for one in studies
    ]
    print_table(("study", "date", "series", "instances", "there already"), rows)
