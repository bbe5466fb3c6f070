"""Erases a patient from what is ours: the embedded store with its history, and the updates that the ledger keeps."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from twin_record.embedded import EmbeddedStore
from twin_record.resources.content import literal_of
from twin_record.resources.patient import PatientKey
from twin_record.target import TwinTarget
from twin_scanner.errors import Rejected
from twin_scanner.files.sqlite_file import write_back
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger import KeptUpdate, Ledger

NOT_OURS: Final = ("Patient", "Device")
"""What the hospital has of its patient, and what holds no patient."""


@dataclass(frozen=True)
class Erased:
    """What is gone, ``resources`` of the embedded store and ``updates`` of these jobs, and what is not.

    ``files`` are jobs whose images lie here still, or on another node; ``elsewhere`` are resources with our content on
    a FHIR server.
    """

    resources: tuple[str, ...]
    updates: tuple[str, ...]
    files: tuple[str, ...]
    elsewhere: tuple[str, ...]


def erase(
    ledger: Ledger | None,
    folders: JobFolders,
    stores: Sequence[EmbeddedStore],
    server: TwinTarget | None,
    key_of: Callable[[str, str | None], PatientKey],
    patient: tuple[str, str | None],
) -> Erased:
    """Erase the patient of this id and issuer from all of these, the ledger first: nothing is recorded again meanwhile.

    The events say that it was done, by job ids and the List's id alone. Raises Rejected where nothing is known of the
    patient, and as the server does where it cannot be asked for what stays there; the rest is erased by then.
    """
    kept = [] if ledger is None else _kept(ledger, key_of, patient)
    files: tuple[str, ...] = ()
    if ledger is not None and kept:
        job_ids = [update.job_id for update in kept]
        files = (*folders.with_files(job_ids), *ledger.jobs.with_files_elsewhere(job_ids))
        ledger.updates.erase(job_ids)
        ledger.studies.forget_facts(job_ids)
        write_back(ledger.database.engine)
    resources: tuple[str, ...] = ()
    for store in stores:
        with suppress(Rejected):
            erased = store.erase(*patient)
            resources += erased
            if ledger is not None:
                record = next(literal for literal in erased if literal.startswith("List/"))
                ledger.updates.note_erased_record(record, len(erased))
    elsewhere = () if server is None else _elsewhere(server, patient)
    if not kept and not resources and not elsewhere:
        raise Rejected("There is no twin record for this patient id; check the id and its issuer.")
    return Erased(resources, tuple(update.job_id for update in kept), files, elsewhere)


def _kept(
    ledger: Ledger, key_of: Callable[[str, str | None], PatientKey], patient: tuple[str, str | None]
) -> list[KeptUpdate]:
    """The kept updates of the patient; the same id from another issuer is somebody else."""
    wanted = key_of(*patient)
    found = []
    for update in ledger.updates.of_patient(wanted.value):
        key = key_of(update.document["patient_id"], update.document.get("issuer_of_patient_id"))
        if (key.system, key.value) == (wanted.system, wanted.value):
            found.append(update)
    return found


def _elsewhere(server: TwinTarget, patient: tuple[str, str | None]) -> tuple[str, ...]:
    try:
        bundle = server.patient_record(*patient)
    except Rejected as error:
        if type(error) is not Rejected:
            raise
        return ()
    resources = [entry["resource"] for entry in bundle["entry"]]
    return tuple(literal_of(one) for one in resources if one["resourceType"] not in NOT_OURS)
