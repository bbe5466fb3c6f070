"""The PACS lane against a PACS on loopback that counts: stopped, repeated, down, and on a full disk."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dicom_node.associations import Timeouts
from dicom_node.peers import Peer
from dicom_node.store_scu import Unreadable
from tests.fakes import scanner_node
from tests.fakes.counting_pacs import AE_TITLE, CountingPacs
from tests.fakes.full_disk import files_end_at
from tests.fakes.scanner_node import PET_SLICES, fake_render
from tests.samples.small_ct import write_series
from twin_scanner.errors import Transient, Unavailable
from twin_scanner.render.report import read_delivery
from twin_scanner.render.request import RenderRequest
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger import Delivery
from twin_scanner.service.steps import STORED, Steps, stored_before
from twin_scanner.service.worker import Stopped

pytestmark = pytest.mark.node

JOB_ID = "a" * 32


class Lane:
    """One rendered job and the PACS it goes to."""

    def __init__(self, folder: Path, pacs: CountingPacs) -> None:
        self.pacs = pacs
        self.folders = JobFolders(folder / "jobs")
        self.result = self.folders.result(JOB_ID)
        write_series(self.folders.ct(JOB_ID), slices=2)
        made_at = datetime(2026, 3, 1, tzinfo=UTC)
        request = SimpleNamespace(
            source=self.folders.ct(JOB_ID), result=self.result, made_at=made_at, revision=1, device_serial_number="TS-1"
        )
        fake_render(cast(RenderRequest, request), lambda: None)
        nothing: Any = SimpleNamespace(deliveries=SimpleNamespace(confirmed=lambda delivery, by: None))
        self.steps = Steps(
            ledger=nothing,
            folders=self.folders,
            intake=nothing,
            render=fake_render,
            template=cast(RenderRequest, request),
            pacs=Peer(AE_TITLE, "127.0.0.1", pacs.port),
            calling_ae="TWINSCANNER",
            timeouts=Timeouts(5.0, 5.0, 5.0, 5.0, 5.0),
            twin=nothing,
            zone=UTC,
            breaker=lambda: nothing,
        )

    def deliver(self, *, stop_after: int | None = None, port: int | None = None) -> None:
        """Once, stopped between two instances where that is asked for."""
        left = [PET_SLICES + 1 if stop_after is None else stop_after]

        def beat() -> None:
            if left[0] == 0:
                raise Stopped("The service stops.")
            left[0] -= 1

        peer = self.steps.pacs if port is None else replace(self.steps.pacs, port=port)
        delivery = cast(Delivery, SimpleNamespace(job_id=JOB_ID))
        replace(self.steps, pacs=peer)._store(delivery, beat)

    def counts(self) -> list[int]:
        """How often each instance was stored."""
        return [len(contents) for contents in self.pacs.stored.values()]


@pytest.fixture
def lane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lane]:
    monkeypatch.setattr(scanner_node, "RENDER_S", 0.0)
    with CountingPacs() as pacs:
        yield Lane(tmp_path, pacs)


def test_what_was_stored_before_a_stop_is_not_sent_again(lane: Lane) -> None:
    """A stop during a slow delivery used to end in 106 of 212 instances that were delivered twice."""
    with pytest.raises(Stopped):
        lane.deliver(stop_after=2)
    assert lane.counts() == [1, 1]
    lane.deliver()
    assert lane.counts() == [1] * PET_SLICES
    assert read_delivery(lane.result) == set(lane.pacs.stored)


def test_a_pacs_that_is_down_stops_its_lane(lane: Lane) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        lane.deliver(port=1)
    lane.deliver()
    assert lane.counts() == [1] * PET_SLICES


def test_a_file_that_cannot_be_read_stops_its_own_delivery_and_not_the_lane(lane: Lane) -> None:
    """One job's lost file used to count as a PACS that is down: all others waited."""
    (lane.result / "pet/pet-0002.dcm").unlink()
    with pytest.raises(Unreadable, match=r"pet-0002\.dcm cannot be read"):
        lane.deliver()


def test_a_full_disk_is_no_fault_of_the_job(lane: Lane) -> None:
    lane.deliver(stop_after=None)
    (lane.result / STORED).write_text("1.2.3\n" * 100)
    with files_end_at(600), pytest.raises(Transient, match="What the PACS has answered for cannot be written"):
        lane.deliver()


def test_a_line_that_a_power_cut_left_half_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / STORED).write_text("1.2.3\n1.2.")
    with stored_before(tmp_path) as (stored, _):
        assert stored == {"1.2.3"}
