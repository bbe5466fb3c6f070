"""What is free: the machine's word and that of the control groups, in a tree of files as Linux lays them out."""

from pathlib import Path

import pytest

from twin_scanner.executor.memory import Memory, memory_of_this_machine

pytestmark = pytest.mark.unit

GB = 10**9


def write(root: Path, **files: str) -> None:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


def machine(root: Path, group: str) -> None:
    write(root, **{"proc/meminfo": "MemTotal: 16000000 kB\nMemFree: 1 kB\nMemAvailable: 8000000 kB\n"})
    write(root, **{"proc/self/cgroup": group})


def test_the_machine_says_what_it_has_where_no_group_limits_us(tmp_path: Path) -> None:
    machine(tmp_path, "0::/system.slice/twin-scanner.service\n")
    write(tmp_path, **{"sys/fs/cgroup/system.slice/twin-scanner.service/memory.max": "max\n"})
    assert memory_of_this_machine(tmp_path) == Memory(16_384_000_000, 8_192_000_000)


def test_a_group_of_version_2_above_us_is_the_limit_and_its_file_pages_are_free(tmp_path: Path) -> None:
    machine(tmp_path, "0::/system.slice/twin-scanner.service\n")
    slice_ = "sys/fs/cgroup/system.slice/"
    write(tmp_path, **{slice_ + "memory.max": f"{4 * GB}\n", slice_ + "memory.current": f"{3 * GB}\n"})
    write(tmp_path, **{slice_ + "memory.stat": f"anon {GB}\ninactive_file {2 * GB}\n"})
    assert memory_of_this_machine(tmp_path) == Memory(4 * GB, 3 * GB)


def test_a_group_of_version_1_is_the_limit_too(tmp_path: Path) -> None:
    machine(tmp_path, "5:cpu:/other\n4:memory:/docker/a\n")
    folder = "sys/fs/cgroup/memory/"
    write(tmp_path, **{folder + "memory.limit_in_bytes": f"{2 * GB}", folder + "memory.usage_in_bytes": f"{2 * GB}"})
    write(tmp_path, **{folder + "memory.stat": "total_inactive_file 500\n"})
    assert memory_of_this_machine(tmp_path) == Memory(2 * GB, 500)


def test_where_nothing_says_nothing_is_known(tmp_path: Path) -> None:
    assert memory_of_this_machine(tmp_path) is None
