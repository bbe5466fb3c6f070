"""Metrics and health of a real scanner: its page, its threads, its end, and nothing of the patient whom it got.

Oracle: the identity that a test has sent, and a model package that it reads itself.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.samples.console_answers import answer_of
from tests.samples.examined import examined_settings
from twin_scanner.app import Scanner
from twin_scanner.console import health, metrics
from twin_scanner.monitoring import health_of, monitored_of
from twin_scanner.service.drift import FEWEST, NEWEST, NOTABLE
from twin_scanner.service.ledger import Ledger, NewJob, Result, StudyFacts, migrate
from twin_scanner.service.ledger.studies import Arrival
from twin_scanner.settings import Settings

pytestmark = pytest.mark.node

IDENTITY = ("DOE^JANE", "PID-0815", "ACC-4711", "1.2.840.99.1", "SENDER")


def test_a_running_scanner_says_how_it_is_and_never_whose_a_study_is(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    settings = examined_settings(tmp_path, free_port(), model={"accept_phantom_only": True})
    with Scanner(settings).running() as scanner:
        ledger = scanner.ledger
        now = ledger.database.now()
        ledger.studies.arrived([Arrival("1.2.840.99.1", "SENDER", 20, now, now)])
        ledger.studies.describe("1.2.840.99.1", StudyFacts("20260301", "ACC-4711", "of DOE^JANE PID-0815"))
        job = ledger.jobs.open(NewJob("1.2.840.99.1", "1.9", "1.2.840.99.1.4", "0" * 64, 20))
        pages = [
            answer_of(metrics.router(monitored_of(settings, ledger, has_storage=True)), "/metrics"),
            answer_of(health.router(health_of(settings, ledger, scanner)), "/healthz"),
            answer_of(health.router(health_of(settings, ledger, scanner)), "/readyz"),
        ]
        assert [page.status_code for page in pages] == [200, 200, 200]
        for secret in (*IDENTITY, job.job_id):
            assert not [page for page in pages if secret in page.text], secret
        assert "twin_scanner_model_phantoms_only 1.0" in pages[0].text
        assert "twin_scanner_disk_free_bytes" in pages[0].text
    assert scanner.thread_fault() is not None


def test_an_input_that_shifts_shows_in_the_metrics_and_one_that_does_not_stays_quiet(tmp_path: Path) -> None:
    settings = Settings.model_validate({"storage": {"folder": tmp_path / "storage"}})
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    migrate(url)

    def shift_of(ledger: Ledger) -> dict[str, float]:
        page = answer_of(metrics.router(monitored_of(settings, ledger, has_storage=False)), "/metrics").text
        (family,) = [one for one in text_string_to_metric_families(page) if one.name == "twin_scanner_drift_shift"]
        return {sample.labels["feature"]: sample.value for sample in family.samples}

    def render(ledger: Ledger, number: int, slices: int) -> None:
        job = ledger.jobs.open(NewJob(f"1.2.{number}", "1.3", "1.4", f"{number:064x}", 20))
        with ledger.database.write() as write:
            ledger.results.put(
                write, job.job_id, Result({}, {"slices": slices, "volume_ml": {"head": 4000 + number % 2}})
            )

    with closing(Ledger(url, node="node")) as ledger:
        for number in range(FEWEST):
            render(ledger, number, 300 + number % 3)
        assert shift_of(ledger) == {}
        for number in range(FEWEST, FEWEST + NEWEST):
            render(ledger, number, 120)
        found = shift_of(ledger)
        assert found["slices"] < -NOTABLE and abs(found["volume ml head"]) < NOTABLE
