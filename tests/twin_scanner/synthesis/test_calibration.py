"""The map from a raw deviation to a standard deviation, and its file beside the packages."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.samples.calibrations import LOW, calibration_of
from tests.samples.known_networks import unet_package
from twin_scanner.errors import Rejected
from twin_scanner.models.store import ModelStore
from twin_scanner.synthesis.calibration import (
    Coverage,
    calibration_file,
    read_calibration,
    stored_calibration,
    write_calibration,
)
from twin_scanner.synthesis.uncertainty import spread_method

pytestmark = pytest.mark.unit


def test_a_standard_deviation_is_interpolated_in_its_bin_level_below_and_in_proportion_beyond() -> None:
    calibration = calibration_of(unet_package())
    raw = np.array([0.0, 0.2, 0.6, 0.25, 1.0], np.float32)
    predicted = np.array([0.5, 0.5, 0.5, 3.0, 20.0], np.float32)
    deviation = calibration.standard_deviation(raw, predicted)
    np.testing.assert_allclose(deviation, [0.2, 0.3, 0.8, 2.0, 4.0], rtol=1e-6)
    np.testing.assert_allclose(calibration.half_width(raw, predicted, 0.95), [0.4, 0.6, 1.6, 6.0, 12.0], rtol=1e-6)
    with pytest.raises(Rejected, match=r"intervals of 0\.683, 0\.95, not of 0\.8"):
        calibration.half_width(raw, predicted, 0.8)


def test_a_calibration_is_kept_beside_the_packages_and_disturbs_none(tmp_path: Path) -> None:
    package = unet_package()
    assert stored_calibration(tmp_path, package.card) is None
    coverage = Coverage("predicted", 0.0, 1.0, 0.95, 0.94, 0.9, 0.4, 0.6, 3, 800)
    calibration = replace(calibration_of(package), coverage=(coverage,))
    before = ModelStore(tmp_path).list()
    write_calibration(calibration_file(tmp_path, package.model_hash), calibration)
    assert stored_calibration(tmp_path, package.card) == calibration
    assert ModelStore(tmp_path).list() == before
    assert stored_calibration(tmp_path, package.card, spread_method(axes="W")) is None


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"bins": []},
        {"levels": [1.5, 0.9]},
        {"patients": []},
        {"suv_max": 15.0},
        {"bins": [{**LOW.__dict__, "suv_high": 20.0, "deviation": [0.4, 0.2]}]},
        {"bins": [{**LOW.__dict__, "suv_high": 20.0, "factors": [1.0]}]},
        {"bins": [{**LOW.__dict__, "suv_high": 20.0, "raw": [0.1, float("nan")]}]},
        {"method": {"kind": "flips", "axes": "Q", "members": []}},
        {"colour": "red"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_damaged_calibration_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "flips-DHW.json"
    write_calibration(path, calibration_of(unet_package()))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(Rejected, match="calibrate the model again"):
        read_calibration(path)


def test_a_calibration_that_is_no_json_or_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "flips-DHW.json").write_text("[1,")
    with pytest.raises(Rejected, match="calibrate the model again"):
        read_calibration(tmp_path / "flips-DHW.json")
    with pytest.raises(Rejected, match="does not exist"):
        read_calibration(tmp_path / "none.json")
