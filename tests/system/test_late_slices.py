"""Slices that come after their PET was made: what FHIR says of the study is what a real Orthanc holds of it."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pydicom
import pytest

from dicom_node.peers import Peer
from dicom_node.store_scu import send
from tests.conftest import missing
from tests.peers.orthanc import Orthanc
from tests.peers.scanner_process import ScannerProcess
from tests.peers.sekmet_server import peers_folder, running_sekmet
from training.phantom.files import write_ct_dicom
from training.phantom.phantom import PhantomOptions, make_phantom

pytestmark = [pytest.mark.long, pytest.mark.system, pytest.mark.timeout(1500)]

SLICES: Final = 26
FIRST: Final = 20
WAIT_S: Final = 400.0

Json = dict[str, Any]


@pytest.fixture
def pacs(tmp_path: Path, free_port: Callable[[], int], peer: Callable[[str], str]) -> Iterator[Orthanc]:
    with Orthanc(tmp_path / "orthanc", free_port(), free_port(), "PACS", program=peer("Orthanc")) as running:
        yield running


@pytest.fixture
def fhir_url() -> Iterator[str]:
    if peers_folder() is None:
        missing("sekmet-fhir (tests/peers/sekmet/install.sh)")
    with running_sekmet() as url:
        yield url


def head_and_neck(folder: Path) -> list[Path]:
    """The slices of a small CT, in stack order."""
    options = PhantomOptions(spacing_mm=(10.0, 5.0, 5.0))
    ct = make_phantom(0, options).ct
    depth, height, width = ct.geometry.shape
    head = ct.cropped((slice(depth - SLICES, depth), slice(0, height), slice(0, width)))
    return list(write_ct_dicom(head, folder, seed=0, options=options))


def resources(fhir_url: str, kind: str) -> list[Json]:
    with urllib.request.urlopen(f"{fhir_url}/{kind}?_count=1000", timeout=60) as answer:
        return [entry["resource"] for entry in json.load(answer).get("entry", [])]


def counted_by_fhir(fhir_url: str) -> dict[str, int]:
    """The number of instances of each series of the one study, which agree with the study's own numbers."""
    (study,) = resources(fhir_url, "ImagingStudy")
    counts = {series["uid"]: int(series["numberOfInstances"]) for series in study["series"]}
    assert (study["numberOfSeries"], study["numberOfInstances"]) == (len(counts), sum(counts.values()))
    assert all(len(series.get("instance", [])) in (0, counts[series["uid"]]) for series in study["series"])
    return counts


def counted_by_the_pacs(pacs: Orthanc, study_uid: str) -> dict[str, int]:
    found = pacs.find("Series", {"StudyInstanceUID": study_uid})
    return {series["MainDicomTags"]["SeriesInstanceUID"]: len(series["Instances"]) for series in found}


def one_record(fhir_url: str, revisions: int) -> None:
    """One of everything but the Provenances, of which the List names each."""
    kinds = ("Patient", "Device", "List")
    assert [len(resources(fhir_url, kind)) for kind in kinds] == [1, 1, 1]
    made = {f"Provenance/{one['id']}" for one in resources(fhir_url, "Provenance")}
    assert len(made) == revisions
    (record,) = resources(fhir_url, "List")
    assert made <= {entry["item"]["reference"] for entry in record["entry"]}


def test_fhir_counts_what_the_pacs_holds_before_and_after_late_slices(
    pacs: Orthanc, fhir_url: str, tmp_path: Path
) -> None:
    files = head_and_neck(tmp_path / "ct")
    study_uid = str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    twin = {"url": fhir_url, "patient_identifier_system": "urn:oid:2.999.1", "unknown_patient": "create"}
    scanner = ScannerProcess(
        tmp_path / "scanner",
        node={"port": 0, "quiet_period_s": 1.0, "minimum_free_mb": 0},
        pacs={"ae_title": "PACS", "port": pacs.dicom_port},
        scanner={"accept_synthetic_ct": True},
        twin=twin,
    )
    with scanner:
        node = Peer("TWINSCANNER", "127.0.0.1", scanner.start())
        for revision, slices in enumerate((files[:FIRST], files[FIRST:]), start=1):
            send(slices, Peer("PACS", "127.0.0.1", pacs.dicom_port), calling_ae="CT")
            send(slices, node, calling_ae="CT")
            scanner.wait_until_done(revision, WAIT_S)
            held = counted_by_the_pacs(pacs, study_uid)
            assert sorted(held.values())[-1] >= len(slices)
            assert counted_by_fhir(fhir_url) == held
            one_record(fhir_url, revision)
        assert scanner.stop() == 0
