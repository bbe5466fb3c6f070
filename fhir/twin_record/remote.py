"""The twin record on a FHIR R4 server: what the server says of itself decides how it is written."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import httpx

from twin_record.capabilities import WritePlan, plan_for
from twin_record.client_credentials import ClientCredentials
from twin_record.connection import FhirConnection, NoCapabilityStatement
from twin_record.identity import check_identity
from twin_record.patient_identity import PatientIdentity
from twin_record.patient_record import read_record
from twin_record.planned_exchange import Overwritten, PlannedExchange
from twin_record.refusals import Conflict
from twin_record.resources.content import Resource
from twin_record.resources.patient import patient_key
from twin_record.rights import lacking_rights
from twin_record.target import TwinReceipt
from twin_record.transaction import DEFAULT_ATTEMPTS, record_update
from twin_record.update import TwinSite, TwinUpdate
from twin_scanner.errors import TwinScannerError

DEFAULT_TIMEOUT_S = 30.0


class FhirClient:
    """A TwinTarget on any FHIR R4 server; thread-safe, to be closed. See FhirConnection for what it trusts."""

    def __init__(
        self,
        base_url: str,
        site: TwinSite,
        *,
        auth: httpx.Auth | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        ca_file: Path | None = None,
        attempts: int = DEFAULT_ATTEMPTS,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raise Misconfigured for an address or a ca_file that cannot be used; nothing is sent yet."""
        self._base_url = base_url
        self._site = site
        self._attempts = attempts
        self._sleep = sleep
        self._connection = FhirConnection(
            base_url,
            auth=auth,
            timeout_s=timeout_s,
            ca_file=ca_file,
            transport=transport,
            clock=clock,
        )
        self._plan: WritePlan | None = None
        self._auth = auth
        self.lacking_rights: tuple[str, ...] = ()
        """A sentence for each right to write that the server, asked last, said that we do not have."""
        self._overwritten: list[Overwritten] = []
        self._lock = threading.Lock()

    def record(self, update: TwinUpdate) -> TwinReceipt:
        """Record one update in one transaction; see TwinTarget. After a refusal the server is asked what it can do."""
        endpoint = PlannedExchange(self.plan(), self._connection, self._take_overwritten())
        try:
            receipt = record_update(update, self._site, endpoint, self._attempts, self._sleep)
        except Conflict:
            raise
        except TwinScannerError:
            self._plan = None
            raise
        finally:
            with self._lock:
                self._overwritten += endpoint.overwritten
        self._plan = endpoint.plan
        return replace(receipt, provenance=endpoint.names.theirs(receipt.provenance) or receipt.provenance)

    def _take_overwritten(self) -> list[Overwritten]:
        """What an earlier update wrote over and could not bring back yet: this one does so first."""
        with self._lock:
            taken, self._overwritten = self._overwritten, []
            return taken

    def check_identity(self, identity: PatientIdentity, study_uid: str) -> tuple[str, ...]:
        """Whether the study may be recorded as this patient's; see TwinTarget. Remarks say which rights are missing."""
        remarks = check_identity(identity, study_uid, self._site, self)
        return (*self.lacking_rights, *remarks)

    def patient_record(self, patient_id: str, issuer: str | None) -> Resource:
        """The patient's whole record as a Bundle of type collection; Rejected where there is none."""
        return read_record(patient_key(patient_id, issuer, self._site), self, self._base_url)

    def exchange(self, bundle: Resource) -> Resource:
        """Execute one Bundle as the server takes it, and return the Bundle that answers it."""
        return PlannedExchange(self.plan(), self._connection).exchange(bundle)

    def plan(self) -> WritePlan:
        """How the server is written, by its CapabilityStatement; the default where it shows none."""
        with self._lock:
            plan = self._plan
            if plan is None:
                with contextlib.suppress(NoCapabilityStatement):
                    self.capability()
                plan = self._plan or WritePlan()
            return plan

    def capability(self) -> Resource:
        """The server's CapabilityStatement, by which it is written from now on; see FhirConnection."""
        try:
            statement = self._connection.capability()
        except NoCapabilityStatement:
            self._plan, self.lacking_rights = WritePlan(), ()
            raise
        self._plan = plan_for(statement)
        scope = self._auth.granted_scope if isinstance(self._auth, ClientCredentials) else None
        self.lacking_rights = lacking_rights(statement, scope, self._site)
        return statement

    def server_time(self) -> datetime | None:
        """What time it is at the server; see FhirConnection."""
        return self._connection.server_time()

    def dry_run(self, resource: Resource) -> bool:
        """Have the server check a create without one (R4 $validate, mode create); False where it has no such check.

        Raises Transient where it refuses.
        """
        parameters = [{"name": "resource", "resource": resource}, {"name": "mode", "valueCode": "create"}]
        request = {"method": "POST", "url": f"{resource['resourceType']}/$validate"}
        checked = {"resourceType": "Parameters", "parameter": parameters}
        answer = self._connection.exchange_entry({"resource": checked, "request": request})
        return str(answer["response"]["status"]).startswith("2")

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()
