"""The verb `status`: what arrives, runs, waits and is held, and what went where; from the ledger alone."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from twin_scanner.cli.options import AsJson, ConfigFile, opened_ledger
from twin_scanner.cli.output import INTERRUPTED, print_table
from twin_scanner.cli.work_table import (
    APART,
    COLUMNS,
    as_json,
    delivered_to,
    known_by,
    moment,
    name_of,
    short,
    windows_of,
)

if TYPE_CHECKING:
    from twin_scanner.service.ledger import Ledger, Node, Study, Work

SECTIONS: Final = ("arriving", "running", "waiting", "held", "failed", "rejected", "done")
WATCH_S: Final = 2.0
RECENT: Final = timedelta(days=1)
_CLEAR: Final = "\x1b[2J\x1b[H"

Since = Annotated[
    datetime | None,
    typer.Option(
        "--since",
        formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"],
        help="Only what was opened since this moment, in UTC; unfinished work is shown by status whatever its age.",
    ),
]
Watch = Annotated[bool, typer.Option("--watch", help=f"Show it again every {WATCH_S:g} s, until Ctrl-C.")]


def status(
    since: Since = None,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", help=f"Only this part, several times for more: {', '.join(SECTIONS)}."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The most lines per part.")] = 20,
    watching: Watch = False,
    config: ConfigFile = None,
    print_json: AsJson = False,
) -> None:
    """Show what arrives, runs, waits, is held or went wrong, and what was delivered where: all nodes of the ledger.

    Without --since, what is done or rejected is that of the last 24 hours.
    """
    wanted = state or list(SECTIONS)
    if unknown := sorted(set(wanted) - set(SECTIONS)):
        raise typer.BadParameter(
            f"there is no part {unknown[0]}: choose of {', '.join(SECTIONS)}", param_hint="--state"
        )
    with opened_ledger(config) as ledger:

        def show() -> None:
            now = datetime.now(UTC)
            seen = look(ledger, since.replace(tzinfo=UTC) if since else now - RECENT, wanted, limit)
            if print_json:
                print(json.dumps(seen.as_json(now), indent=None if watching else 1), flush=True)
            else:
                seen.print(now)

        watch(show, clear=watching and not print_json and sys.stdout.isatty()) if watching else show()


def watch(show: Callable[[], None], *, clear: bool, sleep: Callable[[float], None] = time.sleep) -> None:
    """Show it again and again, on an empty screen where it is one, until Ctrl-C."""
    try:
        while True:
            if clear:
                print(_CLEAR, end="")
            show()
            sleep(WATCH_S)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


class _Seen:
    """One look at the ledger."""

    def __init__(
        self,
        since: datetime,
        nodes: "Sequence[Node]",
        counts: dict[str, int],
        parts: "dict[str, list[Work]]",
        apart: "Sequence[Study]",
    ) -> None:
        self._since = since
        self._nodes = nodes
        self._counts = counts
        self._parts = parts
        self._apart = apart

    def as_json(self, now: datetime) -> dict[str, Any]:
        """docs/status.md says what each key means."""
        return {
            "at": moment(now),
            "since": moment(self._since),
            "nodes": [
                {"node": node.name, "renewed_at": moment(node.renewed_at), "alive": node.is_alive(now)}
                for node in self._nodes
            ],
            "counts": self._counts,
            **{name: [as_json(work, now) for work in works] for name, works in self._parts.items()},
            "kept_apart": [{"study_uid": one.study_uid, "instances": one.kept_apart} for one in self._apart],
        }

    def print(self, now: datetime) -> None:
        for node in self._nodes:
            print(f"node {node.name}: {_sign_of_life(node, now)}")
        counts = ", ".join(f"{count} {state}" for state, count in self._counts.items() if count) or "none"
        print(f"jobs since {short(self._since)}, with all that are unfinished: {counts}")
        for name, works in self._parts.items():
            if works:
                columns, cells = _TABLES[name]
                print(f"\n{name.upper()}")
                print_table(
                    [_first_of(name), *COLUMNS, *columns], [[name_of(w), *known_by(w), *cells(w, now)] for w in works]
                )
        for study in self._apart:
            print(f"\nstudy {study.study_uid}: {APART.format(study.kept_apart)}")


def look(ledger: "Ledger", since: datetime, wanted: Iterable[str], limit: int) -> _Seen:
    """What each wanted part holds now."""
    from twin_scanner.service.ledger import Standing, State

    overview = ledger.overview
    looks: dict[str, Callable[[], list[Work]]] = {
        "arriving": lambda: [work for work in overview.arriving(limit) if work.standing != Standing.RUNNING],
        "running": overview.running,
        "waiting": lambda: overview.waiting(limit),
        "held": lambda: overview.held(limit),
        "failed": lambda: overview.failed(limit),
        "rejected": lambda: overview.jobs(limit, since=since, state=State.REJECTED),
        "done": lambda: overview.jobs(limit, since=since, state=State.DONE),
    }
    parts = {name: look() for name, look in looks.items() if name in wanted}
    counts = {state.value: count for state, count in overview.counts(since).items()}
    return _Seen(since, overview.nodes(), counts, parts, overview.apart(limit))


def _arriving(work: "Work", now: datetime) -> list[str]:
    study = work.study
    received = "" if study is None else str(study.received)
    last_at = None if study is None else study.last_instance_at
    return [
        received,
        short(last_at),
        "complete, waits for intake" if work.step else "instances still come, or proof is awaited",
    ]


def _running(work: "Work", now: datetime) -> list[str]:
    seconds = "" if work.begun_at is None else f"{(now - work.begun_at).total_seconds():.0f} s"
    return [work.step, seconds, windows_of(work) or delivered_to(work), work.node]


def _waiting(work: "Work", now: datetime) -> list[str]:
    later = work.next_try_at is not None and work.next_try_at > now
    attempts = "" if work.job is None else str(work.job.attempts)
    return [work.step, work.priority, short(work.next_try_at) if later else "now", attempts, work.reason]


def _with_reason(work: "Work", now: datetime) -> list[str]:
    return [short(None if work.job is None else work.job.updated_at), work.reason]


def _done(work: "Work", now: datetime) -> list[str]:
    return [short(None if work.job is None else work.job.updated_at), delivered_to(work)]


_TABLES: Final[dict[str, tuple[tuple[str, ...], Callable[["Work", datetime], list[str]]]]] = {
    "arriving": (("instances", "last instance", "what comes next"), _arriving),
    "running": (("step", "for", "windows, deliveries", "node"), _running),
    "waiting": (("for", "priority", "next try", "attempts", "reason"), _waiting),
    "held": (("since", "reason"), _with_reason),
    "failed": (("since", "reason"), _with_reason),
    "rejected": (("since", "reason"), _with_reason),
    "done": (("since", "deliveries"), _done),
}


def _first_of(part: str) -> str:
    return "study" if part == "arriving" else "job"


def _sign_of_life(node: "Node", now: datetime) -> str:
    if node.is_alive(now):
        return "runs"
    since = f"since {short(node.renewed_at)}" if node.renewed_at is not None else "in this version"
    return f"gave no sign of life {since}: it does not run, or it cannot reach the ledger"
