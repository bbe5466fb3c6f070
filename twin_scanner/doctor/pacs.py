"""The destinations of images: each answers, and accepts each kind of object that the configuration sends."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Final

from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_node.associations import Timeouts
from dicom_node.client import accepted_offers, echo
from dicom_node.commitment import CommitmentReports
from dicom_node.peers import Peer
from dicom_node.sop_classes import STORAGE_COMMITMENT, STUDY_ROOT_FIND
from twin_scanner.app import dicom_target, open_stow
from twin_scanner.dicom.write.segmentation import TRANSFER_SYNTAXES
from twin_scanner.doctor.finding import Finding, FindingState, findings_of
from twin_scanner.settings import DestinationSection, Settings

LABEL_MAP_SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.7"
"""Label Map Segmentation Storage (supplement 243), which pydicom's own list does not have everywhere."""
_CONFIRMATIONS: Final = {"query": STUDY_ROOT_FIND, "commitment": STORAGE_COMMITMENT}
"""What a peer must accept beside the images, by what confirms a delivery."""
_PET: Final = (str(PositronEmissionTomographyImageStorage), str(ExplicitVRLittleEndian))


def check_pacs(settings: Settings) -> Iterator[Finding]:
    """Each destination of images by itself: a peer or a DICOMweb server; nothing is stored."""
    for section in settings.known_destinations:
        look = _look_at_server if section.url else _look_at_peer
        name = "PACS" if section.name == "pacs" else f"destination {section.name}"
        yield from findings_of(name, partial(look, section=section, name=name), settings)


def _look_at_server(settings: Settings, section: DestinationSection, name: str) -> Iterator[Finding]:
    with closing(open_stow(section)) as service:
        service.check()
        yield Finding(name, "ok", f"{service} answers QIDO-RS.")


def _look_at_peer(settings: Settings, section: DestinationSection, name: str) -> Iterator[Finding]:
    """One association that offers all that is sent, and one C-ECHO."""
    target = dicom_target(settings, section, CommitmentReports(lambda _: False))
    peer, calling_ae, timeouts = target.peer, target.calling_ae, target.timeouts
    offers = _offers(settings, section)
    accepted = accepted_offers(peer, list(offers), calling_ae=calling_ae, timeouts=timeouts)
    yield from findings_of(name, lambda _: _echo(name, peer, calling_ae, timeouts), settings)
    refused = [(offer, key) for offer, key in offers.items() if offer not in accepted]
    for offer, key in refused:
        is_fault = key in ("", "confirm")
        if key == "":
            advice = f"allow it there from '{calling_ae}', or no PET can be delivered"
        elif key == "confirm":
            advice = f"allow it there from '{calling_ae}', or let something else confirm a delivery ({key})"
        else:
            advice = f"allow it there, or set outputs.{key} so that it is not written"
        state: FindingState = "fault" if is_fault else "warning"
        yield Finding(f"{name} accepts", state, f"{peer} does not accept {_offer_name(offer)}: {advice}.")
    if not refused:
        fact = ", ".join(_class_name(sop_class_uid) for sop_class_uid, _ in offers)
        yield Finding(f"{name} accepts", "ok", f"{peer} accepts everything that is sent: {fact}.")


def _echo(name: str, peer: Peer, calling_ae: str, timeouts: Timeouts) -> list[Finding]:
    echo(peer, calling_ae, timeouts)
    return [Finding(name, "ok", f"{peer} answers C-ECHO.")]


def _offers(settings: Settings, section: DestinationSection) -> dict[tuple[str, str], str]:
    """What is sent there, as SOP class and transfer syntax, and the key that decides it: of [outputs], or confirm."""
    offers = _sent(settings)
    if section.transfer_syntax == "implicit":
        offers = {(sop_class_uid, str(ImplicitVRLittleEndian)): key for (sop_class_uid, _), key in offers.items()}
    if section.confirm in _CONFIRMATIONS:
        offers[_CONFIRMATIONS[section.confirm], str(ImplicitVRLittleEndian)] = "confirm"
    return offers


def _sent(settings: Settings) -> dict[tuple[str, str], str]:
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
