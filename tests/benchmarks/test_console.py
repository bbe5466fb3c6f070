"""The benchmark of the console: its percentile by arithmetic, and that every page it asks for is there to be shown."""

from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import console
from benchmarks.ledger import filled
from tests.fakes.app_browser import AppBrowser
from tests.samples.viewed_job import write_viewed_job
from twin_scanner.app import open_twin
from twin_scanner.console.access.guard import AccessRules
from twin_scanner.console.application import create_application
from twin_scanner.console_server import make_site
from twin_scanner.service.ledger import Ledger
from twin_scanner.settings import Settings


@pytest.mark.unit
@pytest.mark.parametrize(("count", "expected"), [(1, 1.0), (19, 19.0), (20, 19.0), (40, 38.0), (100, 95.0)])
def test_the_percentile_is_the_least_that_95_of_100_do_not_exceed(count: int, expected: float) -> None:
    assert console.percentile([float(value) for value in range(count, 0, -1)]) == expected


@pytest.mark.record
def test_every_page_that_is_measured_shows_what_it_is_measured_with(tmp_path: Path) -> None:
    job = write_viewed_job(tmp_path, "f" * 32)
    (job / "result").rename(tmp_path / "translated")
    next((job / "ct").iterdir()).rename(tmp_path / "ct")
    settings = Settings.model_validate({"storage": {"folder": tmp_path / "site"}})
    filled(tmp_path / "site", 300)
    with closing(Ledger(settings.ledger_url, node=console.NODE)) as ledger, closing(open_twin(settings)) as records:
        console.fill_beside(ledger, tmp_path, settings)
        application = create_application(make_site(settings, None, ledger, None, records), AccessRules())
        browser = AppBrowser(application, "http://localhost", "127.0.0.1")
        answers = {what: browser.get(page) for what, page in console.PAGES.items()}
    assert {what: answer.status_code for what, answer in answers.items()} == dict.fromkeys(console.PAGES, 200)
    shown = {what: answer.text for what, answer in answers.items()}
    assert shown["jobs, failed"].count("A reason.") == shown["jobs, rejected long ago"].count("A reason.") == 3
    assert "CTROOM2" in shown["overview"] and "CTROOM2" in shown["arriving"]
    assert "Scan" in shown["drift"] or "slices" in shown["drift"]
    assert '"total": 1' in shown["a patient by FHIR"]
    assert answers["a fused slice"].headers["content-type"] == "image/jpeg"
