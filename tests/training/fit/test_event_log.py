"""TensorBoard's events: written where asked for, refused with one sentence where TensorBoard is missing."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.samples.known_cases import case_of, districts
from tests.samples.small_pairs import small_config, small_data, small_sampler
from training.fit.config import ValidationConfig
from training.fit.event_log import EventLog, event_log, projections
from training.fit.fit import Run, fit
from training.fit.state import fresh_state
from twin_scanner.errors import Rejected

pytestmark = pytest.mark.loop


def test_a_missing_tensorboard_is_said_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is an import that fails, as where the package is not installed."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    config = replace(small_config(tmp_path), tensorboard=True)
    with pytest.raises(Rejected, match="needs TensorBoard, which is not installed"):
        fit(config, fresh_state(config, "trunk", {}), small_sampler(0))


def test_nothing_is_imported_or_written_where_nobody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    config = small_config(tmp_path)
    assert event_log(config, fresh_state(config, "trunk", {})) is None
    assert not (tmp_path / "tensorboard").exists()


def test_losses_errors_and_pictures_are_events(tmp_path: Path) -> None:
    """Oracle: TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = replace(small_config(tmp_path, 100), tensorboard=True, validation=ValidationConfig(100, 1))
    data = small_data(config)
    fit(config, fresh_state(config, "trunk", {}), small_sampler(0), Run(validated=data.validated))
    events = EventAccumulator(str(tmp_path / "tensorboard" / "trunk"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"L1", "adversarial", "discriminator", "validation_mae_suv"}
    assert [event.step for event in events.Scalars("L1")] == [100]
    assert [event.step for event in events.Images("real and synthetic PET")] == [100]


def test_after_a_kill_only_what_the_checkpoint_holds_still_counts(tmp_path: Path) -> None:
    """Oracle: TensorBoard's own reader. The run was killed after step 200, and goes on from its checkpoint of 100."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    killed = EventLog(tmp_path, "trunk", 0)
    killed.scalars(100, {"L1": 1.0})
    killed.scalars(200, {"L1": 2.0})
    EventLog(tmp_path, "trunk", 100).scalars(200, {"L1": 3.0})
    events = EventAccumulator(str(tmp_path / "tensorboard" / "trunk"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("L1")] == [(100, 1.0), (200, 3.0)]


def test_the_picture_shows_both_pets_upright_and_side_by_side() -> None:
    """A hot voxel at the highest slice of the real PET is in the picture's first row, on the left."""
    real, made = np.zeros((2, *districts().shape), np.float32)
    real[-1, 5, 3], made[0, 7, 4] = 5.0, 20.0
    picture = projections(case_of(real, made))
    depth, _, width = districts().shape
    assert picture.shape == (depth, 2 * width)
    assert picture[0, 3] == 0.5 and picture[-1, width + 4] == 1.0 and np.count_nonzero(picture) == 2
