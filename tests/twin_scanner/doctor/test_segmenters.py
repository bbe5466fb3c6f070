"""The configured segmenter, the others, and weights that are not the vouched ones."""

import json
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.samples.examined import examined_settings, found
from twin_scanner.districts.external import moose
from twin_scanner.doctor import Finding, findings_of
from twin_scanner.doctor.segmenters import check_segmenters
from twin_scanner.settings import Settings

pytestmark = pytest.mark.node


def look(settings: Settings) -> list[Finding]:
    return list(findings_of("segmenter", check_segmenters, settings))


def test_the_configured_segmenter_must_be_ready_and_the_others_only_say_what_they_would_need(
    tmp_path: Path, closed_port: int
) -> None:
    districts = {"segmenter": "labelmap", "labelmap": tmp_path / "missing.nii.gz"}
    findings = look(examined_settings(tmp_path, closed_port, districts=districts))
    assert found(findings, "segmenter labelmap").state == "fault"
    assert found(findings, "segmenter landmarks") == Finding(
        "segmenter landmarks", "ok", "'landmarks' is ready, not in use."
    )
    names = [finding.name for finding in findings if finding.name.startswith("segmenter ")]
    assert names[0] == "segmenter labelmap", "the one in use comes first"
    moose = found(findings, "segmenter moose")
    assert moose.state == "ok"
    assert moose.sentence.startswith("Not in use; the segmenter 'moose' needs")


def test_weights_that_are_not_the_vouched_ones_are_told_with_their_full_hash(tmp_path: Path, closed_port: int) -> None:
    """The sentence of the segmenter itself shows the first digits alone; the configuration needs them all."""
    if moose.package_missing():
        missing("nnU-Net (the extra moose)")
    folder = tmp_path / "Dataset001_body" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (folder / "fold_all").mkdir(parents=True)
    labels = {"background": 0, "Legs": 1, "Body": 2, "Head": 3, "Arms": 4}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    (folder / "plans.json").write_text("{}")
    (folder / "fold_all" / "checkpoint_final.pth").write_bytes(b"weights")
    vouched = moose.weights_sha256(tmp_path / "Dataset001_body")
    districts = {"segmenter": "moose", "moose_weights": tmp_path / "Dataset001_body"}
    for sha256 in ("", "0" * 64):
        finding = found(
            look(examined_settings(tmp_path, closed_port, districts={**districts, "moose_sha256": sha256})),
            "segmenter moose",
        )
        assert finding.state == "fault"
        assert vouched in finding.sentence
    one = examined_settings(tmp_path, closed_port, districts={**districts, "moose_sha256": vouched})
    assert found(look(one), "segmenter moose").state == "ok"
