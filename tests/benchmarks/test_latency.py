"""What the benchmark of the latency makes of its moments. The oracle is arithmetic."""

from datetime import UTC, datetime, timedelta

import pytest

from benchmarks import latency

pytestmark = pytest.mark.unit


def test_all_but_the_networks_is_what_the_goal_is_for() -> None:
    begin = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    after_s = {
        "last instance": 0.0,
        "complete": 2.0,
        "opened": 3.0,
        "rendered": 14.0,
        "stored": 14.5,
        "confirmed": 15.5,
        "twin": 15.75,
    }
    moments = {name: begin + timedelta(seconds=s) for name, s in after_s.items()}
    figures = latency._figures(moments, {"read": 1.0, "translate": 8.0, "networks": 6.0, "write": 1.5}, 240)
    values = {figure.figure: figure.value for figure in figures}
    assert [values[f"240 slices: {stage}"] for stage in latency.STAGES] == [
        *(2.0, 1.0, 0.5, 1.0, 2.0, 6.0),
        *(1.5, 0.5, 1.0, 0.25),
    ]
    assert values["last C-STORE to PET confirmed in the PACS"] == 15.5
    assert values["all but the networks"] == 9.5 and figures[-1].ratio == pytest.approx(5.0 / 9.5)
