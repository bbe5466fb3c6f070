"""Every command of the pages is run as it stands there, or is listed with the reason why not.

A page has a folder of its own in which its commands run in their order, with the words in capitals filled in; the
services that they speak to are one real `serve`, one Orthanc and a DICOMweb server that refuses.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pydicom
import pytest

from dicom_node.peers import Peer
from dicom_node.store_scu import send
from tests.fakes.scripted_stow import ScriptedStow
from tests.peers.orthanc import Orthanc
from tests.peers.ports import free_port
from tests.peers.scanner_process import ScannerProcess
from tests.samples.saved_packages import saved_package
from training.phantom.files import write_ct_dicom
from training.phantom.phantom import PhantomOptions, make_phantom
from twin_scanner.imaging.volume import Volume, write_nifti
from twin_scanner.models.card import read_card
from twin_scanner.models.store import DEMONSTRATION_FOLDER

pytestmark = pytest.mark.system

DEBIAN_ROOT: Final = "it changes the system: test_debian_root.py, where it is asked for, runs the section By hand"
NO_ENGINE: Final = "no container engine is here: deploy/README.md says what was checked instead"
INDEX: Final = "it installs from a package index"
OTHER_MACHINES: Final = "it is for another machine of a cluster: test_dask_nodes.py runs scheduler and worker"
HOURS: Final = "it takes hours, or data that are not here: test_documentation.py reads its line"
NOT_HERE: Final = {
    "make demo": "the gate runs it",
    "make test": "the gate runs it, and a test would run itself",
    "apt-get ": DEBIAN_ROOT,
    "useradd ": DEBIAN_ROOT,
    "install -": DEBIAN_ROOT,
    "sed -i ": DEBIAN_ROOT,
    "ln -s /opt/": DEBIAN_ROOT,
    "su --shell": DEBIAN_ROOT,
    "python3 -m venv /opt/": DEBIAN_ROOT,
    "/opt/twin-scanner/bin/pip": DEBIAN_ROOT,
    "systemctl ": "it needs systemd: test_systemd_machine.py starts and stops the unit",
    "podman ": NO_ENGINE,
    "pip ": INDEX,
    "cyclonedx-py ": INDEX,
    "pip-audit ": INDEX,
    "cryptsetup ": "it formats a disk",
    "mkfs.ext4 ": "it formats a disk",
    "mount /dev/": "it formats a disk",
    "chown ": DEBIAN_ROOT,
    "chmod 0700 /var/": DEBIAN_ROOT,
    "dask ": OTHER_MACHINES,
    "benchmarks/gpu_check.sh": "it needs a GPU",
    "python -m benchmarks": "it measures for minutes",
    "python -m monai.bundle": "tests/training/exchange runs it",
    "twin-scanner train training/configs/demonstration.toml": HOURS,
    "twin-scanner train training/configs/districts-or-whole.toml": HOURS,
    "twin-scanner evaluate --model champion --dataset FDG-PET-CT-Lesions": HOURS,
    "twin-scanner evaluate --model runs/a-s1/package": HOURS,
    "GET /Provenance": "it is a request to a hospital's FHIR server",
}
"""How the commands begin that are run by no test of this file, and why."""
SHELL: Final = re.compile(r"(?:\.venv/bin/)?(?:twin-scanner|python|dask|openssl) |GET /")
"""How a line begins that is a command, in a block that holds other text too."""
ENDS_ALONE: Final = ("--watch",)
SERVES: Final = "twin-scanner serve"
LIVE: Final = ("docs/destinations.md", "docs/receiving.md")
"""The pages whose commands speak to the node that serves; those of the others have a node that was restored."""
PATIENT_ID: Final = "P-2468"
PHANTOM: Final = PhantomOptions(spacing_mm=(10.0, 5.0, 5.0))
LEAST_RUN: Final = {
    "count": "2",
    "features": "2",
    "discriminator_features": "2",
    "constant_epochs": "1",
    "decay_epochs": "0",
    "patches_per_study": "1",
    "workers": "1",
    "precision": '"float32"',
}
"""Of a training configuration that is the documented one otherwise: the run takes seconds, not minutes or days."""
CALIBRATED: Final = 25
"""So many patients that a fifth of them are enough for --calibrate."""
WAIT_S: Final = 240.0
COMMAND_S: Final = 580.0


@dataclass(frozen=True)
class Command:
    """A line of a page, continued lines joined."""

    page: str
    line: str

    @property
    def plain(self) -> str:
        """Without the folder that a checkout's programs lie in."""
        return self.line.replace(".venv/bin/", "")

    @property
    def reason(self) -> str | None:
        """Why it is not run; None where it is."""
        return next((why for beginning, why in NOT_HERE.items() if self.plain.startswith(beginning)), None)


def documented(project: Path) -> list[Command]:
    """The commands of README, deploy/README.md and docs/, page by page."""
    pages = [project / "README.md", project / "deploy" / "README.md", *sorted((project / "docs").rglob("*.md"))]
    found = []
    for page in pages:
        for kind, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            lines = [line.strip() for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
            wanted = [line for line in lines if line and (kind == "sh" or (kind == "text" and SHELL.match(line)))]
            found += [Command(str(page.relative_to(project)), line) for line in wanted]
    return found


PROJECT: Final = Path(__file__).resolve().parent.parent.parent
CONFIGS: Final = PROJECT / "training" / "configs"
COMMANDS: Final = documented(PROJECT)
RUN: Final = [command for command in COMMANDS if command.reason is None]


def test_no_reason_is_left_of_a_command_that_is_gone() -> None:
    unused = [b for b in NOT_HERE if not any(command.plain.startswith(b) for command in COMMANDS)]
    assert unused == []
    assert len(COMMANDS) >= 80
    assert len(RUN) >= 65


def test_shell_commands_stand_in_blocks_that_say_so(project: Path) -> None:
    """A block without a kind, or of text, would pass by this file unseen."""
    for page in [project / "README.md", project / "deploy" / "README.md", *sorted((project / "docs").rglob("*.md"))]:
        for block in re.findall(r"^ *```\n(.*?)^ *```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            assert not re.search(r"^(\$|twin-scanner|openssl|pip|python|make) ?", block, re.MULTILINE), page


@dataclass
class Site:
    """One node with its neighbours, which has translated one study and holds another."""

    scanner: ScannerProcess
    settings: dict[str, dict[str, object] | list[dict[str, object]]]
    backup: Path
    ct: Path
    job_id: str
    held_uid: str


def head_of(seed: int) -> Volume:
    """HU of head and neck of a phantom, on a coarse grid."""
    ct = make_phantom(seed, PHANTOM).ct
    depth, height, width = ct.geometry.shape
    return ct.cropped((slice(depth - 26, depth), slice(0, height), slice(0, width)))


def ct_of(seed: int, folder: Path) -> list[Path]:
    """It as DICOM, of the patient whom the pages ask for."""
    files = sorted(write_ct_dicom(head_of(seed), folder, seed=seed, options=PHANTOM))
    for file in files:
        image = pydicom.dcmread(file)
        image.PatientID, image.IssuerOfPatientID = PATIENT_ID, "HOSPITAL"
        image.PatientName, image.PatientBirthDate, image.PatientSex = "Nobody^A", "19500101", "O"
        image.AccessionNumber, image.StudyDate = f"A12345{seed}", "20260301"
        image.save_as(file)
    return files


def with_values(toml: str, values: Mapping[str, str]) -> str:
    """A configuration with these values for these keys, in whatever table they stand."""
    for key, value in values.items():
        toml = re.sub(rf"^{key} = .*$", f"{key} = {value}", toml, flags=re.MULTILINE)
    return toml


def write_own_studies(folder: Path) -> None:
    """STUDIES in autoPET's layout, small heads, and mine.toml: changed as docs/training.md says, and made small too."""
    for seed in range(CALIBRATED):
        phantom = make_phantom(seed, PHANTOM)
        depth, height, width = phantom.geometry.shape
        place = folder / "STUDIES" / f"patient-{seed}" / f"study-{seed}"
        place.mkdir(parents=True)
        box = (slice(depth - 18, depth), *(slice(edge // 2 - 26, edge // 2 + 26) for edge in (height, width)))
        for name, volume in (("CT", phantom.ct), ("SUV", phantom.pet)):
            part = volume.cropped(box)
            write_nifti(place / f"{name}.nii.gz", part.array, part.geometry)
    paper = (CONFIGS / "autopet-pix2pix-whole-body.toml").read_text("utf-8")
    own = {"folder": '"stores/mine"', "split": '"stores/mine-split.json"', "name": '"mine"', "out": '"runs/mine"'}
    (folder / "mine.toml").write_text(with_values(paper, own | LEAST_RUN), "utf-8")


def lay_out_training(folder: Path, page: str) -> None:
    """What a page trains with; a page that does not train has packages of such runs."""
    configs = folder / "training" / "configs"
    if page == "docs/tour/engineer.md":
        configs.mkdir(parents=True)
        (configs / "smoke.toml").write_text(
            with_values((CONFIGS / "smoke.toml").read_text("utf-8"), LEAST_RUN), "utf-8"
        )
        return
    configs.parent.symlink_to(PROJECT / "training")
    if page == "docs/training.md":
        write_own_studies(folder)
        return
    for number, name in enumerate(("mine", "smoke")):
        saved_package(folder / "runs" / name / "package", name, seed=number, plan=read_card(DEMONSTRATION_FOLDER).plan)


def wait_for(what: str, found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not found():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str], str]) -> Iterator[Site]:
    peer("Orthanc")
    folder = tmp_path_factory.mktemp("site")
    node, pacs, rest = free_port(), free_port(), free_port()
    web = ScriptedStow()
    web.script = [(400, {}, {})] * 1000
    with ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("TWIN_SCANNER__TWIN__ISSUER_SYSTEMS", json.dumps({"HOSPITAL": "urn:oid:2.999.1"}))
        web_url = stack.enter_context(web.listening())
        modality = {"TWINSCANNER": ("TWINSCANNER", "127.0.0.1", node)}
        stack.enter_context(Orthanc(folder / "pacs", pacs, rest, "PACS", modality))
        settings: dict[str, dict[str, object] | list[dict[str, object]]] = {
            "node": {"port": node, "quiet_period_s": 0.5, "longest_wait_s": 3.0, "minimum_free_mb": 0},
            "peers": [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs}],
            "destinations": [
                {"name": "archive", "peer": "pacs"},
                {"name": "research", "url": web_url, "required": False, "confirm": "status"},
            ],
            "scanner": {"accept_synthetic_ct": True},
            "twin": {"patient_identifier_system": "urn:oid:2.999.1"},
        }
        scanner = stack.enter_context(ScannerProcess(folder / "scanner", **settings))
        scanner.start()
        whole, other = ct_of(6, folder / "ct"), ct_of(7, folder / "other")
        head = head_of(6)
        write_nifti(folder / "CT.nii.gz", head.array, head.geometry)
        for files, port in ((whole, pacs), (other, pacs), (whole, node), (other[:20], node)):
            send(files, Peer("PACS" if port == pacs else "TWINSCANNER", "127.0.0.1", port), calling_ae="PACS")
        scanner.wait_until_done(1, WAIT_S)
        wait_for("the held study", lambda: bool(json.loads(scanner.ask("status", "--json"))["held"]))
        held = [one["study_uid"] for one in json.loads(scanner.ask("status", "--json"))["held"] if not one["job_id"]]
        scanner.ask("models", "import", str(DEMONSTRATION_FOLDER))
        backup = Path(scanner.ask("backup", str(folder / "backups")).strip())
        yield Site(scanner, settings, backup, folder / "ct", scanner.jobs()[0]["job_id"], held[0])


class Sandbox:
    """Runs a page's commands in a folder of their own."""

    def __init__(self, folder: Path, page: str, site: Site) -> None:
        self.folder, self.site = folder, site
        settings = {**site.settings, "node": {**dict(site.settings["node"]), "port": free_port()}}  # type: ignore[arg-type]
        self.node = ScannerProcess(folder / "node", **settings)
        live = page in LIVE
        self.config = site.scanner.config if live else self.node.config
        if not live:
            self.node.ask("restore", str(site.backup))
        for name in ("benchmarks", "constraints.txt"):
            (folder / name).symlink_to(PROJECT / name)
        (folder / "etc").mkdir()
        (folder / "bin").mkdir()
        for name in ("twin-scanner", "python"):
            (folder / "bin" / name).symlink_to(Path(sys.executable).parent / name)
        (folder / "CT.nii.gz").symlink_to(site.ct.parent / "CT.nii.gz")
        lay_out_training(folder, page)
        self.port, console = free_port(), free_port()
        for block in re.findall(
            r"^ *```toml\n(.*?)^ *```", (PROJECT / page).read_text("utf-8"), re.DOTALL | re.MULTILINE
        ):
            if "tour" in page:
                text = block.replace("11112", str(self.port)).replace("8042", str(console))
                (folder / "tour.toml").write_text(re.sub("^ +", "", text, flags=re.MULTILINE), "utf-8")
        self._serving: list[subprocess.Popen[str]] = []

    def filled(self, line: str) -> str:
        """The line with real names for those that a reader replaces."""
        backups = sorted((self.folder / "backups").glob("*"))
        names = {
            "deploy/twin-scanner.example.toml": str(self.config),
            "/var/backups/twin-scanner/20261129T011500Z": str(backups[-1]) if backups else "",
            "/var/backups/twin-scanner": str(self.folder / "backups"),
            "/var/lib/twin-scanner": str(self.node.storage),
            "/etc/twin-scanner": str(self.folder / "etc"),
            "1.2.840.113619.2.55.3.1": self.site.held_uid,
            "A123456": "A123456",
            "voxel:40,120,98": "voxel:32,41,77",
            "PATIENT_ID": PATIENT_ID,
            "--to pacs": "--to archive",
            "CT_FOLDER": str(self.site.ct),
            "JOB": self.site.job_id,
            "3f9a": self.site.job_id[:6],
            "11112": str(self.port),
            ".venv/bin/": "",
        }
        for written, real in names.items():
            line = line.replace(written, real)
        return line

    def run(self, command: Command) -> None:
        """Run it; it must end well. What serves goes on until the end of the page."""
        # A shell in the background, as a gate may be, has its children ignore what Ctrl-C sends.
        words = [
            "env",
            "--default-signal=INT",
            "sh",
            "-euc",
            f"exec {line}" if (line := self.filled(command.line)).startswith("twin-") else line,
        ]
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "TWIN_SCANNER_CONFIG": str(self.config), "TCP_NODELAY": "1"}
        process = subprocess.Popen(
            words, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if command.plain.startswith(SERVES):
            self._serving.append(process)
            assert process.stdout is not None
            assert process.stdout.readline().startswith("listening "), process.communicate()[1][-2000:]
            return
        if any(option in command.line for option in ENDS_ALONE):
            assert process.stdout is not None
            assert process.stdout.readline()
            process.send_signal(signal.SIGINT)
        try:
            said, errors = process.communicate(timeout=COMMAND_S)
        finally:
            process.kill()
        ends = (0, 130) if any(option in command.line for option in ENDS_ALONE) else (0,)
        assert process.returncode in ends, f"{words[-1]}: {process.returncode}\n{said[-2000:]}\n{errors[-2000:]}"

    def close(self) -> None:
        """End what serves; it must end well too."""
        for process in self._serving:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors[-2000:]


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", sorted({command.page for command in RUN}))
def test_the_commands_of_a_page_do_what_they_are_documented_for(page: str, site: Site, tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path / "sandbox", page, site)
    try:
        for command in RUN:
            if command.page == page:
                begun = time.monotonic()
                sandbox.run(command)
                print(f"{time.monotonic() - begun:6.1f} s  {command.line}")
    finally:
        sandbox.close()
