"""MOOSE's backend: the real nnU-Net predictor on a real, small model; the oracle is the phantom's own districts."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from tests.conftest import missing as not_here
from tests.samples.nnunet_folder import make_folder, phantom
from training.phantom.phantom import Phantom
from twin_scanner.districts.external import moose
from twin_scanner.districts.external.moose import MooseSegmenter, weights_sha256
from twin_scanner.errors import Rejected, Transient, TwinScannerError
from twin_scanner.imaging.volume import LabelArray, Volume, geometry_of, resample_labels, to_sitk

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset001_body, trained once."""
    if find_spec("nnunetv2") is None:
        not_here("nnU-Net (the extra moose)")
    return make_folder(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def patient() -> Phantom:
    """Not among those that the model was trained on."""
    return phantom(11, arms="up")


@pytest.fixture(scope="module")
def found(weights: Path, patient: Phantom) -> LabelArray:
    return MooseSegmenter(weights, weights_sha256(weights)).segment(patient.ct).labels


def dice(labels: LabelArray, truth: LabelArray) -> list[float]:
    return [
        2.0 * float(((labels == k) & (truth == k)).sum()) / float((labels == k).sum() + (truth == k).sum())
        for k in (1, 2, 3, 4)
    ]


def test_the_models_districts_come_back_as_ours_on_the_cts_grid(found: LabelArray, patient: Phantom) -> None:
    scores = dice(found, patient.districts)
    assert np.median(scores) >= 0.9
    assert min(scores) >= 0.8


def test_every_voxel_of_the_body_has_a_label(found: LabelArray, patient: Phantom) -> None:
    assert float((found[patient.districts > 0] > 0).mean()) > 0.99


@pytest.mark.parametrize("orientation", ["RAS", "SAR", "PIL"])
def test_a_ct_stored_in_another_orientation_gets_the_same_labels_in_the_patient(
    weights: Path, patient: Phantom, found: LabelArray, orientation: str
) -> None:
    turned = sitk.DICOMOrient(to_sitk(patient.ct.array, patient.ct.geometry), orientation)
    ct = Volume(sitk.GetArrayFromImage(turned), geometry_of(turned))
    again = MooseSegmenter(weights, weights_sha256(weights)).segment(ct)
    assert again.geometry == ct.geometry
    back = resample_labels(again.labels, again.geometry, patient.ct.geometry)
    assert float((back == found).mean()) > 0.999


def test_a_patient_who_lost_one_arm_keeps_the_other_on_its_side(weights: Path, patient: Phantom) -> None:
    """The mirror image of a left-right mistake would pass every symmetric phantom."""
    middle = patient.districts.shape[2] // 2
    right = np.zeros(patient.districts.shape, np.bool_)
    right[:, :, :middle] = patient.districts[:, :, :middle] == 3
    ct = Volume(np.where(right, np.float32(-1000.0), patient.ct.array), patient.ct.geometry)
    arms = MooseSegmenter(weights, weights_sha256(weights)).segment(ct).labels == 3
    assert int(arms[:, :, middle:].sum()) > 5 * int(arms[:, :, :middle].sum())


def test_weights_of_another_hash_are_never_unpickled(weights: Path, patient: Phantom, tmp_path: Path) -> None:
    """The forged checkpoint would create a file as soon as it is loaded; loading it directly does."""
    forged = tmp_path / "Dataset001_body"
    shutil.copytree(weights, forged)
    proof = tmp_path / "proof"
    (checkpoint,) = forged.rglob("checkpoint_final.pth")
    checkpoint.write_bytes(pickle.dumps(_Payload(str(proof))))
    with pytest.raises(Rejected, match=r"SHA-256 .* districts.moose_sha256 says"):
        MooseSegmenter(forged, weights_sha256(weights)).segment(patient.ct)
    assert not proof.exists()
    pickle.loads(checkpoint.read_bytes())
    assert proof.exists()


class _Payload:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.open, (self.path, os.O_CREAT | os.O_WRONLY)


def test_a_process_that_is_killed_is_tried_again(weights: Path, patient: Phantom) -> None:
    segmenter = MooseSegmenter(weights, weights_sha256(weights))
    stop = threading.Event()

    def kill_the_child() -> None:
        while not stop.is_set():
            for line in Path(f"/proc/{os.getpid()}/task/{caller}/children").read_text().split():
                if b"moose_process" in Path(f"/proc/{line}/cmdline").read_bytes():
                    os.kill(int(line), signal.SIGKILL)
                    return
            time.sleep(0.01)

    caller = threading.get_native_id()
    killer = threading.Thread(target=kill_the_child)
    killer.start()
    try:
        with pytest.raises(Transient, match="was killed"):
            segmenter.segment(patient.ct)
    finally:
        stop.set()
        killer.join()


def test_a_process_that_takes_too_long_is_stopped(weights: Path, patient: Phantom) -> None:
    with pytest.raises(Transient, match="took longer than"):
        MooseSegmenter(weights, weights_sha256(weights), timeout_s=0.05).segment(patient.ct)


def test_a_model_of_other_labels_is_not_taken_for_moose(weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(weights, other)
    (description,) = other.rglob("dataset.json")
    content = json.loads(description.read_text())
    description.write_text(json.dumps({**content, "labels": {"background": 0, "liver": 1}}))
    sentence = moose.missing(other, "0" * 64)
    assert sentence is not None
    assert "liver" in sentence
    assert moose.ARCHIVE in sentence


def test_what_is_missing_is_said_in_one_sentence_with_what_to_do(weights: Path, tmp_path: Path) -> None:
    sha256 = weights_sha256(weights)
    assert moose.missing(weights, sha256) is None
    for path in (None, tmp_path):
        sentence = moose.missing(path, sha256)
        assert sentence is not None
        assert moose.ARCHIVE in sentence
        assert "districts.moose_weights" in sentence
    assert sha256 in str(moose.missing(weights, ""))
    assert "districts.moose_sha256 says 000000000000" in str(moose.missing(weights, "0" * 64))


def test_a_missing_package_is_said_in_one_sentence(tmp_path: Path) -> None:
    """In a process that cannot find nnunetv2."""
    program = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'nnunetv2' else find(name, *a)\n"
        "from pathlib import Path\n"
        "from twin_scanner.districts.external import moose\n"
        f"print(moose.missing(Path({str(tmp_path)!r}), ''))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (
        done.stdout.strip()
        == "The segmenter 'moose' needs nnU-Net, which is not installed: pip install 'twin-scanner[moose]'."
    )


def test_a_network_that_cannot_run_is_one_sentence(weights: Path, patient: Phantom, tmp_path: Path) -> None:
    broken = tmp_path / "Dataset001_body"
    shutil.copytree(weights, broken)
    (checkpoint,) = broken.rglob("checkpoint_final.pth")
    torch.save({"network_weights": {}}, checkpoint)
    with pytest.raises(TwinScannerError, match="nnU-Net could not run the model"):
        MooseSegmenter(broken, weights_sha256(broken)).segment(patient.ct)
