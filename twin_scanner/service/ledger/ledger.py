"""The ledger: the tables together, the moves that concern several of them, and which process is a node."""

import getpass
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime

from twin_scanner.errors import Defect, Rejected, Transient
from twin_scanner.service.ledger.claims import Tokens
from twin_scanner.service.ledger.database import Database, chunks, utc_now
from twin_scanner.service.ledger.deliveries import Deliveries, Delivery, Destination
from twin_scanner.service.ledger.events import Events
from twin_scanner.service.ledger.jobs import Job, Jobs
from twin_scanner.service.ledger.leases import Leases, node_lease
from twin_scanner.service.ledger.measures import Measures
from twin_scanner.service.ledger.migrate import check_migrated
from twin_scanner.service.ledger.moves import DeliveryState, ResendReason, State
from twin_scanner.service.ledger.objects import IssuedSeries, Objects
from twin_scanner.service.ledger.overview import Overview
from twin_scanner.service.ledger.results import Result, Results
from twin_scanner.service.ledger.runs import Runs
from twin_scanner.service.ledger.sessions import Sessions
from twin_scanner.service.ledger.studies import Studies
from twin_scanner.service.ledger.updates import Updates
from twin_scanner.service.ledger.users import Users


class NodeLost(Defect):
    """Another process is this node now: this one must end."""


@dataclass(frozen=True)
class Rendered:
    """What a render has made, and where it goes."""

    pet_series_uid: str
    model_hash: str
    issued: tuple[IssuedSeries, ...]
    result: Result
    destinations: tuple[Destination, ...]


class Ledger:
    """A ledger that is there and of this version; opening one creates and changes nothing.

    ``node`` is whose files the caller sees and whose chain of events it writes. Raises Rejected where there is no
    ledger or it is of another version, Misconfigured, Transient or Defect where it cannot be opened.
    """

    def __init__(
        self,
        url: str,
        *,
        node: str,
        who: str | None = None,
        now: Callable[[], datetime] = utc_now,
        monotonic_s: Callable[[], float] = time.monotonic,
        lease_s: float = 120.0,
    ) -> None:
        self.database = Database(url, node=node, who=who or _login(), now=now, monotonic_s=monotonic_s)
        with ExitStack() as failing:
            failing.callback(self.database.close)
            check_migrated(self.database.engine)
            failing.pop_all()
        tokens = Tokens(f"{node}/{self.database.boot}")
        self.studies = Studies(self.database, tokens)
        self.jobs = Jobs(self.database, tokens)
        self.deliveries = Deliveries(self.database, tokens, self.jobs)
        self.objects = Objects(self.database)
        self.results = Results(self.database)
        self.updates = Updates(self.database)
        self.events = Events(self.database)
        self.overview = Overview(self.database, self.studies, self.jobs, self.deliveries, self.events)
        self.leases = Leases(self.database, lease_s)
        self.measures = Measures(self.database)
        self.runs = Runs(self.database)
        self.users = Users(self.database)
        self.sessions = Sessions(self.database)

    def close(self) -> None:
        """Give the connections back."""
        self.database.close()

    def enter(self, holder: str) -> None:
        """Make this process its node, and free what an earlier one held; ``holder`` names the storage folder it locks.

        Raises Misconfigured where another scanner of the same name runs.
        """
        self.leases.take_node(holder)
        self.leases.free_earlier()
        self.runs.interrupt_earlier()
        for rows in (self.studies, self.jobs, self.deliveries):
            rows.free()
            rows.wake_all()

    def beat(self) -> None:
        """Renew leases and free claims that nobody holds; raises NodeLost where this process is its node no more."""
        lost = self.leases.beat()
        if any(lease.name == node_lease(self.database.node) for lease in lost):
            raise NodeLost(f"Another scanner took the name {self.database.node} over: give each its own node.name.")
        for rows in (self.studies, self.jobs, self.deliveries):
            rows.free()

    def check_usable(self) -> None:
        """Raise Transient where the last transaction failed: nothing is to be acknowledged then."""
        if self.database.fault is not None:
            raise Transient(self.database.fault)

    def rendered(self, job: Job, render: Rendered) -> None:
        """The job's objects are safely on disk: what was issued is known before the first of them leaves."""
        facts = {"pet_series_uid": render.pet_series_uid, "model_hash": render.model_hash, "attempts": 0, "reason": ""}
        with self.database.write() as write:
            self.jobs.move(write, self.jobs.mine(write, job), State.RENDERED, **facts)
            self.objects.add(write, job.job_id, render.issued)
            self.results.put(write, job.job_id, render.result)
            self.deliveries.open(write, job, render.destinations)
            self.deliveries.wake_replaced(write, job)

    def recorded(self, delivery: Delivery, target: str) -> None:
        """The twin record at this target holds what the delivery's job adds to it."""
        with self.database.write() as write:
            self.deliveries.confirm(write, delivery, "FHIR transaction")
            self.updates.note_recorded(write, delivery.job_id, target)

    def saw(self, of_table: str, row_id: str, what: str = "seen") -> None:
        """Note that a person looked: ``of_table`` says at what, ``row_id`` is a key of ours, never an identity."""
        with self.database.write() as write:
            write.note(of_table, row_id, what)

    def saw_each(self, of_table: str, row_ids: Sequence[str], what: str) -> None:
        """The same of many rows at once."""
        with self.database.write() as write:
            for row_id in row_ids:
                write.note(of_table, row_id, what)

    def note(self, job_id: str, what: str) -> None:
        """Note in the job's events what happened to it, whatever its state."""
        with self.database.write() as write:
            write.note("jobs", job_id, what)

    def alarm(self, job_id: str, error: str) -> None:
        """Note in the job's events that a person must look at it, whatever its state."""
        with self.database.write() as write:
            write.note("jobs", job_id, "alarm", error=error)

    def retry(self, beginning: str) -> Job:
        """Let a failed or rejected job, or its failed deliveries, go on; raises Rejected where nothing has failed."""
        job = self.jobs.find(beginning)
        with self.database.write() as write:
            current = self.jobs.locked(write, job.job_id)
            failed = self.deliveries.put_on(write, job.job_id, DeliveryState.FAILED)
            given_up = current.state in (State.FAILED, State.REJECTED)
            if not given_up and not failed:
                raise Rejected(f"Job {job.job_id} is {current.state}: only a failed or rejected job can be retried.")
            if not current.series_uid:
                raise Rejected(f"Job {job.job_id} has no CT to try again with: send the study again.")
            if current.cleared_at is not None:
                raise Rejected(f"The files of job {job.job_id} were cleared: send the study again.")
            if given_up:
                self.jobs.check_newest(write, current)
                if current.state == State.REJECTED:
                    self.deliveries.put_on(write, job.job_id, DeliveryState.HELD)
                self.jobs.put_on(write, current)
            write.note("jobs", job.job_id, "retried")
            return self.jobs.locked(write, job.job_id)

    def retry_all(self, reason: str = "") -> list[Job]:
        """Retry every failed or rejected job that can be, or those whose reason contains ``reason``."""
        retried = []
        for job in self.jobs.given_up(reason):
            with suppress(Rejected):
                retried.append(self.retry(job.job_id))
        return retried

    def release(self, beginning: str) -> Job:
        """Let a held job, or its held deliveries, go on; raises Rejected where nothing of it is held."""
        job = self.jobs.find(beginning)
        with self.database.write() as write:
            current = self.jobs.locked(write, job.job_id)
            held = self.deliveries.put_on(write, job.job_id, DeliveryState.HELD)
            if current.state == State.HELD:
                self.jobs.put_on(write, current)
            elif not held:
                raise Rejected(f"Job {job.job_id} is {current.state}, nothing of it is held: there is no release.")
            write.note("jobs", job.job_id, "released")
            return self.jobs.locked(write, job.job_id)

    def release_without(self, beginning: str, destination: str) -> Job:
        """Let a job be done without a destination that has not got its result and never will.

        Raises Rejected where no delivery of the job to it is held or has failed.
        """
        job = self.jobs.find(beginning)
        with self.database.write() as write:
            current = self.jobs.locked(write, job.job_id)
            if not self.deliveries.release_without(write, job.job_id, destination):
                raise Rejected(
                    f"Job {job.job_id} has no delivery to '{destination}' that is held or has failed: "
                    "'twin-scanner jobs show' lists them."
                )
            if current.stood_at == State.RENDERED:
                self.jobs.put_on(write, current)
            self.deliveries.settle(write, job.job_id)
            write.note("jobs", job.job_id, "released")
            return self.jobs.locked(write, job.job_id)

    def resend(self, beginning: str, destination: str, reason: ResendReason) -> Job:
        """Let what a destination has confirmed of a job go there again, as the same files; the reason is in the events.

        Raises Rejected where the files were cleared, a later revision has replaced the PET, or nothing was confirmed.
        """
        job = self.jobs.find(beginning)
        with self.database.write() as write:
            self.jobs.check_not_replaced(write, job)
            current = self.jobs.locked(write, job.job_id)
            if current.cleared_at is not None:
                raise Rejected(f"The files of job {job.job_id} were cleared: send the study again.")
            self.deliveries.send_again(write, current, destination, reason)
            if current.state == State.DONE:
                self.jobs.move(write, current, State.RENDERED)
            return self.jobs.locked(write, job.job_id)

    def adopt(self, job_ids: Sequence[str], study_uids: Sequence[str]) -> None:
        """Rows of an earlier version name no node: those whose files lie here are this node's."""
        for some in chunks(job_ids):
            self.jobs.adopt(some)
        self.deliveries.adopt()
        for some in chunks(study_uids):
            self.studies.adopt(some)
        for rows in (self.studies, self.jobs, self.deliveries):
            rows.wake_all()


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
