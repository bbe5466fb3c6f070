"""The ledger: the one truth of the service, on SQLite or PostgreSQL; one file per table, with its queries."""

from twin_scanner.service.ledger.claims import LeaseLost
from twin_scanner.service.ledger.commitments import Commitment
from twin_scanner.service.ledger.database import acting_as, utc_now
from twin_scanner.service.ledger.deliveries import ERASED, REPLACED, RESEND, Delivery, Destination, Outcome
from twin_scanner.service.ledger.events import Break, Chain, Event
from twin_scanner.service.ledger.jobs import IDENTITY, OTHER_PATIENT, OUTSIDE_TRAINING, Job, NewJob, is_replaced
from twin_scanner.service.ledger.leases import Lease
from twin_scanner.service.ledger.ledger import Ledger, Rendered
from twin_scanner.service.ledger.measures import BUCKETS_S, Measures, Queue, StageTimes
from twin_scanner.service.ledger.migrate import MigrationState, migrate, migration_state
from twin_scanner.service.ledger.moves import DeliveryState, ResendReason, RunState, State, StudyState
from twin_scanner.service.ledger.objects import IssuedSeries
from twin_scanner.service.ledger.overview import Node, Standing, Traffic, Work
from twin_scanner.service.ledger.priority import Priority
from twin_scanner.service.ledger.results import Result
from twin_scanner.service.ledger.runs import ScheduledRun
from twin_scanner.service.ledger.sessions import Session
from twin_scanner.service.ledger.studies import REAL_PET_KNOWN, Arrival, Study, StudyFacts
from twin_scanner.service.ledger.updates import KeptUpdate, Which
from twin_scanner.service.ledger.users import Account

__all__ = [
    "BUCKETS_S",
    "ERASED",
    "IDENTITY",
    "OTHER_PATIENT",
    "OUTSIDE_TRAINING",
    "REAL_PET_KNOWN",
    "REPLACED",
    "RESEND",
    "Account",
    "Arrival",
    "Break",
    "Chain",
    "Commitment",
    "Delivery",
    "DeliveryState",
    "Destination",
    "Event",
    "IssuedSeries",
    "Job",
    "KeptUpdate",
    "Lease",
    "LeaseLost",
    "Ledger",
    "Measures",
    "MigrationState",
    "NewJob",
    "Node",
    "Outcome",
    "Priority",
    "Queue",
    "Rendered",
    "ResendReason",
    "Result",
    "RunState",
    "ScheduledRun",
    "Session",
    "StageTimes",
    "Standing",
    "State",
    "Study",
    "StudyFacts",
    "StudyState",
    "Traffic",
    "Which",
    "Work",
    "acting_as",
    "is_replaced",
    "migrate",
    "migration_state",
    "utc_now",
]
