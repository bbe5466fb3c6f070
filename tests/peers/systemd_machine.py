"""A real systemd as process 1 of a machine of its own: namespaces over a copy-on-write view of this one.

It needs root, overlayfs and cgroups of version 1, as a virtual machine for tests has them. What is written there is
kept in memory and gone at its end; its network is a loopback of its own; units that would touch the kernel are masked.
"""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from types import TracebackType
from typing import Final

PROGRAMS: Final = ("/lib/systemd/systemd", "unshare", "nsenter", "chroot", "ip", "useradd")
CGROUPS: Final = ("systemd", "devices", "memory", "pids")
CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
MASKED: Final = (
    *("systemd-sysctl.service", "systemd-modules-load.service", "systemd-remount-fs.service"),
    *("systemd-random-seed.service", "systemd-udevd.service", "systemd-udev-trigger.service"),
    *("systemd-timesyncd.service", "systemd-binfmt.service", "kmod-static-nodes.service"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-fs-fuse-connections.mount"),
    *("sys-kernel-config.mount", "dev-hugepages.mount", "proc-sys-fs-binfmt_misc.automount"),
)
START_S: Final = 60.0
COMMAND_S: Final = 180.0
SITE_FILE: Final = "opt/twin-scanner/lib/python{0}.{1}/site-packages/checkout.pth"
BEFORE: Final = r"""
set -e
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 none sys/fs/cgroup
for name in systemd devices memory pids; do
  mkdir "sys/fs/cgroup/$name"
  test "$name" = systemd && options=none,name=systemd || options=$name
  mount -t cgroup -o "$options" cgroup "sys/fs/cgroup/$name"
done
mount -t tmpfs -o mode=755 none dev
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mkdir dev/pts dev/shm
ln -s pts/ptmx dev/ptmx
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs -o mode=1777 none dev/shm
mount -t tmpfs -o mode=755 none run
mount -t tmpfs -o mode=1777 none tmp
mkdir -p opt/python opt/checkout opt/site
mount --bind "$2" opt/python
mount --bind "$3" opt/checkout
mount --bind "$4" opt/site
rm -rf etc/systemd/system/*.wants
for unit in $5; do ln -sf /dev/null "etc/systemd/system/$unit"; done
echo /opt/python/lib > etc/ld.so.conf.d/python.conf
chroot . /sbin/ldconfig
useradd --root "$PWD" --system --user-group --home-dir /var/lib/twin-scanner --shell /usr/sbin/nologin twin-scanner
chroot . "/opt/python/bin/$6" -m venv --without-pip /opt/twin-scanner
printf '%s\n' /opt/checkout /opt/checkout/fhir /opt/site > "$7"
cat > opt/twin-scanner/bin/twin-scanner <<'END'
#!/opt/twin-scanner/bin/python
from twin_scanner.cli import main

if __name__ == "__main__":
    main()
END
chmod 755 opt/twin-scanner/bin/twin-scanner
ip link set lo up
exec chroot . env -i container=tests PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --unit=basic.target --log-target=null --show-status=no
"""


def why_not() -> str:
    """What cannot run, and for want of what; empty where it can."""
    if os.geteuid() != 0:
        return "a systemd of our own (only root may start one)"
    if lacking := [one for one in PROGRAMS if shutil.which(one, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]:
        return f"a systemd of our own ({', '.join(lacking)})"
    if not all((CGROUP_ROOT / name / "cgroup.procs").exists() for name in CGROUPS):
        return "a systemd of our own (cgroups of version 1)"
    return ""


class SystemdMachine:
    """Runs while the ``with`` block does; the program is this checkout, as a user finds it in /opt/twin-scanner."""

    def __init__(self, folder: Path, checkout: Path) -> None:
        self._folder, self._checkout = folder, checkout
        self._cgroups = [CGROUP_ROOT / name / f"tests-{os.getpid()}" for name in CGROUPS]
        self._outer: subprocess.Popen[bytes] | None = None
        self._first = 0

    def __enter__(self) -> "SystemdMachine":
        self._folder.mkdir(parents=True)
        for cgroup in self._cgroups:
            cgroup.mkdir()
        join = "".join(f"echo $$ > {cgroup}/cgroup.procs; " for cgroup in self._cgroups)
        unshare = 'exec unshare --pid --fork --kill-child --mount --net --uts --ipc --cgroup sh -c "$0" machine "$@"'
        version = sys.version_info[:2]
        words = [
            *(BEFORE, str(self._folder), sys.base_prefix, str(self._checkout), sysconfig.get_path("purelib")),
            *(" ".join(MASKED), "python{}.{}".format(*version), SITE_FILE.format(*version)),
        ]
        with (self._folder.parent / "machine.log").open("wb") as log:
            self._outer = subprocess.Popen(["sh", "-c", join + unshare, *words], stdout=log, stderr=log)
        try:
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._outer is not None
        if self._first:
            os.kill(self._first, signal.SIGKILL)
        self._outer.kill()
        self._outer.wait(START_S)
        deadline = time.monotonic() + START_S
        for cgroup in self._cgroups:
            folders = [path for path in cgroup.rglob("*") if path.is_dir()]
            for folder in (*sorted(folders, reverse=True), cgroup):
                _remove(folder, deadline)

    def command(self, command: str) -> list[str]:
        """What runs a shell command as root of the machine."""
        enter = ["nsenter", f"--target={self._first}", "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup"]
        return [*enter, "--root", "--wd", "sh", "-c", command]

    def run(self, command: str) -> "subprocess.CompletedProcess[str]":
        """Run it to its end."""
        return subprocess.run(self.command(command), capture_output=True, text=True, timeout=COMMAND_S)

    def in_its_network(self, *words: str) -> list[str]:
        """The command that runs a program of this machine in that one's network."""
        return ["nsenter", f"--target={self._first}", "--net", *words]

    def shown(self, unit: str, key: str) -> str:
        """One property of a unit, as ``systemctl show`` gives it."""
        return self.run(f"systemctl show --property={key} --value {unit}").stdout.strip()

    def _wait(self) -> None:
        assert self._outer is not None
        deadline = time.monotonic() + START_S
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        while self._outer.poll() is None and time.monotonic() < deadline:
            self._first = int((children.read_text().split() or ["0"])[0])
            if self._first and self.run("systemctl is-system-running").stdout.strip() == "running":
                return
            time.sleep(0.2)
        raise RuntimeError(f"systemd did not start: {(self._folder.parent / 'machine.log').read_text()[-2000:]}")


def _remove(cgroup: Path, deadline: float) -> None:
    """Once the last process in it has ended."""
    while (cgroup / "cgroup.procs").read_text():
        if time.monotonic() > deadline:
            raise RuntimeError(f"Processes in {cgroup} do not end.")
        time.sleep(0.05)
    cgroup.rmdir()
