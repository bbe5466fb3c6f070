"""What an update and a timeline cost in the embedded store, with 2,000 patients of 5 studies instead of 20."""

import re
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from benchmarks.figures import Figure, at_most
from twin_record.embedded import EmbeddedStore
from twin_record.stored import IDENTIFIER, RESOURCE
from twin_record.timeline import timeline_of
from twin_record.update import DistrictValues, SeriesEntry, TwinSite, TwinUpdate
from twin_scanner.progress import Progress

NAME: Final = "twin"
FEW: Final = 20
MANY: Final = 2000
STUDIES: Final = 5
SLICES: Final = 300
"""Of the CT and of the PET, whose instances are all listed."""
DISTRICTS: Final = ("head", "trunk", "arms", "legs")
REPEATS: Final = 9
GOAL_MS: Final = 50.0
SLOWER_GOAL_MS: Final = 5.0
STUDY_GOAL_KB: Final = 200.0
SITE: Final = TwinSite(patient_identifier_system="urn:oid:2.999.1")
FIRST: Final = datetime(2026, 1, 1, tzinfo=UTC)


def measure(progress: Progress = lambda done, total: None, few: int = FEW, many: int = MANY) -> list[Figure]:
    """Both stores, their updates and timelines in turns, and how much slower the large one is."""
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "few.sqlite", Path(folder) / "many.sqlite"
        _fill(small, few)
        progress(1, 3)
        _fill(large, many)
        progress(2, 3)
        study_kb = (large.stat().st_size - small.stat().st_size) / (many - few) / STUDIES / 1000
        with closing(EmbeddedStore(small, SITE)) as one, closing(EmbeddedStore(large, SITE)) as other:
            times = [_times_ms(store) for _ in range(REPEATS) for store in (one, other)]
        progress(3, 3)
    (update_few, timeline_few), (update_many, timeline_many) = (_best(times[turn::2]) for turn in (0, 1))
    size = f"{many:,} patients of {STUDIES} studies"
    return [
        at_most(NAME, f"an update, {size}", update_many, GOAL_MS, "ms"),
        at_most(NAME, f"a timeline, {size}", timeline_many, GOAL_MS, "ms"),
        *(
            at_most(NAME, f"{what}, {size} against {few}: slower by", max(0.0, slower), SLOWER_GOAL_MS, "ms")
            for what, slower in (
                ("an update", update_many - update_few),
                ("a timeline", timeline_many - timeline_few),
            )
        ),
        at_most(
            NAME,
            f"one study of {2 * SLICES} instances and {4 * len(DISTRICTS)} values in the file",
            study_kb,
            STUDY_GOAL_KB,
            "kB",
        ),
    ]


def _best(times: list[tuple[float, float]]) -> tuple[float, float]:
    """Each step's best time: whoever else uses the machine slows most of them."""
    return min(update for update, _ in times), min(timeline for _, timeline in times)


def _times_ms(store: EmbeddedStore) -> tuple[float, float]:
    """What one more study of a patient with 5 costs, and then the patient's timeline."""
    *before, last = updates(f"P-{uuid.uuid4().hex}", STUDIES + 1)
    for update in before:
        store.record(update)
    begin_s = time.perf_counter()
    store.record(last)
    recorded_s = time.perf_counter()
    timeline = timeline_of(store.patient_record(last.patient_id, None))
    ended_s = time.perf_counter()
    assert len(timeline.scans) == STUDIES + 1 and timeline.scans[-1].values
    return 1000 * (recorded_s - begin_s), 1000 * (ended_s - recorded_s)


def _fill(file: Path, patients: int) -> None:
    """A store of so many patients: one is recorded, the others are copies of its rows under names of their own."""
    with closing(EmbeddedStore(file, SITE)) as store:
        for update in updates("P-first", STUDIES):
            store.record(update)
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        resources = [dict(row._mapping) for row in connection.execute(sa.select(RESOURCE))]
        identifiers = [dict(row._mapping) for row in connection.execute(sa.select(IDENTIFIER))]
        own = {row["id"] for row in resources if row["type"] != "Device"}
        own |= {row["value"] for row in identifiers if row["type"] != "Device"}
        split = re.compile("(" + "|".join(map(re.escape, sorted(own, key=len, reverse=True))) + ")")
        parts = [(row, split.split(row["content"])) for row in resources if row["type"] != "Device"]
        keys = [row for row in identifiers if row["type"] != "Device"]
        for number in range(1, patients):
            connection.execute(sa.insert(RESOURCE), list(_copies(parts, own, number)))
            renamed = [{**row, "id": f"{row['id']}-{number}", "value": f"{row['value']}-{number}"} for row in keys]
            connection.execute(sa.insert(IDENTIFIER), renamed)
    engine.dispose()


def _copies(parts: list[tuple[dict[str, Any], list[str]]], own: set[str], number: int) -> Iterator[dict[str, Any]]:
    for row, pieces in parts:
        content = "".join(f"{piece}-{number}" if piece in own else piece for piece in pieces)
        yield {**row, "id": f"{row['id']}-{number}", "content": content}


def updates(patient_id: str, count: int) -> list[TwinUpdate]:
    """So many studies of one patient, a month apart."""
    first = TwinUpdate(
        patient_id=patient_id,
        issuer_of_patient_id=None,
        patient_name="Doe^Jane",
        birth_date="19480229",
        sex="F",
        study_uid=_uid(),
        accession_number="A-1",
        study_description="Whole-body staging",
        study_date="20260101",
        study_time="101500",
        timezone_offset="+0000",
        source_series=_series("CT", "1.2.840.10008.5.1.4.1.1.2"),
        pet_series=_series("PT", "1.2.840.10008.5.1.4.1.1.128"),
        model_name="benchmark",
        model_hash="a" * 64,
        plan_hash="b" * 64,
        segmenter="landmarks",
        segmenter_hash="c" * 64,
        software_version="0",
        device_serial_number="TS-1",
        made_at=FIRST,
    )
    return [
        replace(
            first,
            study_uid=_uid(),
            study_date=f"2026{month + 1:02}01",
            source_series=_series("CT", first.source_series.sop_class_uid),
            pet_series=_series("PT", first.pet_series.sop_class_uid),
            made_at=FIRST + timedelta(days=31 * month),
            districts=tuple(
                DistrictValues(name, ("benchmark", "99TS", name), 1000.0 + month, 1.0 + month, 2.0 + month, 1.5 + month)
                for name in DISTRICTS
            ),
        )
        for month in range(count)
    ]


def _series(modality: str, sop_class_uid: str) -> SeriesEntry:
    return SeriesEntry(_uid(), modality, sop_class_uid, tuple(_uid() for _ in range(SLICES)), "benchmark", 1, "CHEST")


def _uid() -> str:
    return f"2.25.{uuid.uuid4().int}"
