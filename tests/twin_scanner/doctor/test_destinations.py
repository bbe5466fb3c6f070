"""What confirms a delivery is looked for at each destination. Oracles: an archive and a scripted DICOMweb server."""

from pathlib import Path

import pytest

from tests.fakes.archive import Archive
from tests.fakes.scripted_stow import ScriptedStow
from tests.samples.examined import found
from twin_scanner.doctor import findings_of
from twin_scanner.doctor.destinations import check_destinations
from twin_scanner.settings import Settings

pytestmark = pytest.mark.node


def test_each_destination_is_looked_at_by_itself(tmp_path: Path, closed_port: int) -> None:
    archive = Archive()
    archive.commits = False
    with archive, ScriptedStow().listening() as url:
        settings = Settings.model_validate(
            {
                "peers": [{"name": "a", "ae_title": "PACS", "host": "127.0.0.1", "port": archive.peer.port}],
                "destinations": [
                    {"name": "queried", "peer": "a", "transfer_syntax": "implicit"},
                    {"name": "committing", "peer": "a", "confirm": "commitment"},
                    {"name": "cloud", "url": url},
                    {"name": "vault", "url": url, "confirm": "status"},
                    {"name": "away", "url": f"http://127.0.0.1:{closed_port}", "timeout_s": 2.0},
                ],
            }
        )
        findings = list(findings_of("destinations", check_destinations, settings))
    assert "accepts C-FIND (Study Root), PET images in implicit VR" in found(findings, "destination queried").sentence
    committing = found(findings, "destination committing")
    assert committing.state == "fault" and "does not accept storage commitment" in committing.sentence
    assert found(findings, "destination cloud").sentence.endswith("answers QIDO-RS.")
    assert found(findings, "destination away").state == "fault"
    unasked = [finding.sentence for finding in findings if finding.name == "patient identity"]
    assert len(unasked) == 1 and "'vault' is not asked whose a study is" in unasked[0]
