"""C-FIND for whose a study is. Oracle: what Orthanc was given, a name in UTF-8 among it."""

from pathlib import Path

import pytest

from dicom_node.client import Peer
from dicom_node.store_scu import send
from dicom_node.study_owner import StudyOwner, study_owners
from tests.peers.orthanc import Orthanc
from tests.samples import instances
from tests.samples.loopback_node import SHORT

pytestmark = pytest.mark.node


def test_a_pacs_says_whose_each_study_is(orthanc: Orthanc, tmp_path: Path) -> None:
    patient = {
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientID": "P-77",
        "PatientName": "Müller^Jürgen",
        "PatientBirthDate": "19480229",
        "PatientSex": "M",
    }
    files = instances.series(tmp_path / "ct", 1, **patient)
    peer = Peer(orthanc.ae_title, "127.0.0.1", orthanc.dicom_port)
    send(files, peer, calling_ae="SCANNER", timeouts=SHORT)
    found = dict(study_owners(peer, ["1.2.3", "1.2.99"], calling_ae="SCANNER", timeouts=SHORT))
    assert found == {"1.2.3": [StudyOwner("P-77", "", "Müller^Jürgen", "19480229", "M")], "1.2.99": []}
