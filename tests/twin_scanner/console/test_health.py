"""Whether a process lives and can work. Oracle: one fault at a time, each seen where it belongs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.samples.console_answers import answer_of
from twin_scanner.console.health import Disk, Health, router
from twin_scanner.errors import Transient
from twin_scanner.service.ledger import Ledger, migrate

pytestmark = pytest.mark.record


@pytest.fixture
def file(tmp_path: Path) -> Path:
    migrate(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    return tmp_path / "ledger.sqlite"


def health(ledger: Ledger, file: Path, **checks: Callable[[], object]) -> Health:
    """All is well but what a test says."""
    return Health(ledger, f"sqlite:///{file}", **checks)  # type: ignore[arg-type]


def test_each_fault_is_seen_where_it_belongs(file: Path) -> None:
    ledger = Ledger(f"sqlite:///{file}", node="node", who="test")
    try:
        well = health(ledger, file, disk=lambda: Disk(5, 2))
        assert answer_of(router(well), "/healthz").status_code == 200
        ready = answer_of(router(well), "/readyz")
        assert (ready.status_code, set(ready.json().values())) == (200, {"ok"})
        faults: list[tuple[str, dict[str, Callable[[], object]], tuple[int, int]]] = [
            ("threads", {"threads": lambda: "A thread died."}, (503, 503)),
            ("executor", {"executor": lambda: "No worker takes renders."}, (200, 503)),
            ("disk", {"disk": lambda: Disk(1, 2)}, (200, 503)),
            ("disk", {"disk": no_folder}, (200, 503)),
        ]
        for name, check, codes in faults:
            routes = router(health(ledger, file, **check))
            lives, ready = answer_of(routes, "/healthz"), answer_of(routes, "/readyz")
            assert (lives.status_code, ready.status_code) == codes
            assert [key for key, said in ready.json().items() if said != "ok"] == [name]
    finally:
        ledger.close()


def test_a_ledger_that_does_not_answer_is_no_reason_for_a_restart(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(f"sqlite:///{file}", node="node", who="test")
    monkeypatch.setattr(ledger.overview, "nodes", is_away)
    routes = router(health(ledger, file))
    assert answer_of(routes, "/healthz").status_code == 200
    ready = answer_of(routes, "/readyz")
    assert ready.status_code == 503
    assert ready.json()["ledger"] == "The ledger's database does not answer."
    ledger.close()


def test_a_ledger_of_another_version_is_not_ready(file: Path, tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{file}", node="node", who="test")
    ready = answer_of(router(health(ledger, tmp_path / "none.sqlite")), "/readyz")
    assert ready.status_code == 503
    assert "migration" in ready.json()["migrations"]
    ledger.close()


def no_folder() -> Disk:
    """The storage folder was unmounted."""
    raise FileNotFoundError(2, "No such file or directory", "/var/lib/twin-scanner")


def is_away() -> None:
    """The database is away."""
    raise Transient("The ledger's database does not answer.")
