"""Whatever a server or the proxy before it does to a record, one of each resource is left, of the right patient."""

from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

import pytest

from tests.peers.faulty_proxy import FAULTS, HANGS, FaultyProxy, Moment
from tests.peers.twin_rig import Rig
from tests.samples.twin_updates import SITE, an_update, another_study
from tests.twin_record.conftest import SEKMET
from twin_record.remote import FhirClient
from twin_record.target import TwinReceipt
from twin_record.update import TwinUpdate
from twin_scanner.errors import Held, Unavailable

pytestmark = pytest.mark.record

IMPATIENT_S = 1.0


@dataclass
class Behind:
    """A client that reaches a real server only through a proxy, and the rig that looks at the server itself."""

    rig: Rig
    proxy: FaultyProxy
    client: FhirClient

    def one_of_each_is_left(self, update: TwinUpdate, receipt: TwinReceipt) -> None:
        """By the server's own listings, not by the searches that we write by."""
        patients = [one for one in self.rig.held("Patient") if update.patient_id in values(one)]
        studies = [one for one in self.rig.held("ImagingStudy") if f"urn:oid:{update.study_uid}" in values(one)]
        devices = [one for one in self.rig.held("Device") if update.model_hash in values(one)]
        assert [f"Patient/{one['id']}" for one in patients] == [receipt.patient]
        assert [f"ImagingStudy/{one['id']}" for one in studies] == [receipt.imaging_study]
        assert [f"Device/{one['id']}" for one in devices] == [receipt.device]
        lists = [one for one in self.rig.held("List") if one["subject"].get("reference") == receipt.patient]
        assert [f"List/{one['id']}" for one in lists] == [receipt.record]
        assert studies[0]["subject"]["reference"] == receipt.patient
        made = [one for one in self.rig.held("Provenance") if update.pet_series.series_uid in str(one)]
        assert [f"Provenance/{one['id']}" for one in made] == [receipt.provenance]


def values(resource: dict[str, list[dict[str, str]]]) -> list[str | None]:
    return [identifier.get("value") for identifier in resource.get("identifier", [])]


@pytest.fixture(scope="module", params=[pytest.param("r4_rig", id="R4 server"), SEKMET])
def behind(request: pytest.FixtureRequest) -> Iterator[Behind]:
    rig: Rig = request.getfixturevalue(request.param)
    assert rig.base_url is not None
    with FaultyProxy(rig.base_url) as proxy, closing(FhirClient(proxy.url, SITE)) as client:
        yield Behind(rig, proxy, client)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_leaves_one_of_each_and_the_right_patient(behind: Behind, fault: str, moment: Moment) -> None:
    """Nothing was written, or all of it without our knowing; the job is done again either way."""
    update = an_update()
    theirs = behind.rig.record(another_study(update))
    with behind.proxy.failing(fault, moment):
        if fault == "413":
            with suppress(Held):
                behind.client.record(update)
        else:
            with pytest.raises(Unavailable):
                behind.client.record(update)
    receipt = behind.client.record(update)
    assert (receipt.patient, receipt.record) == (theirs.patient, theirs.record)
    behind.one_of_each_is_left(update, receipt)
    assert behind.client.record(update).written == ()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_server_that_hangs_leaves_one_of_each(behind: Behind, moment: Moment) -> None:
    update = an_update()
    with (
        closing(FhirClient(behind.proxy.url, SITE, timeout_s=IMPATIENT_S)) as impatient,
        behind.proxy.failing(HANGS, moment),
        pytest.raises(Unavailable, match="in time"),
    ):
        impatient.record(update)
    behind.one_of_each_is_left(update, behind.client.record(update))


def test_what_was_erased_at_the_server_is_recorded_again_once(behind: Behind) -> None:
    """The hospital deletes a record; a replay of what was recorded makes it anew, and of the Patient nothing."""
    update = an_update()
    first = behind.client.record(update)
    for reference in (first.record, first.provenance, first.imaging_study, first.device):
        behind.rig.erase(reference)
    again = behind.client.record(update)
    assert again.patient == first.patient
    assert first.patient not in again.written
    behind.one_of_each_is_left(update, again)
    assert behind.client.record(update).written == ()
