"""What one job tells the record is checked where it is made."""

import pytest

from tests.samples.twin_updates import a_series, an_update, companions
from twin_record.update import TwinSite
from twin_scanner.errors import Defect, Misconfigured, Rejected

pytestmark = pytest.mark.unit


def test_a_ct_without_a_patient_id_belongs_to_no_twin() -> None:
    with pytest.raises(Rejected, match="no PatientID"):
        an_update(patient_id="  ")
    with pytest.raises(Rejected, match="no StudyInstanceUID"):
        an_update(study_uid="")


def test_a_callers_mistake_is_a_defect() -> None:
    series = a_series("PT")
    with pytest.raises(Defect, match="cannot replace its own"):
        an_update(pet_series=series, replaces_series_uids=(series.series_uid,))
    with pytest.raises(Defect, match="no time zone"):
        an_update(made_at=an_update().made_at.replace(tzinfo=None))


def test_a_companion_cannot_replace_itself() -> None:
    (seg, report) = companions()
    with pytest.raises(Defect, match="its own series"):
        an_update(companion_series=(seg, report), replaces_companion_uids=(seg.series_uid,))


@pytest.mark.parametrize("system", ["hospital", "", "urn:oid:1 2", "urn:x|y"])
def test_a_site_with_a_system_that_is_no_uri_is_rejected(system: str) -> None:
    with pytest.raises(Misconfigured, match="is no URI"):
        TwinSite(patient_identifier_system=system)


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "../etc/passwd", ""])
def test_a_site_with_an_unknown_zone_is_rejected(zone: str) -> None:
    with pytest.raises(Misconfigured, match="no IANA time zone"):
        TwinSite(patient_identifier_system="urn:oid:2.999.1", zone=zone)
