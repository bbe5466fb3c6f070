"""The destinations of images: each answers what confirms a delivery to it, and takes the PET as it is sent there."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Final

from pydicom.uid import ImplicitVRLittleEndian, PositronEmissionTomographyImageStorage

from dicom_node.client import accepted_offers
from dicom_node.commitment import CommitmentReports
from dicom_node.sop_classes import STORAGE_COMMITMENT, STUDY_ROOT_FIND
from twin_scanner.app import dicom_target, open_stow
from twin_scanner.doctor.finding import Finding, findings_of
from twin_scanner.settings import DestinationSection, Settings

_IMPLICIT: Final = str(ImplicitVRLittleEndian)
_PET: Final = (str(PositronEmissionTomographyImageStorage), _IMPLICIT)
_CONFIRMATIONS: Final = {
    "query": ((STUDY_ROOT_FIND, _IMPLICIT), "C-FIND (Study Root)"),
    "commitment": ((STORAGE_COMMITMENT, _IMPLICIT), "storage commitment"),
}
"""What a peer must accept beside the images, by what confirms a delivery; every application takes implicit VR."""


def check_destinations(settings: Settings) -> Iterator[Finding]:
    """Each by itself; nothing is stored."""
    for section in settings.known_destinations:
        look = _look_at_server if section.url else _look_at_peer
        yield from findings_of(f"destination {section.name}", partial(look, section), settings)


def _look_at_server(section: DestinationSection, settings: Settings) -> Iterator[Finding]:
    with closing(open_stow(section)) as service:
        service.check()
        yield Finding(f"destination {section.name}", "ok", f"{service} answers QIDO-RS.")
    if settings.twin.ask_pacs and section.confirm != "query":
        fact = f"{service} is not asked whose a study is before its CT is translated"
        yield Finding(
            "patient identity", "warning", f'{fact}: set confirm = "query" for it if it answers QIDO-RS for patients.'
        )


def _look_at_peer(section: DestinationSection, settings: Settings) -> Iterator[Finding]:
    name = f"destination {section.name}"
    target = dicom_target(settings, section, CommitmentReports(lambda _: False))
    wanted = dict([_CONFIRMATIONS[section.confirm]] if section.confirm in _CONFIRMATIONS else [])
    if target.implicit:
        wanted[_PET] = "PET images in implicit VR"
    offers = list(wanted)
    accepted = accepted_offers(target.peer, offers, calling_ae=target.calling_ae, timeouts=target.timeouts)
    for offer in offers:
        if offer not in accepted:
            advice = f"allow it there from '{target.calling_ae}', or change confirm or transfer_syntax here"
            yield Finding(name, "fault", f"{target.peer} does not accept {wanted[offer]}: {advice}.")
    if accepted == set(offers):
        facts = ", ".join(wanted.values()) or "an association"
        yield Finding(name, "ok", f"{target.peer} accepts {facts}: deliveries are confirmed by {section.confirm}.")
