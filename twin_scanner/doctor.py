"""What `twin-scanner doctor` looks at: everything that the scanner needs, one finding each, before a patient is there.

Nothing is changed: no migration is run, nothing is stored at the PACS, and the twin is only read.
"""

import errno
import os
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_node.associations import Timeouts
from dicom_node.sender import Peer, accepted_offers, echo
from dicom_node.spool import free_bytes
from twin_record.embedded import EmbeddedStore
from twin_record.remote import FhirServer
from twin_scanner.app import Folders, model_store, open_twin, segmenter_choice
from twin_scanner.dicom.write.segmentation import TRANSFER_SYNTAXES
from twin_scanner.districts.choice import SEGMENTERS, SegmenterChoice, missing
from twin_scanner.errors import Rejected, TwinScannerError
from twin_scanner.models.store import DEMONSTRATION_FOLDER, ModelPackage, ModelStore, load_package
from twin_scanner.service.ledger import migration_state
from twin_scanner.settings import Settings

FindingState: TypeAlias = Literal["ok", "warning", "fault"]
FHIR_VERSION: Final = "4.0."
"""R4 is 4.0.0 and 4.0.1; R4B is 4.3.0, R5 is 5.0.0."""
LEAST_ROOM: Final = 2
"""A disk with less than this many times node.minimum_free_mb is soon one that refuses images."""
LOCAL_PROBE_S: Final = 5.0
"""Our own node answers on its own machine within this, or something else is there."""
LABEL_MAP_SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.7"
"""Label Map Segmentation Storage (supplement 243), which pydicom's own list does not have everywhere."""
_ANY_HOST: Final = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104
_PET: Final = (str(PositronEmissionTomographyImageStorage), str(ExplicitVRLittleEndian))


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``sentence`` says how it is and, where it is not well, what to do."""

    name: str
    state: FindingState
    sentence: str


def examine(settings: Settings, on_finding: Callable[[Finding], None] = lambda _: None) -> list[Finding]:
    """Look at everything the scanner needs; each finding is also given to ``on_finding`` as soon as it is there.

    Takes no longer than pacs.timeout_s, twin.timeout_s and the association's own limits allow. No finding holds a
    secret or anything of a patient.
    """
    checks: tuple[tuple[str, Callable[[Settings], Iterable[Finding]]], ...] = (
        ("storage folder", _storage),
        ("ledger", _ledger),
        ("model", _model),
        ("segmenter", _segmenters),
        ("PACS", _pacs),
        ("listening port", _port),
        ("twin record", _twin),
    )
    findings = []
    for name, check in checks:
        for finding in _told(name, check, settings):
            on_finding(finding)
            findings.append(finding)
    return findings


def _told(name: str, check: Callable[[Settings], Iterable[Finding]], settings: Settings) -> Iterator[Finding]:
    """The findings of one check; an error that it meets is one more."""
    try:
        yield from check(settings)
    except TwinScannerError as error:
        yield Finding(name, "fault", _one_sentence(str(error)))
    except OSError as error:
        what = Path(error.filename).name if isinstance(error.filename, str) else "What it needs"
        yield Finding(name, "fault", f"{what} cannot be used ({error.strerror}): check its rights and the disk.")
    except UnicodeError:
        yield Finding(name, "fault", "A file or value that it needs is not plain text: look into the configuration.")


def _one_sentence(text: str) -> str:
    return " ".join(text.split())


def _storage(settings: Settings) -> Iterator[Finding]:
    folder = settings.storage.folder.resolve()
    standing = _standing(folder)
    try:
        if not standing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with tempfile.TemporaryFile(dir=standing) as probe:
            probe.write(b"twin-scanner doctor")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        yield Finding(
            "storage folder",
            "fault",
            f"{standing} cannot be written ({error.strerror}): give it to the user that runs twin-scanner, or set "
            "storage.folder.",
        )
        return
    if standing != folder:
        yield Finding("storage folder", "ok", f"{folder} is not there yet and is made at the first start.")
    elif folder.stat().st_mode & 0o007:
        yield Finding(
            "storage folder", "warning", f"{folder} holds patients' images and every user may open it: chmod o-rwx it."
        )
    else:
        yield Finding("storage folder", "ok", f"{folder} can be written.")
    yield _free_space(standing, settings.node.minimum_free_mb)


def _standing(path: Path) -> Path:
    """The path itself or the nearest one above it that exists."""
    return next((place for place in (path, *path.parents) if place.exists()), Path(path.anchor))


def _free_space(folder: Path, minimum_mb: int) -> Finding:
    free_mb = free_bytes(folder) // 2**20
    told = f"{free_mb} MB are free, node.minimum_free_mb is {minimum_mb}"
    if free_mb < minimum_mb:
        return Finding("free space", "fault", f"{told}: every image is refused (0xA700) until there is more room.")
    if free_mb < LEAST_ROOM * minimum_mb:
        return Finding("free space", "warning", f"{told}: make room before images are refused.")
    return Finding("free space", "ok", f"{told}.")


def _ledger(settings: Settings) -> Iterator[Finding]:
    """The database's migration is compared with ours, not run: the service may be at work with it."""
    state = migration_state(settings.ledger.url or Folders(settings.storage.folder).ledger_url)
    if state is None:
        yield Finding("ledger", "ok", "The ledger's file is not there yet and is made at the first start.")
    elif state.found == state.wanted:
        yield Finding("ledger", "ok", f"The ledger opens and is at migration {state.found}.")
    elif state.found is None:
        yield Finding("ledger", "ok", "The ledger's database is empty and gets its tables at the first start.")
    elif state.found in state.known:
        told = f"The ledger is at migration {state.found}, this version needs {state.wanted}"
        yield Finding("ledger", "warning", f"{told}: back it up, the next start migrates it.")
    else:
        told = f"The ledger is at migration {state.found}, which this version does not know"
        yield Finding("ledger", "fault", f"{told}: install the newer twin-scanner that wrote it.")


def _model(settings: Settings) -> Iterator[Finding]:
    folder = ModelStore(model_store(settings)).resolve(settings.model.name)
    package = load_package(folder)
    told = f"Model '{package.name}' ({package.model_hash[:12]}) is whole"
    if folder == DEMONSTRATION_FOLDER:
        yield Finding(
            "model", "warning", f"{told}, but it has seen phantoms only: import or train one before patients come."
        )
    else:
        yield Finding("model", "ok", f"{told}.")
    yield _segmenter_of(package, settings)


def _segmenter_of(package: ModelPackage, settings: Settings) -> Finding:
    name = "model's segmenter"
    trained, configured = str(package.card.get("segmenter", "")), settings.districts.segmenter
    if package.partition.whole_volume:
        return Finding(name, "ok", "The model needs no districts.")
    if trained == configured:
        return Finding(name, "ok", f"The model was trained on districts by '{trained}', which are configured.")
    told = f"The model was trained on districts by '{trained}', configured is '{configured}'"
    if settings.model.allow_other_segmenter:
        return Finding(name, "warning", f"{told}: compare its results before relying on model.allow_other_segmenter.")
    return Finding(
        name, "fault", f"{told}: set districts.segmenter to '{trained}', or set model.allow_other_segmenter."
    )


def _segmenters(settings: Settings) -> Iterator[Finding]:
    configured = segmenter_choice(settings)
    for name in sorted(SEGMENTERS, key=lambda name: name != configured.name):
        yield from _told(f"segmenter {name}", _one_segmenter(replace(configured, name=name), configured.name), settings)


def _one_segmenter(choice: SegmenterChoice, configured: str) -> Callable[[Settings], list[Finding]]:
    def check(_: Settings) -> list[Finding]:
        title, in_use = f"segmenter {choice.name}", choice.name == configured
        sentence = missing(choice)
        if sentence is None:
            return [Finding(title, "ok", f"'{choice.name}' is ready{'' if in_use else ', not in use'}.")]
        told = _one_sentence(sentence)
        return [
            Finding(title, "fault", told)
            if in_use
            else Finding(title, "ok", f"Not in use; {told[0].lower()}{told[1:]}")
        ]

    return check


def _pacs(settings: Settings) -> Iterator[Finding]:
    pacs = settings.pacs
    peer = Peer(pacs.ae_title, pacs.host, pacs.port)
    timeouts = Timeouts(connection_s=pacs.timeout_s, response_s=pacs.timeout_s)
    offers = _offers(settings)
    accepted = accepted_offers(peer, list(offers), calling_ae=settings.node.ae_title, timeouts=timeouts)
    yield from _told("PACS", lambda _: _echo(peer, settings.node.ae_title, timeouts), settings)
    refused = [(offer, key) for offer, key in offers.items() if offer not in accepted]
    for offer, key in refused:
        if offer == _PET:
            advice = f"allow it there from '{settings.node.ae_title}', or no PET can be delivered"
        else:
            advice = f"allow it there, or set outputs.{key} so that it is not made"
        state: FindingState = "fault" if offer == _PET else "warning"
        yield Finding("PACS accepts", state, f"{peer} does not accept {_offer_name(offer)}: {advice}.")
    if not refused:
        told = ", ".join(_class_name(sop_class_uid) for sop_class_uid, _ in offers)
        yield Finding("PACS accepts", "ok", f"{peer} accepts what we send: {told}.")


def _echo(peer: Peer, calling_ae: str, timeouts: Timeouts) -> list[Finding]:
    echo(peer, calling_ae, timeouts)
    return [Finding("PACS", "ok", f"{peer} answers C-ECHO.")]


def _offers(settings: Settings) -> dict[tuple[str, str], str]:
    """What the configuration sends, as SOP class and transfer syntax, and the key of [outputs] that decides it."""
    outputs = settings.outputs
    offers = {_PET: ""}
    if outputs.segmentation != "none":
        sop_class_uid = str(SegmentationStorage) if outputs.segmentation == "binary" else LABEL_MAP_SEGMENTATION
        offers[sop_class_uid, str(TRANSFER_SYNTAXES[outputs.segmentation])] = "segmentation"
    if outputs.measurement_report:
        offers[str(Comprehensive3DSRStorage), str(ExplicitVRLittleEndian)] = "measurement_report"
    if outputs.key_image:
        offers[str(SecondaryCaptureImageStorage), str(ExplicitVRLittleEndian)] = "key_image"
    return offers


def _offer_name(offer: tuple[str, str]) -> str:
    return f"{_class_name(offer[0])} in {UID(offer[1]).name}"


def _class_name(sop_class_uid: str) -> str:
    return "Label Map Segmentation Storage" if sop_class_uid == LABEL_MAP_SEGMENTATION else UID(sop_class_uid).name


def _port(settings: Settings) -> Iterator[Finding]:
    node, name = settings.node, "listening port"
    if node.port == 0:
        yield Finding(name, "warning", "node.port 0 takes another port at each start: name one that the PACS can use.")
        return
    where = f"{node.host}:{node.port}"
    error = _bind_error(node.host, node.port)
    if error is None:
        yield Finding(name, "ok", f"{where} is free for the scanner.")
    elif error.errno == errno.EADDRINUSE:
        yield _who_listens(settings, where)
    elif error.errno in (errno.EACCES, errno.EPERM):
        yield Finding(name, "fault", f"{where} needs rights this user does not have: choose a node.port above 1023.")
    else:
        why = error.strerror or "not an address"
        yield Finding(name, "fault", f"{where} cannot be listened on ({why}): set node.host to this machine's address.")


def _bind_error(host: str, port: int) -> OSError | None:
    """Why the port cannot be taken, tried as the receiver does it; None where it can."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error
    return None


def _who_listens(settings: Settings, where: str) -> Finding:
    """Our own node answers a C-ECHO to its title; a caller that it allows is asked for."""
    node = settings.node
    caller = node.allowed_calling_ae[0] if node.allowed_calling_ae else node.ae_title
    limits = Timeouts(LOCAL_PROBE_S, LOCAL_PROBE_S, LOCAL_PROBE_S, LOCAL_PROBE_S, LOCAL_PROBE_S)
    try:
        echo(Peer(node.ae_title, _ANY_HOST.get(node.host, node.host), node.port), caller, limits)
    except TwinScannerError:
        told = f"Another program listens on {where} and does not answer as {node.ae_title}"
        return Finding("listening port", "fault", f"{told}: stop it, or choose another node.port.")
    return Finding("listening port", "ok", f"{node.ae_title} is running and answers on {where}.")


def _twin(settings: Settings) -> Iterator[Finding]:
    if not settings.twin.url and not Folders(settings.storage.folder).twin.is_file():
        yield Finding("twin record", "ok", "The embedded twin store is not there yet and is made at the first start.")
        return
    target = open_twin(settings)
    if isinstance(target, EmbeddedStore):
        target.close()
        yield Finding("twin record", "ok", "The embedded twin store opens.")
    elif isinstance(target, FhirServer):
        with target:
            yield from _server(target)


def _server(server: FhirServer) -> Iterator[Finding]:
    name = "twin record"
    release = _release(server)
    if release is not None and not release.startswith(FHIR_VERSION):
        told = f"The FHIR server speaks release {release} and the twin is R4 (4.0.1)"
        yield Finding(name, "fault", f"{told}: set twin.url to the server's R4 address.")
        return
    # Reading a device is the least that shows whether the token is good for what the recorder sends.
    request = {"method": "GET", "url": "Device?_count=1"}
    answer = server.exchange({"resourceType": "Bundle", "type": "batch", "entry": [{"request": request}]})
    entries = answer.get("entry") or [{}]
    status = str((entries[0].get("response") or {}).get("status", "none"))
    if not status.startswith("2"):
        told = f"The FHIR server answers but does not let us read (status {status[:3]})"
        yield Finding(name, "fault", f"{told}: check the rights of the token in twin.token_file.")
    elif release is None:
        told = "The FHIR server takes our requests but shows no CapabilityStatement at /metadata"
        yield Finding(name, "warning", f"{told}: make sure that it speaks R4 (4.0.1).")
    else:
        yield Finding(name, "ok", f"The FHIR server takes our requests and is R4 ({release}).")


def _release(server: FhirServer) -> str | None:
    """The server's fhirVersion; None where it keeps its CapabilityStatement to itself."""
    try:
        return str(server.capability().get("fhirVersion", "none"))
    except Rejected:
        return None
