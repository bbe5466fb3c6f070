"""Wires everything together: settings in, a running scanner out; the only such place."""

import contextlib
import logging
import math
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar
from zoneinfo import ZoneInfo

from pydicom import Dataset

from dicom_node.addresses import network_of
from dicom_node.admission import Admission
from dicom_node.associations import Timeouts
from dicom_node.commitment import CommitmentReport, CommitmentReports
from dicom_node.evidence import Completeness
from dicom_node.listener import Listener
from dicom_node.peers import Peer, Role
from dicom_node.places import AssociationLimits
from dicom_node.qido import study_owners_at
from dicom_node.query import QueryLimits, find_series_counts
from dicom_node.receipt import MEGABYTE, ReceiptLimits
from dicom_node.spool import Spool
from dicom_node.store_scp import ReceivedInstance, StoreScp
from dicom_node.stow import StowService
from dicom_node.study_owner import study_owners
from dicom_node.tls import ServerTls, TlsFiles
from dicom_node.tls_validity import validity_of
from twin_record.auth import TokenFile
from twin_record.client_credentials import Client, ClientCredentials, ClientSecret, PrivateKey
from twin_record.connection import trusted_authorities
from twin_record.embedded import EmbeddedStore
from twin_record.patient_identity import PatientIdentity
from twin_record.remote import FhirClient
from twin_record.resources.patient import patient_key
from twin_record.target import TwinTarget
from twin_record.update import TwinSite
from twin_scanner.console.audit.forwarding import Forwarding
from twin_scanner.console.audit.syslog import SyslogServer
from twin_scanner.dicom.equipment import is_our_own
from twin_scanner.dicom.read.preference import Preference
from twin_scanner.dicom.read.series_choice import Choice
from twin_scanner.districts.choice import SegmenterChoice
from twin_scanner.errors import Misconfigured, Rejected, Transient
from twin_scanner.executor.local import LocalProcesses
from twin_scanner.executor.waiting import Limit, let_end, wait
from twin_scanner.executor.work_place import STORAGE_ID, WorkKind, WorkPlace, read_storage_id
from twin_scanner.executor.workers import Workers
from twin_scanner.files.durable_file import write_durably
from twin_scanner.files.file_lock import take_lock
from twin_scanner.logs import set_up_service_logging
from twin_scanner.models.compute import Compute
from twin_scanner.preconditions import check_model, check_segmenter
from twin_scanner.render.exchange import Carried, Exchange, InPlace, Shared
from twin_scanner.render.in_worker import check_compute_in_worker, load_in_worker, read_ahead_in_worker
from twin_scanner.render.memory import check_memory, need_of
from twin_scanner.render.outside_training import outside_training, states_ranges
from twin_scanner.render.report import RenderReport
from twin_scanner.render.request import Outputs, RenderRequest
from twin_scanner.service.ahead import Ahead
from twin_scanner.service.breaker import Breaker
from twin_scanner.service.image_delivery import ImageDestination
from twin_scanner.service.image_target import DicomTarget, ImageTarget, StowTarget
from twin_scanner.service.inquiry import PATIENCE_S, Inquiry, Source
from twin_scanner.service.intake import Arrivals, Intake, JobFolders, choices_of
from twin_scanner.service.ledger import Ledger, Priority, migrate, migration_state, utc_now
from twin_scanner.service.preflight import FindPatients, PatientSource, Preflight
from twin_scanner.service.retention import clear_aged
from twin_scanner.service.retry import DAY_S, RetryPolicy
from twin_scanner.service.schedule import CommandSchedule, PeriodicTasks
from twin_scanner.service.steps import TWIN, Steps
from twin_scanner.service.study_facts import read_study_facts
from twin_scanner.service.twin_erasure import Erased, erase
from twin_scanner.service.twin_sync import keep_missing
from twin_scanner.service.worker import Beat, Worker
from twin_scanner.settings import DestinationSection, Folders, PeerSection, Settings, TwinSection
from twin_scanner.settings.twin import OWN_IDENTIFIER_SYSTEM

if TYPE_CHECKING:
    from twin_scanner.executor.dask_cluster import DaskCluster

LOG = logging.getLogger("twin_scanner.app")
R = TypeVar("R")

DEMO_PACS_AE = "DEMOPACS"
SWEEP_S = 0.5
"""How often the completeness of the studies in the spool is looked at, where no look at one asks for it at once."""
LOOK_S = 0.1
"""How exactly a look at a study begins when it is due."""
INQUIRY_S = 30.0
"""How long a peer may take to count a study."""
HOUR_S = 3600.0
CLEARING_S = 600.0
AUDIT_S = 10.0
"""How often aged files are cleared away."""
HEARTBEAT_S = 0.5
DEVICE_S = 120.0
"""How often a stop is looked for while another process works."""
FILES_PER_LIMIT = 1000
"""So many files of a study may take limits.reading_s; twice as many, twice as long."""
AHEAD_S = 60.0
"""What is read ahead of the proof that a study is complete holds up what is asked for no longer than this."""
LONGEST_PROBE_DELAY_S = 60.0
"""A destination that is down is asked at least so often whether it is there again."""
RECEIVER_STOP_S, RETRAINING_STOP_S, TASKS_STOP_S, WORKER_STOP_S = 10.0, 10.0, 5.0, 15.0
"""How long a stop waits for each of them; what is left is repeated after the next start."""
IDENTITY_CHECK_STOP_S = 2.0
"""The same for the check of identities: it only reads, so the next one makes up for it."""
STOP_BUDGET_S = 45.0
"""A stop takes no longer, whatever does not end; TimeoutStopSec of deploy/twin-scanner.service is above it."""


def open_ledger(settings: Settings, now: Callable[[], datetime] = utc_now) -> Ledger:
    """The ledger that the configuration names; raises Rejected where there is none yet, or one of another version."""
    return Ledger(settings.ledger_url, node=settings.node.name, now=now, lease_s=settings.ledger.lease_s)


def open_twin(settings: Settings) -> TwinTarget:
    """The FHIR server, or the embedded store where no URL is given."""
    twin = settings.twin
    if not twin.url:
        folders = Folders(settings.storage.folder)
        folders.prepare()
        return EmbeddedStore(folders.twin, twin_site(settings))
    site = twin_site(settings)
    return FhirClient(twin.url, site, auth=_twin_access(twin), timeout_s=twin.timeout_s, ca_file=twin.ca_file)


def twin_site(settings: Settings) -> TwinSite:
    """What the configuration wants of the record, wherever it is kept."""
    twin = settings.twin
    return TwinSite(
        patient_identifier_system=twin.identifier_system,
        zone=twin.zone,
        systems_by_issuer=twin.issuer_systems,
        unknown_patient=twin.policy_for_unknown,
        accept_identifier_alone=twin.takes_identifier_alone,
        instances=twin.instances,
        accession_system=twin.accession_system,
        based_on=twin.based_on,
        endpoint=twin.endpoint,
        diagnostic_report=twin.diagnostic_report,
    )


def _twin_access(twin: TwinSection) -> TokenFile | ClientCredentials | None:
    """How the FHIR server lets us in; None where it asks for nothing."""
    if twin.token_file is not None:
        return TokenFile(twin.token_file)
    if twin.private_key_file is not None:
        client: Client = PrivateKey(twin.client_id, twin.private_key_file)
    elif twin.client_secret_file is not None:
        client = ClientSecret(twin.client_id, twin.client_secret_file)
    else:
        return None
    return ClientCredentials(client, twin.url, token_url=twin.token_url, scope=twin.scope)


def twin_name(settings: Settings) -> str:
    """What the ledger calls the place that ``open_twin`` opens."""
    return settings.twin.url.rstrip("/") or "embedded"


def erase_patient(settings: Settings, patient_id: str, issuer: str | None) -> Erased:
    """Erase a patient from the ledger and the embedded store, where they are; see ``twin_erasure.erase``.

    The embedded store may be there beside a FHIR server, from before the move to it.
    """
    site, file = twin_site(settings), Folders(settings.storage.folder).twin
    with ExitStack() as closing:
        ledger = server = None
        stores = []
        if migration_state(settings.ledger_url) is not None:
            ledger = closing.enter_context(contextlib.closing(open_ledger(settings)))
        if file.exists():
            # A move to a server gave the ids without an issuer another system: the store of before has its own.
            systems = {site.patient_identifier_system, OWN_IDENTIFIER_SYSTEM}
            sites = [replace(site, patient_identifier_system=system) for system in systems]
            stores = [closing.enter_context(contextlib.closing(EmbeddedStore(file, one))) for one in sites]
        if settings.twin.url:
            server = closing.enter_context(contextlib.closing(open_twin(settings)))
        job_folders = JobFolders(Folders(settings.storage.folder).jobs)
        return erase(ledger, job_folders, stores, server, partial(patient_key, site=site), (patient_id, issuer))


def syslog_server(settings: Settings) -> SyslogServer:
    """Who keeps the audit; raises Misconfigured where the TLS files cannot be used."""
    audit = settings.audit
    server = SyslogServer(audit.host, audit.port, audit.transport, audit.ca_file, audit.certificate, audit.key)
    server.check()
    return server


def tls_files(settings: Settings) -> TlsFiles | None:
    """Our TLS identity; None where none is configured."""
    tls = settings.tls
    if tls.certificate is None or tls.key is None or tls.ca_file is None:
        return None
    return TlsFiles(tls.certificate, tls.key, tls.ca_file, tls.key_password_file, tls.minimum_version)


def peer_of(settings: Settings, section: PeerSection) -> Peer:
    """The peer that a [[peers]] table, or [pacs], is about."""
    values: dict[str, Any] = section.model_dump(exclude={"timeout_s", "roles", "tls"})
    return Peer(**values, roles=frozenset(section.roles), tls=tls_files(settings) if section.tls else None)


def dicom_target(settings: Settings, section: DestinationSection, reports: CommitmentReports) -> DicomTarget:
    """The peer of a destination, as something that takes images; what it reports goes to ``reports``."""
    peer = next(peer for peer in settings.known_peers if peer.name == section.peer)
    timeouts = Timeouts(connection_s=peer.timeout_s, response_s=peer.timeout_s)
    implicit = section.transfer_syntax == "implicit"
    receiver, own_title = peer_of(settings, peer), settings.node.ae_title
    return DicomTarget(receiver, own_title, timeouts, reports, implicit, section.associations)


def image_destinations(
    settings: Settings, reports: CommitmentReports, closing: ExitStack
) -> tuple[ImageDestination, ...]:
    """Where images go; what is opened for that is closed by ``closing``."""
    found = []
    for section in settings.known_destinations:
        target: ImageTarget
        if section.url:
            target = StowTarget(closing.enter_context(contextlib.closing(open_stow(section))))
        else:
            target = dicom_target(settings, section, reports)
        rejects = section.late_slices == "supersede and reject"
        how = (section.confirm, section.required, rejects, section.commitment_timeout_s)
        found.append(ImageDestination(section.name, target, *how))
    return tuple(found)


def keep_missing_updates(settings: Settings, ledger: Ledger) -> list[str]:
    """Make the updates that an earlier version did not keep, as far as that can be; see ``twin_sync.keep_missing``."""
    folders = JobFolders(Folders(settings.storage.folder).jobs)
    with ExitStack() as closing:
        destinations = image_destinations(settings, CommitmentReports(lambda _: False), closing)
        return keep_missing(ledger, folders, destinations)


def patient_finders(settings: Settings) -> dict[str, FindPatients]:
    """For each destination that may be asked whose its studies are, how; by the name of its peer, or its own.

    By C-FIND a peer with the role `query`, by QIDO-RS a DICOMweb server that confirms by it.
    """
    found: dict[str, FindPatients] = {}
    peers = {peer.name: peer for peer in settings.known_peers}
    for destination in settings.known_destinations if settings.twin.ask_pacs else ():
        section = peers.get(destination.peer)
        if section is not None and section.host and Role.QUERY in section.roles:
            peer, timeouts = peer_of(settings, section), _query_timeouts(section)
            found[section.name] = partial(_find_patients, peer, settings.node.ae_title, timeouts)
        elif destination.url and destination.confirm == "query":
            found[destination.name] = partial(_find_patients_at_server, destination)
    return found


def _query_timeouts(section: PeerSection) -> Timeouts:
    """A question holds up a study or a render, so it waits less long than what is sent."""
    return Timeouts(connection_s=5.0, negotiation_s=10.0, response_s=min(section.timeout_s, 20.0))


def _find_patients(
    peer: Peer, calling_ae: str, timeouts: Timeouts, study_uids: Iterable[str]
) -> Iterator[tuple[str, list[PatientIdentity]]]:
    for study_uid, owners in study_owners(peer, study_uids, calling_ae=calling_ae, timeouts=timeouts):
        yield study_uid, [PatientIdentity(**vars(owner)) for owner in owners]


def _find_patients_at_server(
    section: DestinationSection, study_uids: Iterable[str]
) -> Iterator[tuple[str, list[PatientIdentity]]]:
    with contextlib.closing(open_stow(section)) as service:
        for study_uid, owners in study_owners_at(service, study_uids):
            yield study_uid, [PatientIdentity(**vars(owner)) for owner in owners]


def open_stow(section: DestinationSection) -> StowService:
    """The DICOMweb server of a destination; it is to be closed."""
    auth = None if section.token_file is None else TokenFile(section.token_file)
    trusted = trusted_authorities(section.ca_file)
    return StowService(section.name, section.url, auth=auth, trusted=trusted, timeout_s=section.timeout_s)


def render_template(settings: Settings) -> RenderRequest:
    """A render as the configuration wants it; source, result, moment and revision come with the job."""
    return RenderRequest(
        source=Path(),
        result=Path(),
        made_at=utc_now(),
        model=settings.model.name,
        model_store=settings.model_store.resolve(),
        segmenter=segmenter_choice(settings),
        allow_other_segmenter=settings.model.allow_other_segmenter,
        missing_district=settings.model.missing_district,
        stitching=settings.model.stitching,
        compute=compute_of(settings),
        zero_dose=settings.pet.zero_dose,
        device_serial_number=settings.scanner.device_serial_number,
        accept_synthetic_ct=settings.scanner.accept_synthetic_ct,
        accept_phantom_only=settings.model.accept_phantom_only,
        preference=series_preference(settings),
        gantry_tilt=settings.reading.gantry_tilt,
        outputs=Outputs(**settings.outputs.model_dump()),
    )


def compute_of(settings: Settings) -> Compute:
    """On what and in which precision the configuration wants the networks to run."""
    return Compute(settings.model.device, settings.model.precision)


def segmenter_choice(settings: Settings) -> SegmenterChoice:
    """The segmenter as the configuration wants it; folders are made absolute, as they travel to another process."""
    values: dict[str, Any] = settings.districts.model_dump(exclude={"segmenter"})
    absolute: dict[str, Any] = {
        key: value.resolve() if isinstance(value, Path) else value for key, value in values.items()
    }
    return SegmenterChoice(name=settings.districts.segmenter, **absolute)


def open_cluster(settings: Settings, kind: WorkKind) -> "DaskCluster":
    """The workers of the configured Dask scheduler that do this kind of work.

    Raises Misconfigured without the extra, Transient where the node has never started, so its folder has no id.
    Training has its files on shared storage, however those of renders travel.
    """
    try:
        from twin_scanner.executor.dask_cluster import DaskCluster, DaskTls
    except ImportError as error:
        raise Misconfigured(
            'executor.kind = "dask" needs Dask, which is not installed: pip install "twin-scanner[dask]".'
        ) from error
    section, place = settings.executor, WorkPlace(kind)
    if section.transfer == "shared" or kind == "training":
        folder = settings.storage.folder.resolve()
        place = WorkPlace(kind, folder, read_storage_id(folder))
    tls = None
    if section.ca_file is not None and section.certificate is not None and section.key is not None:
        tls = DaskTls(section.ca_file, section.certificate, section.key)
    return DaskCluster(section.scheduler, place, tls=tls, resources=section.resources)


def open_executor(settings: Settings) -> tuple[Workers, Exchange]:
    """Where renders run, and how their files come there and back."""
    if settings.executor.kind == "local":
        return LocalProcesses(prepare=partial(set_up_service_logging, settings.log.level)), InPlace()
    return open_cluster(settings, "render"), Shared() if settings.executor.transfer == "shared" else Carried()


class Scanner:
    """The running virtual scanner: receiver, completeness, worker, clearing and retraining."""

    def __init__(
        self,
        settings: Settings,
        *,
        config: Path | None = None,
        now: Callable[[], datetime] = utc_now,
        render: Callable[[RenderRequest, Beat], RenderReport] | None = None,
        on_fatal: Callable[[], None] = lambda: os._exit(1),
    ) -> None:
        """Take the folder, the ledger and the port; raises with all of them given back where one cannot be had.

        ``config`` is the file that ``settings`` came from, for the commands that are started by the clock. ``render``
        replaces the worker process; ``on_fatal`` ends this process when a thread of it has died.
        """
        self._settings, self._config, self._now, self._started = settings, config, now, False
        if render is None:
            check_preconditions(settings)
        self._folders = Folders(settings.storage.folder.resolve())
        self._folders.prepare()
        with ExitStack() as closing:
            self._lock = _lock(self._folders.root)
            closing.callback(self._give_folder_back)
            migrate(settings.ledger_url)
            self.ledger = closing.enter_context(contextlib.closing(open_ledger(settings, now)))
            self._spool = Spool(self._folders.spool)
            self._completeness = Completeness(
                quiet_period_s=settings.node.quiet_period_s,
                longest_wait_s=settings.node.longest_wait_s,
                settle_s=settings.node.settle_s,
                look_patience_s=PATIENCE_S,
            )
            self._arrivals = Arrivals(
                self.ledger,
                self._completeness,
                now,
                incomplete=settings.node.incomplete,
                describe=partial(read_study_facts, self._spool),
            )
            storage_id(self._folders.root)
            executor, self._exchange = open_executor(settings)
            self._executor = closing.enter_context(contextlib.closing(executor))
            logs = partial(set_up_service_logging, settings.log.level)
            self._reader = closing.enter_context(contextlib.closing(LocalProcesses(prepare=logs)))
            self._job_folders = JobFolders(self._folders.jobs)
            real_pet = settings.selection.real_pet
            self._reads_ahead, self._renders = render is None and self._executor.memory() is not None, False
            self._ahead = Ahead(self._spool, self._begin_look, self._begin_reading)
            self._inquiry = self._make_inquiry()
            look_for_pet = self._inquiry.look_for_pet
            self._intake = Intake(self.ledger, self._spool, self._job_folders, self._look, real_pet, look_for_pet)
            self._twin = closing.enter_context(contextlib.closing(open_twin(settings)))
            self._reports = CommitmentReports(self._on_report)
            self._destinations = image_destinations(settings, self._reports, closing)
            self._worker = self._make_worker(render or self._render, on_fatal)
            self._tasks = PeriodicTasks(on_fatal)
            self.retraining = self._make_retraining(on_fatal)
            self.identity_check = self._make_identity_check(on_fatal)
            self.receiver = self._make_receiver()
            closing.callback(self.receiver.stop, RECEIVER_STOP_S)
            self.receiver.bind()
            self._closing = closing.pop_all()

    def start(self) -> None:
        """Recover what an earlier run left, then serve the port; raises with everything undone where it cannot."""
        with self._closing.pop_all() as closing:
            self._spool.sweep()
            self.ledger.enter(storage_id(self._folders.root))
            self.ledger.adopt(self._job_folders.job_ids(), self._spool.studies())
            self._hold_for_unknown_destinations()
            for study_uid in self._intake.waiting():
                self._completeness.touch(study_uid, time.monotonic())
            self._started = True
            closing.callback(self._worker.stop, WORKER_STOP_S)
            self._worker.start()
            closing.callback(self._tasks.stop, TASKS_STOP_S)
            sweep_now = self._tasks.every(SWEEP_S, "completeness", self._take_complete_studies)
            self._tasks.every(LOOK_S, "inquiry", partial(self._look_at_arriving, sweep_now))
            self._tasks.every(CLEARING_S, "clearing", self.clear_aged)
            if self._settings.audit.host:
                self._tasks.every(AUDIT_S, "audit", Forwarding(self.ledger, syslog_server(self._settings).send))
            self._look_at_certificate()
            self._tasks.every(DAY_S, "certificate", self._look_at_certificate)
            closing.callback(self.retraining.stop, RETRAINING_STOP_S)
            self.retraining.start()
            closing.callback(self.identity_check.stop, IDENTITY_CHECK_STOP_S)
            self.identity_check.start()
            closing.callback(self.receiver.stop, RECEIVER_STOP_S)
            self.receiver.start()
            self._closing = closing.pop_all()
        if self._settings.node.open_to_loopback:
            LOG.warning("any program on this machine may send: node.open_to_loopback is set")
        LOG.info("listening", extra={"ae_title": self._settings.node.ae_title, "port": self.receiver.port})

    def stop(self) -> None:
        """Close the port, finish or leave the steps under way, and give the folder back: last, and only if all ended.

        Where a thread is still at work then (a PACS that does not answer, say), the folder stays locked until this
        process ends: another scanner would deliver the same once more.
        """
        self._closing.close()
        LOG.info("stopped")

    def warm_up(self) -> "tuple[Future[None], Future[list[Choice]]]":
        """Let the workers start now, before the first study asks for them; does not wait for them.

        One loads torch, the model and the segmenter, the other what reads headers. Where that fails, the first study
        says why.
        """
        settings = self._settings
        loads = (settings.model.name, settings.model_store.resolve(), segmenter_choice(settings), compute_of(settings))
        try:
            loading = self._executor.submit(load_in_worker, *loads)
        except Transient as error:
            LOG.error("no render can begin yet", extra={"reason": str(error)})
            loading = Future()
            loading.set_exception(error)
        return loading, self._reader.submit(choices_of, "", (), series_preference(settings), accept_synthetic=False)

    @property
    def at_work(self) -> bool:
        """Whether a thread has not ended although ``stop`` waited for it."""
        return self._worker.at_work or self._tasks.at_work

    @property
    def down(self) -> frozenset[str]:
        """The destinations that are down, by name."""
        return self._worker.down

    @contextmanager
    def running(self) -> Iterator["Scanner"]:
        """Started at the beginning of a ``with`` block, stopped at its end."""
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def thread_fault(self) -> str | None:
        """What is wrong where a thread has died or hangs in its end: only a restart ends it."""
        if self._worker.is_whole and self._tasks.is_whole:
            return None
        return "A thread of the scanner does not live: restart it."

    def executor_fault(self) -> str | None:
        """What is wrong where no render can begin."""
        return self._executor.fault()

    def _give_folder_back(self) -> None:
        if self._started and self.at_work:
            LOG.error("steps are still at work: the folder stays locked until this process ends")
        else:
            self._lock.close()

    def clear_aged(self) -> None:
        """Remove the files of jobs that ended longer than storage.keep_days ago; their rows stay."""
        keep_days = self._settings.storage.keep_days
        clear_aged(self.ledger, self._spool, self._job_folders, keep_days, self._arrivals.arriving)

    def _look_at_certificate(self) -> None:
        """An ERROR each day from a month before our TLS certificate ends."""
        files = tls_files(self._settings)
        try:
            concern = None if files is None else validity_of(files).concern(self._now())
        except Misconfigured as fault:
            concern = str(fault)
        if concern is not None:
            LOG.error("the TLS certificate needs a look", extra={"reason": concern})

    def _look_at_arriving(self, sweep_now: Callable[[], None]) -> None:
        if self._inquiry.look():
            sweep_now()

    def _take_complete_studies(self) -> None:
        if self._arrivals.sweep():
            self._worker.wake()

    def _on_stored(self, instance: ReceivedInstance) -> None:
        self.ledger.check_usable()
        priority = Priority.ROUTINE if instance.peer is None else Priority[instance.peer.priority.name]
        self._arrivals.stored(instance.study_uid, instance.calling_ae, instance.association, priority)

    def _on_report(self, report: CommitmentReport) -> bool:
        """What a destination says of a storage commitment; False where no node on this ledger has asked for it."""
        known = self.ledger.deliveries.reported(report.transaction_uid, report.kept)
        if known:
            self._worker.wake()
        return known

    def _hold_for_unknown_destinations(self) -> None:
        known = [*(destination.name for destination in self._destinations), TWIN]
        held = self.ledger.deliveries.hold_for_unknown(known)
        if held:
            LOG.error("deliveries are held: their destination is not configured any more", extra={"held": held})

    def _render(self, request: RenderRequest, beat: Beat) -> RenderReport:
        beat()
        self._renders = True
        try:
            self._check_memory(request, beat)
            self._let_end(self._executor, self._ahead.reading(), beat)
            work = self._exchange.begin(self._executor, request)
            end = partial(self._executor.end_work, work)
            limit = Limit("The render", "limits.render_s", self._settings.limits.render_s, end)
            return self._exchange.end(request, wait(work, beat, HEARTBEAT_S, limit))
        finally:
            self._renders = False

    def _check_memory(self, request: RenderRequest, beat: Beat) -> None:
        """Before the render: a worker that is killed for memory says nothing. The headers are another process's."""
        memory = self._executor.memory()
        if memory is None:
            return
        self._let_choices_end(beat)
        need = self._headers_read(self._reader.submit(need_of, request), beat, self._settings.limits.reading_s)
        check_memory(need, memory)

    def _outside_training(self, ct: Path) -> tuple[str, ...]:
        """What of the CT in a folder the model was not trained on; the headers are another process's."""
        request = replace(render_template(self._settings), source=ct)
        if not states_ranges(request):
            return ()
        reading = self._reader.submit(outside_training, request)
        return self._headers_read(reading, lambda: None, self._settings.limits.reading_s)

    def _look(self, study_uid: str, files: Sequence[Path], beat: Beat) -> list[Choice]:
        beat()
        reading = self._ahead.take(study_uid)
        if reading is None or (reading.done() and reading.exception() is not None):
            self._let_choices_end(beat)
            reading = self._begin_look(study_uid, files)
        limit_s = self._settings.limits.reading_s * max(1, math.ceil(len(files) / FILES_PER_LIMIT))
        return self._headers_read(reading, beat, limit_s)

    def _begin_look(self, study_uid: str, files: Sequence[Path]) -> "Future[list[Choice]]":
        settings = self._settings
        accepted = settings.scanner.accept_synthetic_ct, settings.reading.gantry_tilt
        return self._reader.submit(choices_of, study_uid, files, series_preference(settings), *accepted)

    def _begin_reading(self, files: Sequence[Path]) -> "Future[bool] | None":
        """Let the worker read the CT of a study ahead of its render, if it has nothing else to do."""
        if self._renders or not self._reads_ahead:
            return None
        return self._executor.submit(read_ahead_in_worker, files, render_template(self._settings))

    def _headers_read(self, reading: "Future[R]", beat: Beat, limit_s: float) -> R:
        end = partial(self._reader.end_work, reading)
        return wait(reading, beat, HEARTBEAT_S, Limit("Reading the headers", "limits.reading_s", limit_s, end))

    def _let_choices_end(self, beat: Beat) -> None:
        """What hangs over the headers of one study, ahead of time, is not to be laid to another one's charge."""
        for choosing in self._ahead.choosing():
            self._let_end(self._reader, choosing, beat)

    def _let_end(self, workers: Workers, ahead: "Future[Any] | None", beat: Beat) -> None:
        """Wait for what is read ahead, and end its process where it hangs; what it gives or raises is not asked."""
        if ahead is not None:
            end = partial(workers.end_work, ahead)
            let_end(ahead, beat, HEARTBEAT_S, Limit("Reading ahead", "AHEAD_S", AHEAD_S, end))

    def _is_own(self, header: Dataset) -> bool:
        if is_our_own(header, self._settings.scanner.device_serial_number):
            return True
        series_uid = str(header.get("SeriesInstanceUID", ""))
        if self.ledger.objects.has_issued(series_uid):
            return True
        if header.get("Modality") == "PT" and header.get("SyntheticData") != "YES":
            self._arrivals.real_pet(str(header.get("StudyInstanceUID", "")), series_uid)
        return False

    def _make_inquiry(self) -> Inquiry:
        sources = []
        for section in self._settings.known_peers:
            if section.host and Role.QUERY in section.roles:
                find = partial(
                    find_series_counts,
                    peer_of(self._settings, section),
                    calling_ae=self._settings.node.ae_title,
                    timeouts=_query_timeouts(section),
                    limits=QueryLimits(seconds=INQUIRY_S),
                )
                sources.append(Source(section.name, find, self._make_breaker()))
        return Inquiry(
            self._completeness,
            self._spool,
            sources,
            is_ours=self.ledger.objects.has_issued,
            on_real_pet=self.ledger.studies.has_real_pet,
            on_promising=self._ahead.begin,
        )

    def _make_preflight(self) -> Preflight:
        sources = [
            PatientSource(name, find, self._make_breaker()) for name, find in patient_finders(self._settings).items()
        ]
        hours = self._settings.twin.deliver_unchecked_after_hours
        unchecked_after_s = None if hours is None else hours * HOUR_S
        breaker = self._make_breaker()
        holds = self._settings.selection.outside_training == "hold"
        outside = self._outside_training if holds else lambda _: ()
        return Preflight(self.ledger, self._job_folders, self._twin, sources, breaker, unchecked_after_s, outside)

    def _make_breaker(self) -> Breaker:
        """For one peer or destination: it is left alone after so many failed probes, for so long."""
        retry = self._settings.retry
        probing = RetryPolicy(retry.first_delay_s, min(retry.longest_delay_s, LONGEST_PROBE_DELAY_S))
        return Breaker(lambda failures: probing.delay_s(failures, 1.0), time.monotonic)

    def _make_worker(
        self, render: Callable[[RenderRequest, Beat], RenderReport], on_fatal: Callable[[], None]
    ) -> Worker:
        settings = self._settings
        retry = settings.retry
        policy = RetryPolicy(retry.first_delay_s, retry.longest_delay_s, retry.age_limit_days * DAY_S)
        preflight = self._make_preflight()
        steps = Steps(
            ledger=self.ledger,
            folders=self._job_folders,
            intake=self._intake,
            render=render,
            template=render_template(settings),
            destinations=self._destinations,
            twin=self._twin,
            twin_name=twin_name(settings),
            zone=ZoneInfo(settings.twin.zone or "UTC"),
            breaker=self._make_breaker,
            now=self._now,
            threads=settings.ledger.workers,
            renders=settings.executor.renders,
            preflight=preflight.check,
            check_images=preflight.check_images,
        )
        return Worker(ledger=self.ledger, lanes=steps.lanes(), policy=policy, on_fatal=on_fatal)

    def _make_retraining(self, on_fatal: Callable[[], None]) -> CommandSchedule:
        """`twin-scanner retrain` by the configured cron text."""
        section = self._settings.retrain
        words = ["retrain"] if section.config is None else ["retrain", str(section.config.resolve())]
        return self._scheduled("retrain", section.cron, words, section.zone, on_fatal)

    def _make_identity_check(self, on_fatal: Callable[[], None]) -> CommandSchedule:
        """`twin-scanner twin check` by the configured cron text, where there is a PACS to be asked."""
        twin = self._settings.twin
        cron = twin.check_cron if patient_finders(self._settings) else ""
        words = ["twin", "check", "--days", f"{twin.check_days:g}"]
        return self._scheduled("twin check", cron, words, twin.zone or "UTC", on_fatal)

    def _scheduled(
        self, name: str, cron: str, words: list[str], zone: str, on_fatal: Callable[[], None]
    ) -> CommandSchedule:
        """One of our verbs as a process of its own, on this configuration."""
        command = [sys.executable, "-m", "twin_scanner.cli", *words]
        if self._config is not None:
            command += ["--config", str(self._config.resolve())]
        runs, leases = self.ledger.runs, self.ledger.leases
        return CommandSchedule(name, cron, command, runs, leases, on_fatal, zone, self._now)

    def _make_receiver(self) -> Listener:
        node, files = self._settings.node, tls_files(self._settings)
        admission = Admission(
            node.ae_title,
            [*(peer_of(self._settings, section) for section in self._settings.known_peers), _ourselves(self._settings)],
            other_ae_titles=node.other_ae_titles,
            open_to_loopback=node.open_to_loopback,
            limits=AssociationLimits(node.maximum_associations, node.associations_per_address),
        )
        store = StoreScp(
            spool=self._spool,
            on_stored=self._on_stored,
            is_own=self._is_own,
            receipt_limits=ReceiptLimits(node.maximum_instance_mb * MEGABYTE, node.minimum_free_mb * MEGABYTE),
            on_association_closed=self._completeness.association_closed,
            on_association_released=self._completeness.association_released,
        )
        return Listener(
            host=node.host,
            port=node.port,
            store=store,
            admission=admission,
            tls=ServerTls(files) if files is not None and self._settings.tls.listen_tls else None,
            reports=self._reports,
        )


def _ourselves(settings: Settings) -> Peer:
    """This machine by our own AE title, as `doctor` asks whether we are there: it may verify, and nothing else."""
    node = settings.node
    own = () if network_of(node.host) is None else (node.host,)
    return Peer(node.ae_title, "", node.port, "this scanner", ("127.0.0.0/8", "::1", *own), frozenset())


def series_preference(settings: Settings) -> Preference:
    """Which series of a study, and which phase of a series, the configuration wants."""
    selection = settings.selection
    return Preference(
        minimum_coverage_mm=selection.minimum_coverage_mm,
        target_thickness_mm=selection.target_thickness_mm,
        contrast=selection.contrast,
    )


def check_preconditions(settings: Settings) -> None:
    """Raise Misconfigured, with the sentence that `doctor` gives, where no patient could be served."""
    model = settings.model
    card = check_model(settings.model_store, model.name, accept_phantom_only=model.accept_phantom_only)
    check_segmenter(segmenter_choice(settings), card, allow_other=model.allow_other_segmenter)
    if settings.executor.kind == "local":
        check_compute(compute_of(settings))


def check_compute(compute: Compute) -> None:
    """Raise Misconfigured where this machine does not have the device, or that cannot compute in the precision.

    Only PyTorch knows what GPU there is, and the service never loads it: a process of its own is asked, where the
    answer is not plain.
    """
    if compute.precision == "float32" and compute.device in ("auto", "cpu"):
        return
    with contextlib.closing(LocalProcesses()) as processes:
        looking = processes.submit(check_compute_in_worker, compute)
        end = partial(processes.end_work, looking)
        limit = Limit(f"Looking for the device '{compute.device}'", "model.device", DEVICE_S, end)
        wait(looking, lambda: None, 1.0, limit)


def _lock(folder: Path) -> IO[str]:
    """One scanner a storage folder: two would double every PET. The file says which process runs."""
    busy = Rejected(f"Another scanner already runs on {folder}: stop it, or give this one its own folder.")
    handle = take_lock(folder / "lock", busy)
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle


def storage_id(folder: Path) -> str:
    """A name of the storage folder that stays with it wherever it is mounted; created at its first start."""
    file = folder / STORAGE_ID
    if not file.exists():
        write_durably(file, uuid.uuid4().hex.encode())
    return file.read_text("ascii")


def embedded_settings(folder: Path, pacs_port: int, quiet_period_s: float) -> Settings:
    """A whole scanner on loopback in one folder, taking phantoms: what the demonstration runs."""
    # The stand-in answers no query, and nobody asks it.
    stand_in = {"ae_title": DEMO_PACS_AE, "host": "127.0.0.1", "port": pacs_port}
    return Settings.model_validate(
        {
            "node": {
                "port": 0,
                "open_to_loopback": True,
                "quiet_period_s": quiet_period_s,
                "minimum_free_mb": 256,
            },
            "peers": [{**stand_in, "name": "pacs", "roles": ["send_ct", "take_pet"]}],
            "destinations": [{"name": "pacs", "peer": "pacs", "confirm": "status"}],
            "storage": {"folder": folder},
            "model": {"accept_phantom_only": True},
            "scanner": {"accept_synthetic_ct": True},
            "log": {"level": "ERROR"},
        }
    )
