"""Where renders run: of a Dask scheduler whether it answers, its versions are ours, and workers take renders."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from twin_scanner.app import open_cluster
from twin_scanner.doctor.finding import Finding
from twin_scanner.settings import Settings

if TYPE_CHECKING:
    from twin_scanner.executor.dask_cluster import DaskCluster

NAME: Final = "executor"
COMPARED: Final = ("python", "dask", "distributed", "msgpack", "cloudpickle")
"""What must be the same on both sides for them to understand each other."""


def check_executor(settings: Settings) -> Iterator[Finding]:
    """A scheduler and its workers are asked what they are; a process of this machine is not."""
    if settings.executor.kind == "local":
        return
    with contextlib.closing(open_cluster(settings, "render")) as cluster:
        yield from _cluster_findings(cluster, settings)


def _cluster_findings(cluster: "DaskCluster", settings: Settings) -> Iterator[Finding]:
    section = settings.executor
    workers, places = cluster.workers(), cluster.places()
    how = "by TLS" if section.scheduler.startswith("tls:") else "on this machine"
    yield Finding(NAME, "ok", f"The Dask scheduler {section.scheduler} answers {how}; it has {len(workers)} workers.")
    differing = other_versions(cluster.versions())
    if differing:
        fact = f"The versions of the Dask scheduler or a worker differ from ours in {', '.join(differing)}"
        yield Finding(NAME, "fault", f"{fact}: install the same twin-scanner with its constraints on every machine.")
    if places == 0:
        needs = "sees this storage folder, has this version and offers executor.resources"
        yield Finding(NAME, "fault", f"No worker takes renders: start one that {needs}, as docs/dask.md says.")
    elif places < section.renders:
        fact = f"{places} workers take renders and executor.renders is {section.renders}"
        yield Finding(NAME, "warning", f"{fact}: start more workers, or lower it, so that urgent studies do not wait.")
    else:
        yield Finding(NAME, "ok", f"{places} workers take renders, {section.renders} of which are used at once.")


def other_versions(versions: dict[str, Any]) -> list[str]:
    """The packages of which the scheduler or a worker has another version than this process."""
    ours = versions["client"]["packages"]
    sides = [versions["scheduler"], *versions["workers"].values()]
    return [name for name in COMPARED if any(side["packages"].get(name) != ours.get(name) for side in sides)]
