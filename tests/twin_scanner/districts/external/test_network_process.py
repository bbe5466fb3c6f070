"""A full disk around a segmentation network: the job is tried again, whoever was writing; no CT is rejected for it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.full_disk import files_end_at
from twin_scanner.districts.external.network_process import FAILURE, REQUEST, Weights, run_network, serve
from twin_scanner.errors import Transient
from twin_scanner.imaging.volume import Geometry, LabelArray, Volume

pytestmark = pytest.mark.unit

SHAPE = (20, 21, 22)
LIMIT_BYTES = 4096


def test_the_copy_of_the_weights_does_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(bytes(3 * LIMIT_BYTES))
    weights = Weights("moose", tmp_path, (file,))
    with (
        files_end_at(LIMIT_BYTES),
        pytest.raises(Transient, match="copy of the weights cannot be written"),
        weights.verified_copy(weights.sha256),
    ):
        raise AssertionError("half a copy was given")


def test_the_ct_for_the_network_does_not_fit() -> None:
    ct = Volume(np.zeros(SHAPE, np.float32), Geometry(SHAPE, (3.0, 2.0, 2.0), (0.0, 0.0, 0.0)))
    with files_end_at(LIMIT_BYTES), pytest.raises(Transient, match="CT for the segmenter cannot be written"):
        run_network("nobody", ct, {"segmenter": "moose"}, ("labels",), 10.0)


def test_the_labels_of_the_network_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / REQUEST).write_text(json.dumps({"segmenter": "moose"}))

    def predict(folder: Path, request: dict[str, Any]) -> Mapping[str, LabelArray]:
        return {"labels": np.zeros(SHAPE, np.uint8)}

    with files_end_at(LIMIT_BYTES):
        assert serve(tmp_path, "moose", "nnU-Net could not run the model", predict) == 1
    assert (tmp_path / FAILURE).read_text().startswith("transient The labels of 'moose' cannot be written")
