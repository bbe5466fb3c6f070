"""The main job end to end on a generated whole-body CT: a PACS stand-in and the real scanner, on loopback."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dicom_node.client import Peer
from dicom_node.listener import Listener
from dicom_node.sop_classes import CT_CLASSES, OWN_CLASSES
from dicom_node.spool import Spool
from dicom_node.store_scp import StoreScp
from dicom_node.store_scu import send
from training.phantom.files import write_ct_dicom
from training.phantom.phantom import PhantomOptions, make_phantom
from twin_scanner import app
from twin_scanner.errors import Defect, Rejected
from twin_scanner.progress import Progress
from twin_scanner.render.report import FOLDERS, read_report
from twin_scanner.service.ledger import Job, State

PHANTOM_SEED = 7
PHANTOM = PhantomOptions(height_mm=1550.0, body_mass_index=20.0, sex="F", age=45)
"""A small adult: head, trunk, arms and legs are all there, and two cores are done within the minute."""
QUIET_PERIOD_S = 1.0
"""On loopback nothing arrives late: a second of silence is plenty, where a hospital's network needs half a minute."""
TIMEOUT_S = 600.0
"""A machine on which the demonstration takes longer is not going to finish it."""
POLL_S = 0.2
STAGES = (State.QUEUED, State.RENDERED, State.DONE)
RESULTS = ("pet", *FOLDERS.values(), "pet.nii.gz", "districts.nii.gz", "preview.png", "report.json", "twin.json")

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


def run_demo(out: Path, stage: Stage) -> DemoResult:
    """Push a phantom's CT through a real association and wait for its PET; ``stage(name)`` gives a progress function.

    Raises Rejected where ``out`` holds something else than an earlier demonstration, Defect where the job fails.
    """
    _make_room(out)
    with tempfile.TemporaryDirectory(prefix="twin-scanner-demo-") as scratch:
        place = Path(scratch)
        generated = stage("Generating a whole-body CT")
        generated(0, 1)
        phantom = make_phantom(PHANTOM_SEED, PHANTOM)
        ct_files = write_ct_dicom(phantom.ct, place / "ct", seed=PHANTOM_SEED, options=PHANTOM)
        generated(1, 1)
        pacs_spool = Spool(place / "pacs")
        with _pacs_stand_in(pacs_spool).listening() as pacs:
            settings = app.embedded_settings(place / "scanner", pacs.port, QUIET_PERIOD_S)
            with app.Scanner(settings).running() as scanner:
                node = Peer("TWINSCANNER", "127.0.0.1", scanner.receiver.port)
                send(ct_files, node, calling_ae=app.DEMO_PACS_AE, on_progress=stage("Sending the CT by C-STORE"))
                job = _wait_for_job(scanner, stage("Districts, translation, delivery, twin record"))
            record = app.open_twin(settings).patient_record(f"PHANTOM{PHANTOM_SEED:04d}", None)
        received = pacs_spool.files(job.study_uid)
        _collect(out, received, place / "scanner" / "jobs" / job.job_id / "result")
        (out / "twin.json").write_text(json.dumps(record, indent=1, ensure_ascii=False), "utf-8")
    return DemoResult(
        out / "pet",
        len(list((out / "pet").iterdir())),
        out / "pet.nii.gz",
        out / "preview.png",
        out / "report.json",
        out / "twin.json",
    )


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
    return Listener(ae_title=app.DEMO_PACS_AE, host="127.0.0.1", port=0, store=store)


def _wait_for_job(scanner: app.Scanner, progress: Progress) -> Job:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        for job in scanner.ledger.jobs.newest():
            if job.state not in STAGES:
                raise Defect(f"The demonstration's job is {job.state}: {job.reason}")
            progress(STAGES.index(job.state), len(STAGES) - 1)
            if job.state == State.DONE:
                return job
        time.sleep(POLL_S)
    raise Defect(f"The demonstration did not finish within {TIMEOUT_S:.0f} s: is the machine busy with something else?")


def _collect(out: Path, received: tuple[Path, ...], result: Path) -> None:
    """What the PACS stand-in received, by kind, and beside it what was rendered."""
    companions = read_report(result).companions
    folder_of = {companion.sop_instance_uid: Path(companion.file).parent.name for companion in companions}
    for file in received:
        kind = folder_of.get(file.stem, "pet")
        (out / kind).mkdir(exist_ok=True)
        shutil.copyfile(file, out / kind / file.name)
    for name in RESULTS:
        if (result / name).is_file():
            shutil.copyfile(result / name, out / name)
