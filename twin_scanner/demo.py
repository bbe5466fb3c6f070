"""The main job end to end on a generated whole-body CT: a PACS stand-in and the real scanner, on loopback."""

import json
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dicom_node.admission import Admission
from dicom_node.listener import Listener
from dicom_node.peers import Peer
from dicom_node.sop_classes import CT_CLASSES, OWN_CLASSES
from dicom_node.spool import Spool
from dicom_node.store_scp import StoreScp
from dicom_node.store_scu import send
from training.phantom.dicom_series import Examination
from training.phantom.files import write_ct_dicom
from training.phantom.phantom import PhantomOptions, make_phantom
from twin_scanner import app
from twin_scanner.errors import Defect, Rejected
from twin_scanner.progress import Progress
from twin_scanner.render.report import FOLDERS, read_report
from twin_scanner.service.ledger import Job, State
from twin_scanner.settings import Folders

PHANTOM_SEED = 7
PHANTOM = PhantomOptions(spacing_mm=(4.0, 2.04, 2.04), height_mm=1550.0, body_mass_index=20.0, sex="F", age=45)
"""A small adult: head, trunk, arms and legs are all there, and two cores are done within the minute."""
QUIET_PERIOD_S = 1.0
"""On loopback nothing arrives late: a second of silence is plenty, where a hospital's network needs half a minute."""
TIMEOUT_S = 600.0
"""A machine on which the demonstration takes longer is not going to finish it."""
POLL_S = 0.2
STORAGE = "scanner"
"""The scanner's storage folder: ledger and twin record stay there, so that the other verbs can be tried on them."""
CONFIGURATION = "twin-scanner.toml"
RESULTS = (
    "pet",
    *FOLDERS.values(),
    "pet.nii.gz",
    "districts.nii.gz",
    "preview.png",
    "report.json",
    "twin.json",
    STORAGE,
    CONFIGURATION,
)

Stage = Callable[[str], Progress]


@dataclass(frozen=True)
class DemoResult:
    """Where everything is."""

    pet_folder: Path
    pet_count: int
    pet_nifti: Path
    preview: Path
    report: Path
    twin_record: Path
    twin_command: str
    """Shows the twin record again, from the store that the demonstration leaves behind."""


def run_demo(out: Path, stage: Stage) -> DemoResult:
    """Push a phantom's CT through a real association and wait for its PET; ``stage(name)`` gives a progress function.

    Raises Rejected where ``out`` holds something else than an earlier demonstration, Defect where the job fails.
    """
    _make_room(out)
    patient_id = Examination(PHANTOM_SEED, PHANTOM).patient_id
    folders = Folders(out.resolve() / STORAGE)
    with tempfile.TemporaryDirectory(prefix="twin-scanner-demo-") as scratch:
        spool = Spool(Path(scratch) / "pacs")
        with _pacs_stand_in(spool).listening() as pacs:
            settings = app.embedded_settings(folders.root, pacs.port, QUIET_PERIOD_S)
            with app.Scanner(settings).running() as scanner:
                scanner.warm_up()
                ct_files = _generate(Path(scratch) / "ct", stage("Generating a whole-body CT"))
                node = Peer("TWINSCANNER", "127.0.0.1", scanner.receiver.port)
                send(ct_files, node, calling_ae=app.DEMO_PACS_AE, on_progress=stage("Sending the CT by C-STORE"))
                result = _wait_for_job(scanner, folders, spool, stage)
            record = app.open_twin(settings).patient_record(patient_id, None)
        _collect(out, spool, result)
    (out / "twin.json").write_text(json.dumps(record, indent=1, ensure_ascii=False), "utf-8")
    return DemoResult(
        out / "pet",
        len(list((out / "pet").iterdir())),
        out / "pet.nii.gz",
        out / "preview.png",
        out / "report.json",
        out / "twin.json",
        f"twin-scanner twin show {patient_id} --config {shlex.quote(str(_leave_configured(out, folders)))}",
    )


def _generate(folder: Path, progress: Progress) -> tuple[Path, ...]:
    """A phantom's CT as DICOM files."""
    progress(0, 1)
    phantom = make_phantom(PHANTOM_SEED, PHANTOM)
    return write_ct_dicom(phantom.ct, folder, seed=PHANTOM_SEED, options=PHANTOM, progress=progress)


def _make_room(out: Path) -> None:
    """Clear an earlier demonstration's results; anything else in the folder is the user's and stays."""
    if not out.exists():
        out.mkdir(parents=True)
        return
    foreign = sorted(entry.name for entry in out.iterdir() if entry.name not in RESULTS)
    if foreign:
        raise Rejected(f"{out} holds other things ({foreign[0]}): give a new folder, nothing is overwritten.")
    for entry in out.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _pacs_stand_in(spool: Spool) -> Listener:
    """A second listener that keeps whatever it is sent, as a PACS does."""
    store = StoreScp(
        spool=spool, on_stored=lambda _: None, is_own=lambda _: False, kept_classes=(*CT_CLASSES, *OWN_CLASSES)
    )
    admission = Admission(app.DEMO_PACS_AE, open_to_loopback=True)
    return Listener(host="127.0.0.1", port=0, store=store, admission=admission)


class _JobStages:
    """The job's way as one stage after the other; each begins when the one before it has ended."""

    def __init__(self, folders: Folders, received: Spool, stage: Stage) -> None:
        self._folders = folders
        self._received = received
        self._render = stage("Synthesising the PET: districts, networks, DICOM")
        self._deliver = stage("Delivering to the PACS by C-STORE")
        self._record = stage("Recording in the twin")

    def show(self, job: Job) -> None:
        """What is done of the stage that the job is in."""
        if job.state == State.QUEUED:
            self._render(0, 1)
            return
        self._render(1, 1)
        report = read_report(_result(self._folders, job))
        total = len(report.pet_files) + len(report.companions)
        received = len(self._received.files(job.study_uid))
        self._deliver(received, total)
        if received == total:
            self._record(int(job.state == State.DONE), 1)


def _wait_for_job(scanner: app.Scanner, folders: Folders, received: Spool, stage: Stage) -> Path:
    """The folder of the one job's result, when it is done."""
    stages = _JobStages(folders, received, stage)
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        for job in scanner.ledger.jobs.newest():
            if job.state in (State.FAILED, State.REJECTED, State.HELD):
                raise Defect(f"The job of the demonstration ended as {job.state}: {job.reason}")
            stages.show(job)
            if job.state == State.DONE:
                return _result(folders, job)
        time.sleep(POLL_S)
    raise Defect(f"The demonstration did not finish within {TIMEOUT_S:.0f} s: is the machine busy with something else?")


def _result(folders: Folders, job: Job) -> Path:
    return folders.jobs / job.job_id / "result"


def _collect(out: Path, received: Spool, result: Path) -> None:
    """What the PACS stand-in received, under the names of the report, and beside it what was rendered."""
    report = read_report(result)
    names = dict(zip(report.pet_instance_uids, report.pet_files, strict=True))
    names |= {companion.sop_instance_uid: companion.file for companion in report.companions}
    for file in received.files(report.study_uid):
        target = out / names[file.stem]
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)
    for name in RESULTS:
        if (result / name).is_file():
            shutil.copyfile(result / name, out / name)


def _leave_configured(out: Path, folders: Folders) -> Path:
    """Leave ledger and twin record without the images, and a configuration on which the other verbs find them."""
    shutil.rmtree(folders.spool)
    shutil.rmtree(folders.jobs)
    configuration = out / CONFIGURATION
    storage = json.dumps(str(folders.root), ensure_ascii=False)
    configuration.write_text(
        f"# The demonstration's scanner, as it was left.\n\n[storage]\nfolder = {storage}\n", "utf-8"
    )
    return configuration
