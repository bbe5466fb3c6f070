"""The peers: each answers, and who takes PET accepts each kind of object that the configuration sends."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Final

from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_node.addresses import AddressBook, resolve_by_system
from dicom_node.associations import Timeouts
from dicom_node.client import accepted_offers, echo
from dicom_node.peers import Peer, Role
from dicom_node.tls_validity import validity_shown_by
from twin_scanner.app import peer_of
from twin_scanner.dicom.write.segmentation import TRANSFER_SYNTAXES
from twin_scanner.doctor.finding import Finding, FindingState, findings_of
from twin_scanner.settings import Settings

LABEL_MAP_SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.7"
"""Label Map Segmentation Storage (supplement 243), which pydicom's own list does not have everywhere."""
_PET: Final = (str(PositronEmissionTomographyImageStorage), str(ExplicitVRLittleEndian))


def check_peers(settings: Settings) -> Iterator[Finding]:
    """The names of each peer are resolved and it is asked by C-ECHO; who takes PET is offered all that is sent."""
    for section in settings.known_peers:
        peer = peer_of(settings, section)
        timeouts = Timeouts(connection_s=section.timeout_s, response_s=section.timeout_s)
        yield from findings_of(f"peer {peer.name}", partial(_one_peer, peer, timeouts), settings)


def _one_peer(peer: Peer, timeouts: Timeouts, settings: Settings) -> Iterator[Finding]:
    name, calling_ae = f"peer {peer.name}", settings.node.ae_title
    yield from _unresolved(peer)
    if not peer.host:
        places = ", ".join(peer.addresses)
        yield Finding(name, "ok", f"{peer.ae_title} is never called and may call from {places}.")
        return
    echo(peer, calling_ae, timeouts)
    yield Finding(name, "ok", f"{peer} answers C-ECHO.")
    if peer.tls is not None:
        concern = validity_shown_by(peer, peer.tls, timeouts.connection_s).concern(datetime.now(UTC))
        if concern is not None:
            yield Finding(name, "warning", concern)
    if Role.TAKE_PET in peer.roles:
        yield from _accepted(peer, timeouts, settings)


def _unresolved(peer: Peer) -> Iterator[Finding]:
    for host in sorted(AddressBook([peer]).host_names - {peer.host}):
        try:
            resolve_by_system(host)
        except OSError as error:
            fact = f"The host name {host} in the addresses of the peer '{peer.name}' cannot be resolved"
            why = error.strerror or "no such name"
            yield Finding(f"peer {peer.name}", "fault", f"{fact} ({why}): correct it, for nobody can call from there.")


def _accepted(peer: Peer, timeouts: Timeouts, settings: Settings) -> Iterator[Finding]:
    """Which of what is sent the peer accepts."""
    name, calling_ae, offers = f"peer {peer.name} accepts", settings.node.ae_title, _offers(settings)
    accepted = accepted_offers(peer, list(offers), calling_ae=calling_ae, timeouts=timeouts)
    refused = [(offer, key) for offer, key in offers.items() if offer not in accepted]
    for offer, key in refused:
        if offer == _PET:
            advice = f"allow it there from '{calling_ae}', or no PET can be delivered"
        else:
            advice = f"allow it there, or set outputs.{key} so that it is not written"
        state: FindingState = "fault" if offer == _PET else "warning"
        yield Finding(name, state, f"{peer} does not accept {_offer_name(offer)}: {advice}.")
    if not refused:
        fact = ", ".join(_class_name(sop_class_uid) for sop_class_uid, _ in offers)
        yield Finding(name, "ok", f"{peer} accepts everything that is sent: {fact}.")


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
    if outputs.key_objects:
        offers[str(KeyObjectSelectionDocumentStorage), str(ExplicitVRLittleEndian)] = "key_objects"
    return offers


def _offer_name(offer: tuple[str, str]) -> str:
    return f"{_class_name(offer[0])} in {UID(offer[1]).name}"


def _class_name(sop_class_uid: str) -> str:
    return "Label Map Segmentation Storage" if sop_class_uid == LABEL_MAP_SEGMENTATION else UID(sop_class_uid).name
