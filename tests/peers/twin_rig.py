"""One way to look at both homes of the twin record: the embedded store, and a real R4 server over HTTP."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.samples.twin_updates import SITE
from twin_record.embedded import EmbeddedStore
from twin_record.endpoint import BundleEndpoint
from twin_record.remote import FhirClient
from twin_record.resources.content import short_reference
from twin_record.target import TwinReceipt
from twin_record.transaction import record_update
from twin_record.update import TwinUpdate

MOST_LISTED = 1000
TIMEOUT_S = 60.0


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
        return [entry["resource"] for entry in self._got(f"{reference}/_history")["entry"]]

    def current(self, reference: str) -> dict[str, Any]:
        """A resource as it stands."""
        kind, resource_id = reference.split("/")
        if isinstance(self.target, EmbeddedStore):
            return self.target.history(kind, resource_id)[0]
        return self._got(reference)

    def held(self, kind: str) -> list[dict[str, Any]]:
        """Every resource of a kind that the server holds and that is not withdrawn, by nothing but its own listing."""
        listed = [entry["resource"] for entry in self._got(f"{kind}?_count={MOST_LISTED}").get("entry", [])]
        found = [one for one in listed if one["resourceType"] == kind and one.get("status") != "entered-in-error"]
        assert len(listed) < MOST_LISTED, "the server may hold more"
        return found

    def create(self, resource: dict[str, Any]) -> str:
        """Somebody else's resource; its literal reference."""
        entry = {"resource": resource, "request": {"method": "POST", "url": resource["resourceType"]}}
        answer = self.target.exchange({"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
        return short_reference(answer["entry"][0]["response"]["location"])

    def replace(self, resource: dict[str, Any]) -> None:
        """Somebody else's new version of a resource."""
        url = f"{resource['resourceType']}/{resource['id']}"
        entry = {"resource": resource, "request": {"method": "PUT", "url": url}}
        self.target.exchange({"resourceType": "Bundle", "type": "transaction", "entry": [entry]})

    def erase(self, reference: str) -> None:
        """The server's own deletion of a resource."""
        request = urllib.request.Request(f"{self.base_url}/{reference}", method="DELETE")
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            pass

    def _got(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.base_url}/{path}", timeout=TIMEOUT_S) as answer:
            return dict(json.load(answer))


def store_rig(folder: Path) -> Rig:
    """A fresh embedded store."""
    return Rig(EmbeddedStore(folder / "twin.db", SITE), None)


@contextmanager
def opened_stores(folder: Path) -> Iterator[Callable[[str], EmbeddedStore]]:
    """Opens embedded stores by name, of which several may be one file; they are closed at the end."""
    with ExitStack() as closed:
        yield lambda name: closed.enter_context(closing(EmbeddedStore(folder / f"{name}.sqlite", SITE)))


def server_rig(base_url: str) -> Rig:
    """A client of a running R4 server."""
    return Rig(FhirClient(base_url, SITE), base_url)
