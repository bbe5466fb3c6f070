"""The ledger: the one truth of the service, on SQLite or PostgreSQL; one file per table, with its queries."""

from twin_scanner.service.ledger.claims import LeaseLost
from twin_scanner.service.ledger.commitments import Commitment
from twin_scanner.service.ledger.database import utc_now
from twin_scanner.service.ledger.deliveries import REPLACED, Delivery, Destination, Outcome
from twin_scanner.service.ledger.jobs import Job, NewJob
from twin_scanner.service.ledger.leases import Lease
from twin_scanner.service.ledger.ledger import Ledger, Rendered
from twin_scanner.service.ledger.migrate import MigrationState, migrate, migration_state
from twin_scanner.service.ledger.moves import DeliveryState, RunState, State, StudyState
from twin_scanner.service.ledger.objects import IssuedSeries
from twin_scanner.service.ledger.priority import Priority
from twin_scanner.service.ledger.results import Result
from twin_scanner.service.ledger.runs import ScheduledRun
from twin_scanner.service.ledger.studies import Arrival, Study

__all__ = [
    "REPLACED",
    "Arrival",
    "Commitment",
    "Delivery",
    "DeliveryState",
    "Destination",
    "IssuedSeries",
    "Job",
    "Lease",
    "LeaseLost",
    "Ledger",
    "MigrationState",
    "NewJob",
    "Outcome",
    "Priority",
    "Rendered",
    "Result",
    "RunState",
    "ScheduledRun",
    "State",
    "Study",
    "StudyState",
    "migrate",
    "migration_state",
    "utc_now",
]
