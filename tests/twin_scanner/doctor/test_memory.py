"""Memory for the largest CT. Oracle: machines of a size that a test chooses."""

from pathlib import Path

import pytest

from tests.samples.examined import examined_settings
from twin_scanner.app import open_ledger
from twin_scanner.doctor.memory import check_memory, fitting
from twin_scanner.executor.memory import Memory
from twin_scanner.render.memory import GIGABYTE, Need
from twin_scanner.service.ledger import NewJob, migrate

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("total", "free", "state"), [(16, 8, "ok"), (16, 3, "warning"), (3, 3, "fault")])
def test_what_does_not_fit_now_is_a_warning_and_what_never_fits_a_fault(total: int, free: int, state: str) -> None:
    finding = fitting(1000, Need(GIGABYTE, 4 * GIGABYTE), Memory(total * GIGABYTE, free * GIGABYTE))
    assert finding.state == state
    assert finding.sentence.startswith("A CT of 1000 slices takes 5.0 GB of memory")


def test_the_largest_ct_of_the_ledger_is_taken_where_it_is_larger_than_a_whole_body(tmp_path: Path) -> None:
    settings = examined_settings(tmp_path, 1, model={"name": "demonstration"})
    (usual,) = check_memory(settings)
    assert "of 1000 slices" in usual.sentence
    settings.storage.folder.mkdir()
    migrate(settings.ledger_url)
    ledger = open_ledger(settings)
    ledger.jobs.open(NewJob("1.2.3", "1.9", "1.2.3.4", "0" * 64, 2400))
    ledger.close()
    (largest,) = check_memory(settings)
    assert "of 2400 slices" in largest.sentence
