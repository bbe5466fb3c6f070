"""The PACS: it answers, and accepts each kind of object that the configuration sends."""

from collections.abc import Iterator
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

from dicom_node.associations import Timeouts
from dicom_node.client import accepted_offers, echo
from dicom_node.peers import Peer
from twin_scanner.dicom.write.segmentation import TRANSFER_SYNTAXES
from twin_scanner.doctor.finding import Finding, FindingState, findings_of
from twin_scanner.settings import Settings

LABEL_MAP_SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.7"
"""Label Map Segmentation Storage (supplement 243), which pydicom's own list does not have everywhere."""
_PET: Final = (str(PositronEmissionTomographyImageStorage), str(ExplicitVRLittleEndian))


def check_pacs(settings: Settings) -> Iterator[Finding]:
    """One association that offers all that is sent, and one C-ECHO; nothing is stored."""
    pacs = settings.pacs
    peer = Peer(pacs.ae_title, pacs.host, pacs.port)
    timeouts = Timeouts(connection_s=pacs.timeout_s, response_s=pacs.timeout_s)
    offers = _offers(settings)
    accepted = accepted_offers(peer, list(offers), calling_ae=settings.node.ae_title, timeouts=timeouts)
    yield from findings_of("PACS", lambda _: _echo(peer, settings.node.ae_title, timeouts), settings)
    refused = [(offer, key) for offer, key in offers.items() if offer not in accepted]
    for offer, key in refused:
        if offer == _PET:
            advice = f"allow it there from '{settings.node.ae_title}', or no PET can be delivered"
        else:
            advice = f"allow it there, or set outputs.{key} so that it is not written"
        state: FindingState = "fault" if offer == _PET else "warning"
        yield Finding("PACS accepts", state, f"{peer} does not accept {_offer_name(offer)}: {advice}.")
    if not refused:
        fact = ", ".join(_class_name(sop_class_uid) for sop_class_uid, _ in offers)
        yield Finding("PACS accepts", "ok", f"{peer} accepts everything that is sent: {fact}.")


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
    if outputs.key_objects:
        offers[str(KeyObjectSelectionDocumentStorage), str(ExplicitVRLittleEndian)] = "key_objects"
    return offers


def _offer_name(offer: tuple[str, str]) -> str:
    return f"{_class_name(offer[0])} in {UID(offer[1]).name}"


def _class_name(sop_class_uid: str) -> str:
    return "Label Map Segmentation Storage" if sop_class_uid == LABEL_MAP_SEGMENTATION else UID(sop_class_uid).name
