"""Prometheus metrics, read from the ledger when they are asked for: each node and a console alone say the same.

No label has unbounded values, and none is of a patient: lanes, destinations, nodes and certificates are configured,
states and error classes are ours.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from twin_scanner.console.health import Disk
from twin_scanner.models.card import Card
from twin_scanner.service.ledger import BUCKETS_S, Ledger, StageTimes

PREFIX: Final = "twin_scanner_"


@dataclass(frozen=True)
class Monitored:
    """What is measured beside the ledger.

    ``model`` gives the card of the model in service, or None where it cannot be read; ``certificate_days`` how many
    days each certificate of ours is still valid; ``drift`` by how many standard deviations each feature of the newest
    CTs has shifted; ``destinations`` are the configured names. ``disk`` is None where this process has no storage.
    """

    version: str
    ledger: Ledger
    destinations: tuple[str, ...]
    disk: Callable[[], Disk | None] = lambda: None
    model: Callable[[], Card | None] = lambda: None
    certificate_days: Callable[[], Mapping[str, float]] = dict
    drift: Callable[[], Mapping[str, float]] = dict


class LedgerCollector:
    """A collector of prometheus-client: it holds no number of its own."""

    def __init__(self, monitored: Monitored) -> None:
        self._monitored = monitored

    def describe(self) -> list[Metric]:
        """Nothing is read before somebody asks."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of this moment; raises Transient or Defect where the ledger cannot be read."""
        yield from self._installation()
        yield from self._work()
        yield from self._counted()
        yield from self._nodes()

    def _installation(self) -> Iterator[Metric]:
        yield _info("build", "The version of twin-scanner.", {"version": self._monitored.version})
        card = self._monitored.model()
        if card is not None:
            yield _info("model", "The model in service.", {"name": card.name, "hash": card.model_hash})
            phantoms = {(): float(card.phantom_only)}
            yield _gauge("model_phantoms_only", "1 where the model in service was trained on phantoms only.", phantoms)
        disk = self._monitored.disk()
        if disk is not None:
            yield _gauge("disk_free_bytes", "Free space of the storage folder.", {(): disk.free})
            yield _gauge("disk_reserve_bytes", "Below this free space no image is taken.", {(): disk.reserve})
        days = {(name,): value for name, value in self._monitored.certificate_days().items()}
        yield _gauge("certificate_days", "Days until a certificate of ours expires.", days, "certificate")
        shifts = {(name,): value for name, value in self._monitored.drift().items()}
        text = "Shift of the newest CTs against those before, in standard deviations."
        yield _gauge("drift_shift", text, shifts, "feature")

    def _work(self) -> Iterator[Metric]:
        measures = self._monitored.ledger.measures
        empty = dict.fromkeys(self._monitored.destinations, (0, 0.0))
        queues = {(lane,): queue for lane, queue in {**empty, **measures.queues()}.items()}
        waiting = {lane: queue[0] for lane, queue in queues.items()}
        oldest = {lane: queue[1] for lane, queue in queues.items()}
        yield _gauge("queue_waiting", "What waits, by lane: intake, render, each destination.", waiting, "lane")
        yield _gauge("queue_oldest_seconds", "For how long the oldest of a lane has waited.", oldest, "lane")
        jobs = {(state.value,): count for state, count in measures.jobs().items()}
        yield _gauge("jobs", "Jobs in the ledger, by state.", jobs, "state")
        yield _gauge("held", "What waits for a person, and for what.", measures.held(), "kind", "reason")

    def _counted(self) -> Iterator[Metric]:
        counts = self._monitored.ledger.measures.counts()
        histogram = HistogramMetricFamily(
            f"{PREFIX}stage_seconds", "How long intake, render and each delivery took.", labels=["stage"]
        )
        for stage, times in sorted(counts.stages.items()):
            histogram.add_metric([stage], buckets=_cumulated(times), sum_value=times.total_s)
        yield histogram
        failures = CounterMetricFamily(
            f"{PREFIX}failures", "Attempts that failed, by stage and error class.", labels=["stage", "error"]
        )
        for (stage, error), count in sorted(counts.failures.items()):
            failures.add_metric([stage, error], count)
        yield failures
        given_up = CounterMetricFamily(f"{PREFIX}given_up", "Jobs and deliveries given up.", labels=["outcome"])
        for outcome in ("failed", "rejected"):
            given_up.add_metric([outcome], counts.given_up[outcome])
        yield given_up
        names = sorted({*self._monitored.destinations, *counts.last_success, *counts.down})
        up = {(name,): float(name not in counts.down) for name in names}
        yield _gauge("destination_up", "0 while a destination serves nobody (its breaker is open).", up, "destination")
        last = {(name,): at.timestamp() for name, at in sorted(counts.last_success.items())}
        text = "When a delivery to the destination was last confirmed."
        yield _gauge("destination_last_success_timestamp_seconds", text, last, "destination")

    def _nodes(self) -> Iterator[Metric]:
        measures = self._monitored.ledger.measures
        silent = {(node,): silence_s for node, silence_s in measures.silence_s().items()}
        yield _gauge("node_silent_seconds", "Since when a node has given no sign of life.", silent, "node")
        codes = {(name,): code for name, code in measures.last_runs().items()}
        yield _gauge("run_exit_code", "Exit code of a scheduled command's last run.", codes, "run")


def registry_of(monitored: Monitored) -> CollectorRegistry:
    """A registry of these metrics alone; none of this process's own."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LedgerCollector(monitored))
    return registry


def router(monitored: Monitored) -> APIRouter:
    """``/metrics`` in Prometheus's text format; whoever is let through to it is the access layer's matter."""
    routes = APIRouter(tags=["operation"])
    registry = registry_of(monitored)

    @routes.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return routes


def _gauge(name: str, text: str, values: Mapping[Any, float], *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for of, value in values.items():
        family.add_metric(of, value)
    return family


def _info(name: str, text: str, values: dict[str, str]) -> InfoMetricFamily:
    return InfoMetricFamily(PREFIX + name, text, value=values)


def _cumulated(times: StageTimes) -> list[tuple[str, float]]:
    ends = [*(str(end) for end in BUCKETS_S), "+Inf"]
    return list(zip(ends, map(float, accumulate(times.buckets)), strict=True))
