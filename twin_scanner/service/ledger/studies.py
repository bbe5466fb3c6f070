"""Table ``studies``: what arrives at which node, from whom, how many instances, and whether intake went through it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from twin_scanner.errors import Rejected
from twin_scanner.service.ledger.claims import AT_ONCE, Claims
from twin_scanner.service.ledger.columns import METADATA, UtcDateTime, waiting_columns
from twin_scanner.service.ledger.database import Transaction, chunks
from twin_scanner.service.ledger.jobs import JOBS
from twin_scanner.service.ledger.moves import StudyState
from twin_scanner.service.ledger.priority import Priority, turn_at

INCOMPLETE: Final = "incomplete"
"""How the evidence of a study begins that has none."""

REAL_PET_KNOWN: Final = "real PET"
"""The event of a study that a PET of it is known that is not ours."""
_APART: Final = sa.text("kept_apart > 0")

STUDIES: Final = sa.Table(
    "studies",
    METADATA,
    sa.Column("study_id", sa.Integer, primary_key=True),
    *waiting_columns(),
    sa.Column("study_uid", sa.String(64), nullable=False),
    sa.Column("calling_ae", sa.String(16), nullable=False),
    sa.Column("received", sa.Integer, nullable=False),
    sa.Column("first_instance_at", UtcDateTime),
    sa.Column("last_instance_at", UtcDateTime),
    sa.Column("evidence", sa.String(64), nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("taken_at", UtcDateTime),
    sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
    sa.Column("turn_at", UtcDateTime),
    sa.Column("real_pet", sa.String(64), nullable=False, server_default=""),
    sa.Column("study_date", sa.String(8)),
    sa.Column("accession_number", sa.String(64)),
    sa.Column("study_description", sa.String(64)),
    sa.Column("kept_apart", sa.Integer, nullable=False, server_default="0"),
    sa.UniqueConstraint("node", "study_uid", name="uq_studies_node"),
    sa.Index("ix_studies_study", "study_uid"),
    sa.Index("ix_studies_apart", "study_id", sqlite_where=_APART, postgresql_where=_APART),
    sa.Index("ix_studies_lane", "state", "node", "turn_at", "due_at", "study_id"),
    sa.Index(
        "ix_studies_claimed",
        "node",
        sqlite_where=sa.text("lease_owner IS NOT NULL"),
        postgresql_where=sa.text("lease_owner IS NOT NULL"),
    ),
)


@dataclass(frozen=True)
class Arrival:
    """Instances of one study that came in since the last time it was recorded."""

    study_uid: str
    calling_ae: str
    count: int
    first_at: datetime
    last_at: datetime
    priority: int = Priority.ROUTINE


@dataclass(frozen=True)
class StudyFacts:
    """What its first instance says of a study, by which a hospital knows it: nothing of the patient.

    ``study_date`` is a DA (PS3.5 6.2), each is empty where the instance has none.
    """

    study_date: str = ""
    accession_number: str = ""
    study_description: str = ""


@dataclass(frozen=True)
class Study:
    """One row: a study as one node receives it; ``received`` counts every instance that was acknowledged.

    ``evidence`` says why nothing more is expected, ``real_pet`` names a PET series of the study that is not ours.
    ``study_date``, ``accession_number`` and ``study_description`` are None until an instance was read for them.
    ``kept_apart`` counts contents that came under UIDs of the study that were here already; none is translated.
    """

    study_id: int
    node: str | None
    state: StudyState
    attempts: int
    due_at: datetime | None
    waiting_since: datetime | None
    lease_owner: str | None
    begun_at: datetime | None
    reason: str
    study_uid: str
    calling_ae: str
    received: int
    first_instance_at: datetime | None
    last_instance_at: datetime | None
    evidence: str
    fingerprint: str
    taken_at: datetime | None
    priority: int
    turn_at: datetime | None
    real_pet: str
    study_date: str | None
    accession_number: str | None
    study_description: str | None
    kept_apart: int


class Studies(Claims[Study]):
    """Queries on the studies of this node; the lane that claims them is intake."""

    table = STUDIES
    key = "study_id"
    row_type = Study
    states = StudyState
    waits = (StudyState.ARRIVING,)

    def arrived(self, arrivals: Sequence[Arrival]) -> list[str]:
        """Count what came in; a study that was taken already is arriving again, a held one stays held.

        Returns those of the studies that are not described yet.
        """
        new = []
        with self._database.write() as write:
            for arrival in arrivals:
                study = self._found_or_new(write, arrival.study_uid)
                if study.study_date is None:
                    new.append(arrival.study_uid)
                begins = study.received == 0 or study.state == StudyState.TAKEN
                self._arriving(write, study)
                values = {
                    "calling_ae": arrival.calling_ae,
                    "priority": arrival.priority if begins else min(study.priority, arrival.priority),
                    "received": study.received + arrival.count,
                    "first_instance_at": study.first_instance_at or arrival.first_at,
                    "last_instance_at": arrival.last_at,
                    "due_at": None,
                }
                self._update(write, study, **values)
        return new

    def complete(self, study_uid: str, evidence: str) -> None:
        """Hand a study to intake; ``evidence`` says why nothing more is expected.

        A study that was held for being incomplete, and is so no more, goes on by itself.
        """
        with self._database.write() as write:
            study = self._found_or_new(write, study_uid)
            self._arriving(write, study)
            if study.state == StudyState.HELD and study.evidence.startswith(INCOMPLETE):
                self._move(write, study, StudyState.ARRIVING, reason="", attempts=0)
            moments = {"due_at": write.steady, "waiting_since": write.steady}
            self._update(write, study, evidence=evidence, turn_at=turn_at(write.steady, study.priority), **moments)
            self._note(write, study, "complete")

    def hold_incomplete(self, study_uid: str, evidence: str, reason: str) -> None:
        """A person must decide on a study that lacks evidence; what is being looked at, or held, stays so."""
        with self._database.write() as write:
            study = self._found_or_new(write, study_uid)
            self._arriving(write, study)
            facts = {"evidence": evidence, "reason": reason, "due_at": None}
            if study.state == StudyState.HELD:
                self._update(write, study, **facts)
            else:
                self._move(write, study, StudyState.HELD, **facts)

    def has_real_pet(self, study_uid: str, series_uid: str) -> None:
        """The study holds a PET series that is not ours, here or at a peer; the first that is known stays."""
        with self._database.write() as write:
            study = self._found_or_new(write, study_uid)
            if not study.real_pet:
                self._update(write, study, real_pet=series_uid)
                self._note(write, study, REAL_PET_KNOWN)

    def note_apart(self, study: Study, count: int) -> None:
        """So many contents came under UIDs of the study that were here already; none of them is translated."""
        with self._database.write() as write:
            self._update(write, study, kept_apart=count)
            self._note(write, study, "kept apart", count=count)

    def describe(self, study_uid: str, facts: StudyFacts) -> None:
        """Keep by what the hospital knows the study."""
        with self._database.write() as write:
            mine = (STUDIES.c.node == self._database.node, STUDIES.c.study_uid == study_uid)
            write.execute(STUDIES.update().where(*mine).values(**vars(facts)))

    def forget_facts(self, job_ids: Collection[str]) -> None:
        """Take accession number and description out of the studies of these jobs, on every node, for good."""
        with self._database.write() as write:
            for some in chunks(list(job_ids)):
                theirs = sa.select(JOBS.c.study_uid).where(JOBS.c.job_id.in_(some))
                gone = {"accession_number": "", "study_description": ""}
                write.execute(STUDIES.update().where(STUDIES.c.study_uid.in_(theirs)).values(**gone))

    def claim(self) -> Study | None:
        """The complete study whose turn it is, claimed for the calling thread."""
        return self._claim()

    def taken(self, study: Study, fingerprint: str) -> None:
        """Intake went through the files that had this fingerprint; what has arrived since is looked at again."""
        with self._database.write() as write:
            current = self._mine(write, study)
            facts: dict[str, Any] = {"fingerprint": fingerprint, "attempts": 0, "reason": "", "taken_at": write.now}
            if current.received == study.received:
                self._move(write, study, StudyState.TAKEN, due_at=None, **facts)
            else:
                self._update(write, study, lease_owner=None, **facts)

    def hold(self, study: Study, reason: str, held_for: str = "") -> None:
        """Keep the study's files until a person releases it."""
        with self._database.write() as write:
            self._mine(write, study)
            self._move(write, study, StudyState.HELD, due_at=None, reason=reason)

    def reject(self, study: Study, reason: str) -> None:
        """Intake rejects by a job with its reason: a study that cannot even get there is held."""
        self.hold(study, reason)

    def fail(self, study: Study, reason: str) -> None:
        """A fault of ours is no reason to lose a study: it is held."""
        self.hold(study, reason)

    def release(self, study_uid: str) -> Study:
        """Let intake look at a held study again; raises Rejected where it is not held."""
        with self._database.write() as write:
            study = self._find(write, study_uid)
            if study is None or study.state != StudyState.HELD:
                raise Rejected(f"Study {study_uid} is not held on node {self._database.node}: nothing to release.")
            self._move(write, study, StudyState.ARRIVING, due_at=AT_ONCE, attempts=0, reason="")
            write.note("studies", study.study_id, "released")
            return study

    def of_node(self, state: StudyState) -> list[Study]:
        """This node's studies in one state."""
        columns = self.table.c
        query = sa.select(self.table).where(columns.state == state.value, columns.node == self._database.node)
        with self._database.read() as connection:
            return [self._row(row) for row in connection.execute(query.order_by(columns.study_id))]

    def find(self, study_uid: str) -> Study | None:
        """The study as this node has it."""
        with self._database.read() as connection:
            found = connection.execute(self._of(study_uid)).one_or_none()
            return None if found is None else self._row(found)

    def to_clear(self, study_uids: Sequence[str], before: datetime) -> list[Study]:
        """Those of these studies in the spool that were taken, complete before a steady moment, and that no job needs.

        A job of this node needs its study until it is cleared, one of another node until it has ended: then that node
        has made of its own copy what is to be made.
        """
        columns, ours = STUDIES.c, JOBS.c.node == self._database.node
        needs = sa.or_(sa.and_(ours, JOBS.c.cleared_at.is_(None)), sa.and_(~ours, JOBS.c.ended_at.is_(None)))
        needed = sa.exists().where(JOBS.c.study_uid == columns.study_uid, needs)
        at_rest = (columns.node == self._database.node, columns.state == StudyState.TAKEN.value, ~needed)
        # Where this node has jobs of the study, their time is the study's; else it is a copy, or of an earlier version.
        jobs_here = sa.exists().where(JOBS.c.study_uid == columns.study_uid, ours)
        long_ago = sa.or_(jobs_here, columns.waiting_since.is_(None), columns.waiting_since < before)
        found: list[Study] = []
        for some in chunks(study_uids):
            with self._database.read() as connection:
                query = sa.select(STUDIES).where(columns.study_uid.in_(some), *at_rest, long_ago)
                found += [self._row(row) for row in connection.execute(query)]
        return found

    def cleared(self, study: Study) -> None:
        """The study left the spool."""
        with self._database.write() as write:
            self._update(write, study, kept_apart=0)
            self._note(write, study, "cleared")

    def adopt(self, study_uids: Sequence[str]) -> None:
        """Studies that an earlier version left without a node, and whose files lie here, are this node's.

        Where one of them has come again meanwhile, the row of then stays without a node.
        """
        columns = self.table.c
        with self._database.write() as write:
            here = sa.select(columns.study_uid).where(columns.node == self._database.node)
            ours = (columns.node.is_(None), columns.study_uid.in_(study_uids), columns.study_uid.not_in(here))
            write.execute(self.table.update().where(*ours).values(node=self._database.node))

    def _of(self, study_uid: str) -> sa.Select[Any]:
        columns = self.table.c
        return sa.select(self.table).where(columns.node == self._database.node, columns.study_uid == study_uid)

    def _find(self, write: Transaction, study_uid: str) -> Study | None:
        found = write.execute(self._of(study_uid).with_for_update()).one_or_none()
        return None if found is None else self._row(found)

    def _found_or_new(self, write: Transaction, study_uid: str) -> Study:
        found = self._find(write, study_uid)
        if found is not None:
            return found
        values = {
            "node": self._database.node,
            "state": StudyState.ARRIVING.value,
            "attempts": 0,
            "reason": "",
            "study_uid": study_uid,
            "calling_ae": "",
            "received": 0,
            "evidence": "",
            "fingerprint": "",
            "priority": int(Priority.ROUTINE),
            "turn_at": write.steady,
            "real_pet": "",
        }
        write.execute(self.table.insert().values(**values))
        study = self._find(write, study_uid)
        assert study is not None
        write.note("studies", study.study_id, "arriving")
        return study

    def _order(self) -> tuple[sa.ColumnElement[Any], ...]:
        return (STUDIES.c.turn_at, *super()._order())

    def _arriving(self, write: Transaction, study: Study) -> None:
        if study.state == StudyState.TAKEN:
            self._move(write, study, StudyState.ARRIVING)
