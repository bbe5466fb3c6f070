"""What a monitor is told: the ledger's numbers, the same from every process, and nothing of a patient.

Oracle: the rows that a test has written itself; prometheus-client's own parser reads the page.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.clock import Clock
from tests.samples.console_answers import answer_of
from twin_scanner.console.health import Disk
from twin_scanner.console.metrics import Monitored, registry_of, router
from twin_scanner.models.card import read_card
from twin_scanner.models.store import DEMONSTRATION_FOLDER
from twin_scanner.service.ledger import Destination, Job, Ledger, NewJob, Rendered, Result, State, migrate

pytestmark = pytest.mark.record

NAME = re.compile(r"twin_scanner_[a-z_]+")
CASE = re.compile(r"alertname: (\w+)\n +exp_alerts:( \[\])?")


@pytest.fixture(scope="module")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger without rows, to be copied."""
    file = tmp_path_factory.mktemp("migrated") / "ledger.sqlite"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_ledger(migrated_file: Path, tmp_path: Path, clock: Clock) -> Iterator[Callable[[str], Ledger]]:
    """Opens the same ledger as a node of this name."""
    file = shutil.copyfile(migrated_file, tmp_path / "ledger.sqlite")
    opened = []

    def make(node: str) -> Ledger:
        opened.append(Ledger(f"sqlite:///{file}", node=node, who="test", now=clock, monotonic_s=clock.monotonic_s))
        return opened[-1]

    yield make
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(open_ledger: Callable[[str], Ledger]) -> Ledger:
    """A ledger whose node is there."""
    made = open_ledger("node")
    made.enter("folder")
    return made


def job_of(ledger: Ledger, number: int) -> Job:
    """A job that waits for its render."""
    return ledger.jobs.open(NewJob(f"1.2.{number}", "1.9", f"1.2.{number}.4", f"{number:064x}", 2))


def monitored(ledger: Ledger) -> Monitored:
    """Everything that can be measured of one installation."""
    return Monitored(
        "0.1.0",
        ledger,
        ("pacs", "twin"),
        disk=lambda: Disk(5_000, 2_000),
        model=lambda: read_card(DEMONSTRATION_FOLDER),
        certificate_days=lambda: {"node": 12.0},
        drift=lambda: {"slices": -0.3},
    )


def page_of(ledger: Ledger) -> str:
    """The page as Prometheus gets it."""
    answer = answer_of(router(monitored(ledger)), "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return answer.text


def value(page: str, name: str, **labels: str) -> float:
    """One sample."""
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return next(s.value for s in samples if s.name == f"twin_scanner_{name}" and s.labels == labels)


def render(ledger: Ledger, clock: Clock, seconds: float) -> None:
    """A job whose render takes so long."""
    job = ledger.jobs.claim()
    assert job is not None
    clock.pass_s(seconds)
    ledger.rendered(job, Rendered(f"2.25.{job.job_id[:8]}", "m", (), Result({}, {}), (Destination("pacs"),)))


def test_queues_stages_and_failures_are_those_of_the_ledger(ledger: Ledger, clock: Clock) -> None:
    for number in range(3):
        job_of(ledger, number)
    render(ledger, clock, 7.0)
    delivery = ledger.deliveries.claim("pacs")
    assert delivery is not None
    ledger.deliveries.postpone(delivery, 30.0, "It does not answer.", error="Unavailable")
    clock.pass_s(50.0)
    page = page_of(ledger)
    assert value(page, "queue_waiting", lane="render") == 2
    assert value(page, "queue_oldest_seconds", lane="render") == pytest.approx(57.0)
    assert value(page, "queue_waiting", lane="pacs") == 1
    assert value(page, "queue_waiting", lane="twin") == 0
    assert value(page, "jobs", state="rendered") == 1
    assert value(page, "stage_seconds_count", stage="render") == 1
    assert value(page, "stage_seconds_sum", stage="render") == pytest.approx(7.0)
    assert value(page, "stage_seconds_bucket", stage="render", le="5.0") == 0
    assert value(page, "stage_seconds_bucket", stage="render", le="10.0") == 1
    assert value(page, "failures_total", stage="pacs", error="Unavailable") == 1
    assert value(page, "destination_up", destination="pacs") == 0
    assert value(page, "destination_up", destination="twin") == 1


def test_a_destination_is_up_again_once_it_has_confirmed(ledger: Ledger, clock: Clock) -> None:
    job_of(ledger, 1)
    render(ledger, clock, 1.0)
    delivery = ledger.deliveries.claim("pacs")
    assert delivery is not None
    ledger.deliveries.postpone(delivery, 0.0, "It does not answer.", error="Unavailable")
    assert value(page_of(ledger), "destination_up", destination="pacs") == 0
    again = ledger.deliveries.claim("pacs")
    assert again is not None
    ledger.deliveries.confirmed(again, "C-FIND")
    page = page_of(ledger)
    assert value(page, "destination_up", destination="pacs") == 1
    last = value(page, "destination_last_success_timestamp_seconds", destination="pacs")
    assert last == pytest.approx(clock().timestamp())


def test_what_is_held_says_for_what(ledger: Ledger) -> None:
    job_of(ledger, 1)
    job = ledger.jobs.claim()
    assert job is not None
    ledger.jobs.hold(job, "Who is it?", "identity")
    page = page_of(ledger)
    assert value(page, "held", kind="job", reason="identity") == 1
    assert value(page, "jobs", state=State.HELD.value) == 1


def test_a_node_and_a_console_of_its_own_say_the_same_however_often_each_was_asked(
    ledger: Ledger, open_ledger: Callable[[str], Ledger], clock: Clock
) -> None:
    node, console = ledger, open_ledger("console")
    pages = []
    for number in range(3):
        job_of(node, number)
        render(node, clock, 3.0)
        pages.append(page_of(node))
    assert value(pages[-1], "stage_seconds_count", stage="render") == 3
    assert page_of(console) == page_of(node) == pages[-1]


def test_a_label_is_never_of_one_patient_study_or_job(ledger: Ledger, clock: Clock) -> None:
    page_before = None
    for number in range(2):
        job_of(ledger, number)
        render(ledger, clock, 1.0)
        names = {
            (s.name, *s.labels.items()) for f in text_string_to_metric_families(page_of(ledger)) for s in f.samples
        }
        assert page_before is None or names == page_before
        page_before = names


def test_alerts_and_dashboard_ask_for_metrics_that_there_are(ledger: Ledger, project: Path) -> None:
    known = set()
    for family in registry_of(monitored(ledger)).collect():
        suffixes = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "info": ("_info",)}
        known |= {family.name + suffix for suffix in suffixes.get(family.type, ("",))}
    for file in ("prometheus/alerts.yml", "grafana/twin-scanner.json"):
        asked = set(NAME.findall((project / "deploy" / file).read_text("utf-8")))
        assert asked, file
        assert asked <= known, file
    documented = set(NAME.findall((project / "docs" / "metrics.md").read_text("utf-8")))
    assert documented >= {name.removesuffix("_bucket") for name in known if not name.endswith(("_sum", "_count"))}


def test_each_alert_has_its_section_in_the_runbook_and_its_tests(project: Path) -> None:
    alerts = set(re.findall(r"- alert: (\w+)", (project / "deploy/prometheus/alerts.yml").read_text("utf-8")))
    runbook = (project / "docs/runbook.md").read_text("utf-8")
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", runbook, re.M | re.S))
    assert set(sections) == alerts
    assert all("Meaning:" in text and "Action:" in text for text in sections.values())
    cases = CASE.findall((project / "deploy/prometheus/alerts.test.yml").read_text("utf-8"))
    fired, silent = ({name for name, none in cases if bool(none) is wanted} for wanted in (False, True))
    assert fired == silent == alerts


def test_promtool_accepts_the_rules_and_their_tests_hold(project: Path, peer: Callable[[str], str]) -> None:
    promtool, folder = peer("promtool"), project / "deploy/prometheus"
    for command in (["check", "rules", folder / "alerts.yml"], ["test", "rules", folder / "alerts.test.yml"]):
        done = subprocess.run([promtool, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_has_a_question_in_every_panel(project: Path) -> None:
    dashboard = json.loads((project / "deploy/grafana/twin-scanner.json").read_text("utf-8"))
    assert dashboard["panels"]
    assert all(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
