"""One way to look at both homes of the twin record: the embedded store, and a real R4 server over HTTP."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.samples.twin_updates import SITE
from twin_record.embedded import EmbeddedStore
from twin_record.endpoint import BundleEndpoint
from twin_record.remote import FhirClient
from twin_record.target import TwinReceipt
from twin_record.transaction import record_update
from twin_record.update import TwinUpdate


@dataclass
class Rig:
    """A target of the record and a view of it from outside."""

    target: FhirClient | EmbeddedStore
    base_url: str | None

    def record(self, update: TwinUpdate, through: BundleEndpoint | None = None, attempts: int = 5) -> TwinReceipt:
        """Record an update, `through` another endpoint that stands before the target."""
        return record_update(update, SITE, through or self.target, attempts, time.sleep)

    def versions(self, reference: str) -> list[dict[str, Any]]:
        """All versions of a resource, as the target itself keeps them."""
        kind, resource_id = reference.split("/")
        if isinstance(self.target, EmbeddedStore):
            return self.target.history(kind, resource_id)
        history = httpx.get(f"{self.base_url}/{reference}/_history").json()
        return [entry["resource"] for entry in history["entry"]]

    def current(self, reference: str) -> dict[str, Any]:
        """A resource as it stands."""
        kind, resource_id = reference.split("/")
        if isinstance(self.target, EmbeddedStore):
            return self.target.history(kind, resource_id)[0]
        answer = httpx.get(f"{self.base_url}/{kind}/{resource_id}")
        assert answer.status_code == 200
        return dict(answer.json())

    def create(self, resource: dict[str, Any]) -> str:
        """Somebody else's resource; its literal reference."""
        entry = {"resource": resource, "request": {"method": "POST", "url": resource["resourceType"]}}
        answer = self.target.exchange({"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
        return "/".join(answer["entry"][0]["response"]["location"].split("/")[:2])

    def replace(self, resource: dict[str, Any]) -> None:
        """Somebody else's new version of a resource."""
        url = f"{resource['resourceType']}/{resource['id']}"
        entry = {"resource": resource, "request": {"method": "PUT", "url": url}}
        self.target.exchange({"resourceType": "Bundle", "type": "transaction", "entry": [entry]})


def store_rig(folder: Path) -> Rig:
    """A fresh embedded store."""
    return Rig(EmbeddedStore(folder / "twin.db", SITE), None)


def server_rig(base_url: str) -> Rig:
    """A client of a running R4 server."""
    return Rig(FhirClient(base_url, SITE), base_url)
