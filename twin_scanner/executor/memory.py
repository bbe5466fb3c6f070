"""How much memory this machine has, and how much of it is free: of the machine, and of the control group we run in."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KILOBYTE: Final = 1024
ROOT: Final = Path("/")


@dataclass(frozen=True)
class Memory:
    """Bytes that a process of ours could ever have, and those that it could have now."""

    total: int
    free: int


def memory_of_this_machine(root: Path = ROOT) -> Memory | None:
    """The least of what the machine and each control group above us (version 1 or 2) give; None where nothing says.

    File pages that a group holds are free: the kernel drops them first. ``root`` is where /proc and /sys lie.
    """
    known = [*_of_machine(root), *_of_groups(root)]
    if not known:
        return None
    return Memory(min(one.total for one in known), max(0, min(one.free for one in known)))


def _of_machine(root: Path) -> Iterator[Memory]:
    try:
        lines = (root / "proc/meminfo").read_text("ascii").splitlines()
        values = {name: int(rest.split()[0]) * KILOBYTE for name, _, rest in (line.partition(":") for line in lines)}
        yield Memory(values["MemTotal"], values["MemAvailable"])
    except (OSError, ValueError, KeyError, IndexError):
        return


def _of_groups(root: Path) -> Iterator[Memory]:
    """Each group from ours to the topmost; one without a limit says nothing."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        of_version_2 = controllers == ""
        mount = root / ("sys/fs/cgroup" if of_version_2 else "sys/fs/cgroup/memory")
        names = ("memory.max", "memory.current", "inactive_file")
        if not of_version_2:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        group = Path(path.lstrip("/"))
        for part in (group, *group.parents):
            yield from _of_group(mount / part, *names)


def _of_group(folder: Path, limit: str, used: str, droppable: str) -> Iterator[Memory]:
    try:
        total = int((folder / limit).read_text("ascii"))
        taken = int((folder / used).read_text("ascii"))
        rows = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
        yield Memory(total, total - taken + int(rows.get(droppable, 0)))
    except (OSError, ValueError):
        return
