"""Deliveries on SQLite and PostgreSQL: each destination by itself, one after another where it must; the job's end."""

import threading
from collections.abc import Callable

import pytest

from tests.fakes.clock import Clock
from twin_scanner.errors import Rejected
from twin_scanner.service.ledger import (
    REPLACED,
    Delivery,
    DeliveryState,
    Destination,
    IssuedSeries,
    Job,
    LeaseLost,
    Ledger,
    NewJob,
    Outcome,
    Priority,
    Rendered,
    ResendReason,
    Result,
    State,
)
from twin_scanner.service.ledger.deliveries import PATIENCE

pytestmark = pytest.mark.record

PACS_THEN_TWIN = (Destination("pacs"), Destination("twin", after_required=True))
SIDE_BY_SIDE = (Destination("pacs"), Destination("archive"))


def rendered(
    ledger: Ledger,
    number: int = 1,
    destinations: tuple[Destination, ...] = PACS_THEN_TWIN,
    priority: Priority = Priority.ROUTINE,
) -> Job:
    ledger.jobs.open(NewJob(f"1.{number}", "1.9", "1.2.3", f"{number:064x}", 20, priority=priority))
    job = ledger.jobs.claim()
    assert job is not None
    issued = (IssuedSeries(f"2.25.{number}", "PT", 3), IssuedSeries(f"2.25.{number}.1", "SEG", 1))
    ledger.rendered(
        job, Rendered(f"2.25.{number}", "m", issued, Result({"suv_max": 9.0}, {"slices": 20}), destinations)
    )
    return ledger.jobs.find(job.job_id)


def claimed(ledger: Ledger, destination: str = "pacs") -> Delivery:
    delivery = ledger.deliveries.claim(destination)
    assert delivery is not None
    return delivery


def order(ledger: Ledger) -> list[str]:
    """The jobs in the order in which the PACS would get them."""
    found = []
    while (delivery := ledger.deliveries.claim("pacs")) is not None:
        found.append(delivery.job_id)
    return found


def states(ledger: Ledger, job: Job) -> list[str]:
    """Of the job, then of its deliveries."""
    deliveries = ledger.deliveries.of_jobs([job.job_id])[job.job_id]
    return [ledger.jobs.find(job.job_id).state, *(delivery.state for delivery in deliveries)]


def test_what_a_render_issued_is_known_before_anything_leaves_and_its_report_is_kept(ledger: Ledger) -> None:
    job = rendered(ledger)
    assert ledger.objects.has_issued("2.25.1") and ledger.objects.has_issued("2.25.1.1")
    assert not ledger.objects.has_issued("2.25.2")
    assert [series.modality for series in ledger.objects.of_job(job.job_id)] == ["PT", "SEG"]
    assert ledger.results.of_job(job.job_id) == Result({"suv_max": 9.0}, {"slices": 20})
    assert (job.state, job.pet_series_uid, job.model_hash, job.attempts) == (State.RENDERED, "2.25.1", "m", 0)


def test_a_destination_that_comes_after_another_waits_for_its_confirmation(ledger: Ledger) -> None:
    job = rendered(ledger)
    assert ledger.deliveries.claim("twin") is None
    ledger.deliveries.confirmed(claimed(ledger), "C-STORE status")
    assert states(ledger, job) == ["rendered", "confirmed", "waiting"]
    ledger.deliveries.confirmed(claimed(ledger, "twin"), "FHIR transaction")
    assert states(ledger, job) == ["done", "confirmed", "confirmed"]
    by = [delivery.confirmed_by for delivery in ledger.deliveries.of_jobs([job.job_id])[job.job_id]]
    assert by == ["C-STORE status", "FHIR transaction"]


def test_what_is_stored_but_not_confirmed_leaves_the_job_open_and_comes_due_for_its_confirmation(
    ledger: Ledger, clock: Clock
) -> None:
    job = rendered(ledger)
    outcome = Outcome(asked=3, stored=3, warnings={"0xB000": ("2.25.1.1",)}, not_taken=("1.2.840.66",))
    ledger.deliveries.stored(claimed(ledger), outcome)
    assert states(ledger, job) == ["rendered", "stored", "waiting"]
    stored = claimed(ledger)
    assert (stored.state, stored.outcome, stored.attempts) == (DeliveryState.STORED, outcome, 1)
    ledger.deliveries.confirmed(stored, "query")
    assert states(ledger, job) == ["rendered", "confirmed", "waiting"]


def asked(ledger: Ledger, transaction_uid: str = "2.25.77") -> Job:
    """A job whose delivery to the PACS waits for the report on a storage commitment, for an hour at most."""
    job = rendered(ledger)
    ledger.deliveries.stored(claimed(ledger), Outcome(3, 3))
    delivery = claimed(ledger)
    ledger.deliveries.ask(delivery, transaction_uid)
    ledger.deliveries.wait_for_report(delivery, transaction_uid, 3600.0)
    return job


def test_a_report_is_kept_once_and_lets_its_delivery_be_looked_at_now(ledger: Ledger) -> None:
    job = asked(ledger)
    assert ledger.deliveries.claim("pacs") is None
    assert ledger.deliveries.reported("2.25.77", ["2.25.1.2", "2.25.1.1"])
    assert ledger.deliveries.reported("2.25.77", []), "the same report again is answered alike"
    delivery = claimed(ledger)
    (commitment,) = ledger.deliveries.commitments(delivery)
    assert (delivery.job_id, delivery.transaction_uid) == (job.job_id, "2.25.77")
    assert commitment.kept == ("2.25.1.1", "2.25.1.2") and commitment.reported_at is not None


def test_a_report_that_comes_before_the_answer_to_its_request_is_not_waited_for(ledger: Ledger) -> None:
    rendered(ledger)
    ledger.deliveries.stored(claimed(ledger), Outcome(3, 3))
    delivery = claimed(ledger)
    ledger.deliveries.ask(delivery, "2.25.77")
    assert ledger.deliveries.reported("2.25.77", ["2.25.1.1"])
    ledger.deliveries.wait_for_report(delivery, "2.25.77", 3600.0)
    assert claimed(ledger).delivery_id == delivery.delivery_id


def test_a_report_for_a_transaction_that_nobody_asked_for_is_known_as_such(ledger: Ledger) -> None:
    asked(ledger)
    assert not ledger.deliveries.reported("2.25.78", ["2.25.1.1"])
    assert ledger.deliveries.claim("pacs") is None


def test_another_node_takes_the_report_and_the_delivery_goes_on_where_its_files_are(
    url: str, ledger: Ledger, open_ledger: Callable[..., Ledger]
) -> None:
    asked(ledger)
    other = open_ledger(url, "other")
    assert other.deliveries.reported("2.25.77", ["2.25.1.1"])
    assert other.deliveries.claim("pacs") is None
    assert ledger.deliveries.commitments(claimed(ledger))[0].kept == ("2.25.1.1",)


def test_a_report_that_does_not_come_is_looked_for_when_its_time_is_over(ledger: Ledger, clock: Clock) -> None:
    asked(ledger)
    clock.pass_s(3599.0)
    assert ledger.deliveries.claim("pacs") is None
    clock.pass_s(2.0)
    assert claimed(ledger).transaction_uid == "2.25.77"


def test_what_a_destination_does_not_keep_is_sent_again_by_whoever_found_it(ledger: Ledger) -> None:
    job = asked(ledger)
    ledger.deliveries.reported("2.25.77", [])
    delivery = claimed(ledger)
    ledger.deliveries.not_kept(delivery)
    assert states(ledger, job) == ["rendered", "waiting", "waiting"]
    assert ledger.deliveries.claim("pacs") is None, "the claim goes on"
    ledger.deliveries.postpone(delivery, 0.0, "The PACS does not keep 1 of 3 instances.")
    again = claimed(ledger)
    assert (again.state, again.transaction_uid) == (DeliveryState.WAITING, None)


THREE = (Destination("pacs"), Destination("archive", required=False), Destination("twin", after_required=True))


def test_the_twin_waits_for_every_required_destination_and_for_no_other(ledger: Ledger) -> None:
    both = (Destination("pacs"), Destination("archive"), Destination("twin", after_required=True))
    needs_both, needs_one = rendered(ledger, 1, both), rendered(ledger, 2, THREE)
    for _ in range(2):
        ledger.deliveries.confirmed(claimed(ledger), "query")
    assert claimed(ledger, "twin").job_id == needs_one.job_id
    assert ledger.deliveries.claim("twin") is None
    ledger.deliveries.confirmed(claimed(ledger, "archive"), "query")
    assert claimed(ledger, "twin").job_id == needs_both.job_id


def test_a_job_is_done_without_the_destinations_that_it_does_not_require(ledger: Ledger) -> None:
    job = rendered(ledger, destinations=THREE)
    ledger.deliveries.confirmed(claimed(ledger), "query")
    ledger.deliveries.confirmed(claimed(ledger, "twin"), "FHIR transaction")
    assert states(ledger, job) == ["done", "confirmed", "waiting", "confirmed"]
    late = claimed(ledger, "archive")
    ledger.deliveries.fail(late, "The archive is gone.")
    assert states(ledger, job) == ["done", "confirmed", "failed", "confirmed"]
    assert ledger.retry(job.job_id).state == State.DONE
    ledger.deliveries.confirmed(claimed(ledger, "archive"), "query")
    assert states(ledger, job) == ["done", "confirmed", "confirmed", "confirmed"]


def test_open_deliveries_to_a_destination_that_was_removed_are_held_and_the_job_can_be_done_without_it(
    ledger: Ledger,
) -> None:
    job = rendered(ledger, destinations=(*SIDE_BY_SIDE, Destination("twin", after_required=True)))
    ledger.deliveries.confirmed(claimed(ledger), "query")
    assert ledger.deliveries.hold_for_unknown(["pacs", "twin"]) == 1
    assert states(ledger, job) == ["held", "confirmed", "held", "waiting"]
    assert "no destination 'archive' any more" in ledger.jobs.find(job.job_id).reason
    with pytest.raises(Rejected, match="has no delivery to 'pacs' that is held or has failed"):
        ledger.release_without(job.job_id, "pacs")
    assert ledger.release_without(job.job_id, "archive").state == State.RENDERED
    ledger.deliveries.confirmed(claimed(ledger, "twin"), "FHIR transaction")
    assert states(ledger, job) == ["done", "confirmed", "held", "confirmed"]


def test_a_destination_that_was_given_back_takes_up_what_was_held_for_it(ledger: Ledger) -> None:
    job = rendered(ledger, destinations=SIDE_BY_SIDE)
    ledger.deliveries.hold_for_unknown(["pacs", "twin"])
    ledger.release(job.job_id)
    assert claimed(ledger, "archive").job_id == job.job_id


def test_what_is_left_of_an_earlier_revision_is_looked_at_when_a_later_one_was_rendered(ledger: Ledger) -> None:
    job = rendered(ledger)
    ledger.deliveries.postpone(claimed(ledger), 3600.0, "The PACS cannot be reached.")
    ledger.jobs.open(NewJob(job.study_uid, "1.9", "1.2.3", "f" * 64, 21))
    later = ledger.jobs.claim()
    assert later is not None and later.revision == 2
    made = Rendered("2.25.99", "m", (), Result({}, {}), PACS_THEN_TWIN)
    ledger.rendered(later, made)
    assert claimed(ledger).job_id == job.job_id


def test_a_refused_delivery_is_held_alone_and_its_job_with_the_last_of_the_others(ledger: Ledger) -> None:
    job = rendered(ledger, destinations=SIDE_BY_SIDE)
    ledger.deliveries.hold(claimed(ledger), "The PACS refuses this object.")
    assert states(ledger, job) == ["rendered", "held", "waiting"]
    ledger.deliveries.confirmed(claimed(ledger, "archive"), "C-STORE status")
    assert states(ledger, job) == ["held", "held", "confirmed"]
    assert ledger.jobs.find(job.job_id).reason == "pacs: The PACS refuses this object."


def test_a_released_delivery_goes_on_where_it_stood(ledger: Ledger) -> None:
    job = rendered(ledger)
    ledger.deliveries.hold(claimed(ledger), "The PACS refuses this object.")
    assert states(ledger, job) == ["held", "held", "waiting"]
    assert ledger.release(job.job_id[:8]).state == State.RENDERED
    assert states(ledger, job) == ["rendered", "waiting", "waiting"]
    assert claimed(ledger).attempts == 1


def test_one_held_delivery_is_released_while_another_still_goes_on(ledger: Ledger) -> None:
    job = rendered(ledger, destinations=SIDE_BY_SIDE)
    ledger.deliveries.hold(claimed(ledger), "The PACS refuses this object.")
    assert ledger.release(job.job_id).state == State.RENDERED
    assert states(ledger, job) == ["rendered", "waiting", "waiting"]


def test_a_failed_delivery_fails_its_job_and_a_retry_repeats_that_delivery_alone(ledger: Ledger) -> None:
    job = rendered(ledger)
    ledger.deliveries.confirmed(claimed(ledger), "C-STORE status")
    ledger.deliveries.fail(claimed(ledger, "twin"), "Unexpected KeyError: see the log.")
    assert states(ledger, job) == ["failed", "confirmed", "failed"]
    assert ledger.retry(job.job_id).state == State.RENDERED
    assert states(ledger, job) == ["rendered", "confirmed", "waiting"]
    assert ledger.deliveries.claim("pacs") is None
    ledger.deliveries.confirmed(claimed(ledger, "twin"), "FHIR transaction")
    assert states(ledger, job) == ["done", "confirmed", "confirmed"]


def test_nothing_outside_the_ct_rejects_a_job(ledger: Ledger) -> None:
    job = rendered(ledger)
    ledger.deliveries.reject(claimed(ledger), "The PACS does not want it.")
    assert states(ledger, job)[0] == "held"


def test_deliveries_of_one_job_that_end_at_once_end_the_job(ledger: Ledger) -> None:
    jobs = [rendered(ledger, number, SIDE_BY_SIDE) for number in range(1, 6)]
    for job in jobs:
        pair = (claimed(ledger, "pacs"), claimed(ledger, "archive"))
        together = threading.Barrier(2)

        def confirm(delivery: Delivery, together: threading.Barrier = together) -> None:
            together.wait()
            ledger.deliveries.confirmed(delivery, "C-STORE status")

        threads = [threading.Thread(target=confirm, args=(delivery,)) for delivery in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert states(ledger, job) == ["done", "confirmed", "confirmed"]


def test_who_lost_a_delivery_records_nothing(ledger: Ledger) -> None:
    rendered(ledger)
    lost = claimed(ledger)
    ledger.deliveries.forget(lost)
    ledger.beat()
    claimed(ledger)
    with pytest.raises(LeaseLost):
        ledger.deliveries.confirmed(lost, "C-STORE status")


def test_what_was_postponed_while_a_destination_was_down_is_due_when_it_is_there_again(
    ledger: Ledger, clock: Clock
) -> None:
    for number in (1, 2):
        rendered(ledger, number, SIDE_BY_SIDE)
        ledger.deliveries.postpone(claimed(ledger), 3600.0, "The PACS cannot be reached.")
        ledger.deliveries.postpone(claimed(ledger, "archive"), 3600.0, "The archive cannot be reached.")
    assert ledger.deliveries.claim("pacs") is None
    ledger.deliveries.wake("pacs")
    assert claimed(ledger).attempts == 2 and claimed(ledger).attempts == 2
    assert ledger.deliveries.claim("archive") is None


def test_only_a_failed_or_rejected_job_with_files_is_retried(ledger: Ledger) -> None:
    job = rendered(ledger)
    with pytest.raises(Rejected, match=f"Job {job.job_id} is rendered: only a failed or rejected job can be retried"):
        ledger.retry(job.job_id)
    empty = ledger.jobs.open(NewJob("1.8", "1.9", "", "b" * 64, 0), rejection="No CT.")
    with pytest.raises(Rejected, match="has no CT to try again with: send the study again"):
        ledger.retry(empty.job_id)
    gone = ledger.jobs.open(NewJob("1.7", "1.9", "1.7.1", "c" * 64, 0), rejection="x")
    ledger.jobs.clear([gone.job_id])
    with pytest.raises(Rejected, match="were cleared: send the study again"):
        ledger.retry(gone.job_id)


def test_all_that_was_given_up_is_retried_or_what_has_one_reason(ledger: Ledger) -> None:
    for number, reason in ((1, "The PACS is full."), (2, "Unexpected KeyError: see the log.")):
        rendered(ledger, number)
        ledger.deliveries.fail(claimed(ledger), reason)
    ledger.jobs.open(NewJob("1.8", "1.9", "", "b" * 64, 0), rejection="No CT.")
    assert [job.study_uid for job in ledger.retry_all("PACS is full")] == ["1.1"]
    assert [job.study_uid for job in ledger.retry_all()] == ["1.2"]
    assert ledger.retry_all() == []


def test_a_job_held_before_its_render_is_released_to_the_queue(ledger: Ledger) -> None:
    ledger.jobs.open(NewJob("1.8", "1.9", "1.2.3", "b" * 64, 20))
    job = ledger.jobs.claim()
    assert job is not None
    ledger.jobs.hold(job, "Two patients have this identifier.", "identity")
    held = ledger.jobs.find(job.job_id)
    assert (held.state, held.held_for, held.reason) == (State.HELD, "identity", "Two patients have this identifier.")
    assert ledger.jobs.claim() is None
    assert ledger.release(job.job_id).state == State.QUEUED
    again = ledger.jobs.claim()
    assert again is not None and (again.attempts, again.reason, again.held_for) == (1, "", "")
    with pytest.raises(Rejected, match="nothing of it is held"):
        ledger.release(job.job_id)


def test_an_urgent_result_goes_before_those_that_wait_and_backfill_goes_when_nothing_else_does(
    ledger: Ledger, clock: Clock
) -> None:
    jobs = []
    for number, priority in enumerate((Priority.BACKFILL, Priority.ROUTINE, Priority.URGENT), start=1):
        jobs.append(rendered(ledger, number, priority=priority).job_id)
        clock.pass_s(60.0)
    assert order(ledger) == jobs[::-1]


def test_no_result_waits_for_ever_for_more_urgent_ones(ledger: Ledger, clock: Clock) -> None:
    first = rendered(ledger, 1, priority=Priority.BACKFILL).job_id
    clock.pass_s(28 * 3600.0 + 1.0)
    second = rendered(ledger, 2, priority=Priority.URGENT).job_id
    assert order(ledger) == [first, second]


def test_a_result_that_fails_time_and_again_lets_the_others_go_first(ledger: Ledger, clock: Clock) -> None:
    stuck = rendered(ledger, 1).job_id
    for attempt in range(1, PATIENCE + 1):
        clock.pass_s(60.0)
        delivery = claimed(ledger)
        assert (delivery.job_id, delivery.attempts) == (stuck, attempt)
        if attempt == 1:
            other = rendered(ledger, 2).job_id
        ledger.deliveries.postpone(delivery, 0.0, "The server has an error.")
    assert order(ledger) == [other, stuck]


def test_while_a_destination_is_down_each_result_is_tried_in_turn(ledger: Ledger, clock: Clock) -> None:
    urgent = rendered(ledger, 1, priority=Priority.URGENT).job_id
    clock.pass_s(1.0)
    other = rendered(ledger, 2).job_id
    tried = []
    for _ in range(4):
        delivery = ledger.deliveries.claim("pacs", probing=True)
        assert delivery is not None
        tried.append(delivery.job_id)
        clock.pass_s(1.0)
        ledger.deliveries.postpone(delivery, 0.0, "The server is down.")
    assert tried == [urgent, other, urgent, other]
    assert order(ledger) == [urgent, other]


def done(ledger: Ledger, number: int = 1) -> Job:
    """A job whose PACS has reported that it keeps everything, and whose twin is recorded."""
    job = asked(ledger, f"2.25.77.{number}") if number == 1 else rendered(ledger, number)
    if number == 1:
        ledger.deliveries.reported("2.25.77.1", ["2.25.1.1"])
    ledger.deliveries.confirmed(claimed(ledger), "storage commitment", Outcome(3, 3, not_taken=("1.2.66",)))
    ledger.deliveries.confirmed(claimed(ledger, "twin"), "FHIR transaction")
    return ledger.jobs.find(job.job_id)


def test_what_was_confirmed_is_sent_again_to_that_destination_alone_and_the_job_is_done_after_it(
    ledger: Ledger, clock: Clock
) -> None:
    job = done(ledger)
    before = ledger.deliveries.of_jobs([job.job_id])[job.job_id][0]
    clock.pass_s(60.0)
    assert ledger.resend(job.job_id[:8], "pacs", ResendReason.LOST).state == State.RENDERED
    assert states(ledger, job) == ["rendered", "waiting", "confirmed"]
    assert ledger.deliveries.claim("twin") is None, "the twin holds it already"
    assert ledger.jobs.to_clear(clock.now, None, 10) == [], "its files stay"
    delivery = claimed(ledger)
    assert (delivery.is_resent, delivery.was_confirmed, delivery.attempts) == (True, True, 1)
    assert (delivery.outcome, delivery.stored_at) == (before.outcome, None)
    assert ledger.deliveries.commitments(delivery) == [], "what was reported before counts no more"
    ledger.deliveries.confirmed(delivery, "query")
    assert states(ledger, job) == ["done", "confirmed", "confirmed"]
    (row, _) = ledger.deliveries.of_jobs([job.job_id])[job.job_id]
    assert (row.confirmed_by, row.confirmed_at, row.is_resent) == ("query", clock.now, False)
    (event,) = [one for one in ledger.events.of_row("deliveries", row.delivery_id) if one.what == "resend asked"]
    assert event.detail == {"destination": "pacs", "reason": "lost"}


def test_a_wish_to_send_again_takes_its_turn_and_is_no_render(ledger: Ledger, clock: Clock) -> None:
    old = done(ledger)
    rendered(ledger, 2)
    clock.pass_s(60.0)
    ledger.resend(old.job_id, "pacs", ResendReason.RESTORED)
    assert order(ledger)[-1] == old.job_id
    assert sum(ledger.measures.counts().stages["render"].buckets) == 2


def test_only_what_a_destination_has_confirmed_and_whose_files_are_kept_is_sent_again(
    ledger: Ledger, clock: Clock
) -> None:
    job = done(ledger)
    with pytest.raises(Rejected, match="no delivery that 'archive' has confirmed"):
        ledger.resend(job.job_id, "archive", ResendReason.LOST)
    with pytest.raises(Rejected, match="twin sync"):
        ledger.resend(job.job_id, "twin", ResendReason.LOST)
    ledger.resend(job.job_id, "pacs", ResendReason.LOST)
    with pytest.raises(Rejected, match="no delivery that 'pacs' has confirmed"):
        ledger.resend(job.job_id, "pacs", ResendReason.LOST)
    ledger.deliveries.confirmed(claimed(ledger), "query")
    assert ledger.jobs.clear([job.job_id]) == [job.job_id]
    with pytest.raises(Rejected, match="were cleared"):
        ledger.resend(job.job_id, "pacs", ResendReason.LOST)


def test_a_pet_that_a_later_revision_has_replaced_is_not_sent_again(ledger: Ledger) -> None:
    job = done(ledger)
    ledger.jobs.open(NewJob("1.1", "1.9", "1.2.3", "f" * 64, 40))
    later = ledger.jobs.claim()
    assert later is not None
    ledger.resend(job.job_id, "pacs", ResendReason.LOST)
    ledger.rendered(later, Rendered("2.25.9", "m", (), Result({}, {}), PACS_THEN_TWIN))
    again = claimed(ledger)
    assert again.job_id == job.job_id
    ledger.deliveries.not_again(again)
    assert states(ledger, job) == ["done", "confirmed", "confirmed"]
    with pytest.raises(Rejected, match=f"send job {later.job_id} again"):
        ledger.resend(job.job_id, "pacs", ResendReason.LOST)


def test_what_comes_last_begins_also_where_what_was_to_be_sent_again_is_not(ledger: Ledger) -> None:
    """The other destination's delivery ended while this one waited to be made again."""
    job = rendered(ledger, 1, (*SIDE_BY_SIDE, Destination("twin", after_required=True)))
    ledger.deliveries.confirmed(claimed(ledger), "query")
    ledger.resend(job.job_id, "pacs", ResendReason.LOST)
    ledger.deliveries.confirmed(claimed(ledger, "archive"), REPLACED)
    ledger.deliveries.not_again(claimed(ledger))
    assert states(ledger, job) == ["rendered", "confirmed", "confirmed", "waiting"]
    ledger.deliveries.confirmed(claimed(ledger, "twin"), "FHIR transaction")
    assert states(ledger, job)[0] == "done"
