"""Table ``leases``: what one process in the whole installation may do at a time, and which process a node is.

Nothing is decided by a time: a lease's holder renews it by counting ``beat`` up; it is given to another only when that
one has itself seen the same beat for ``lease_s`` seconds of its own monotonic clock. A look that comes late (a stopped
process, a sleeping machine, a database that was away) counts for two beats at most. ``renewed_at`` is for people.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from twin_scanner.errors import Misconfigured
from twin_scanner.service.ledger.claims import LeaseLost
from twin_scanner.service.ledger.columns import METADATA, UtcDateTime
from twin_scanner.service.ledger.database import Database, Transaction

BEATS_A_LEASE: Final = 10
"""A holder may miss several renewals before its lease is taken for dead."""
LEASES: Final = sa.Table(
    "leases",
    METADATA,
    sa.Column("name", sa.String(96), primary_key=True),
    sa.Column("node", sa.String(64)),
    sa.Column("owner", sa.String(128)),
    sa.Column("holder", sa.String(64), nullable=False),
    sa.Column("beat", sa.Integer, nullable=False),
    sa.Column("taken_at", UtcDateTime),
    sa.Column("renewed_at", UtcDateTime),
)


@dataclass(frozen=True)
class Lease:
    """A lease that this process holds; the timer renews it."""

    name: str
    owner: str


@dataclass(frozen=True)
class _Sight:
    owner: str
    beat: int
    age_s: float
    looked_s: float


class Leases:
    """Takes, renews and gives back; what others hold is watched at every beat."""

    def __init__(self, database: Database, lease_s: float) -> None:
        self._database = database
        self._lease_s = lease_s
        self._lock = threading.Lock()
        self._seen: dict[str, _Sight] = {}
        self._held: dict[str, Lease] = {}

    @property
    def beat_s(self) -> float:
        """How often ``beat`` is to be called."""
        return self._lease_s / BEATS_A_LEASE

    def take(self, name: str, owner: str, holder: str = "") -> Lease | None:
        """The lease, or None while another owner has it; ``owner`` names a task of this process.

        ``holder`` names what outlives a process (a storage folder whose lock we hold): an owner with the same holder
        is dead.
        """
        lease = Lease(name, f"{self._database.boot}/{owner}")
        with self._database.write() as write:
            write.lock(f"lease {name}")
            row = write.execute(sa.select(LEASES).where(LEASES.c.name == name)).one_or_none()
            values: dict[str, object] = {"node": self._database.node, "owner": lease.owner, "holder": holder}
            values |= {"taken_at": write.now, "renewed_at": write.now}
            if row is None:
                write.execute(LEASES.insert().values(name=name, beat=1, **values))
            else:
                mine = row.owner == lease.owner or (holder != "" and row.holder == holder)
                if row.owner is not None and not mine and self._look(row) < self._lease_s:
                    return None
                write.execute(LEASES.update().where(LEASES.c.name == name).values(beat=row.beat + 1, **values))
            write.note("leases", name, "taken")
        with self._lock:
            self._held[name] = lease
        return lease

    def take_node(self, holder: str, sleep: Callable[[float], None] = time.sleep) -> Lease:
        """The lease that makes this process its node.

        After a crash on another storage folder it waits until that one is known to be dead; raises Misconfigured
        where it lives.
        """
        name = node_lease(self._database.node)
        while (lease := self.take(name, "node", holder)) is None:
            seen = self._seen[name]
            sleep(self.beat_s)
            with self._database.read() as connection:
                row = connection.execute(sa.select(LEASES).where(LEASES.c.name == name)).one()
            if row.owner is not None and (row.owner, row.beat) != (seen.owner, seen.beat):
                raise Misconfigured(
                    f"Another scanner named {self._database.node} runs on this ledger with a storage folder of its "
                    "own: give each its own node.name."
                )
        return lease

    def renew(self, lease: Lease) -> None:
        """Say that the owner lives; raises LeaseLost where another one has it by now."""
        with self._database.write() as write:
            if not self._renewed(write, lease):
                raise LeaseLost(f"The lease '{lease.name}' was taken over: stop what it was for.")

    def give_back(self, lease: Lease) -> None:
        """Let another have it."""
        with self._lock:
            self._held.pop(lease.name, None)
        with self._database.write() as write:
            write.execute(_of(lease).values(owner=None))
            write.note("leases", lease.name, "given back")

    def beat(self) -> list[Lease]:
        """Renew all that this process holds, look at what others hold, and return what was lost."""
        with self._lock:
            held = list(self._held.values())
        with self._database.write() as write:
            lost = [lease for lease in held if not self._renewed(write, lease)]
            for row in write.execute(sa.select(LEASES).where(LEASES.c.owner.is_not(None))):
                self._look(row)
        with self._lock:
            for lease in lost:
                self._held.pop(lease.name, None)
        return lost

    def free_earlier(self) -> None:
        """Free what earlier processes of this node held: they are dead, for this one is the node."""
        earlier = (LEASES.c.node == self._database.node, LEASES.c.owner.is_not(None))
        theirs = LEASES.c.owner.not_like(f"{self._database.boot}/%")
        with self._database.write() as write:
            write.execute(LEASES.update().where(*earlier, theirs).values(owner=None))

    def _renewed(self, write: Transaction, lease: Lease) -> bool:
        renewed = _of(lease).values(beat=LEASES.c.beat + 1, renewed_at=write.now)
        return write.execute(renewed).rowcount == 1

    def _look(self, row: sa.Row[tuple[object, ...]]) -> float:
        """For how many seconds this process has seen the row's beat stand still."""
        now_s = self._database.monotonic_s()
        with self._lock:
            last = self._seen.get(row.name)
            age_s = 0.0
            if last is not None and (last.owner, last.beat) == (row.owner, row.beat):
                age_s = last.age_s + min(now_s - last.looked_s, 2 * self.beat_s)
            self._seen[row.name] = _Sight(row.owner, row.beat, age_s, now_s)
            return age_s


def node_lease(node: str) -> str:
    """The name of the lease that says which process a node is."""
    return f"node {node}"


def _of(lease: Lease) -> sa.Update:
    return LEASES.update().where(LEASES.c.name == lease.name, LEASES.c.owner == lease.owner)
