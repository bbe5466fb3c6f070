"""What takes our images: a DICOM application or a DICOMweb server, with the same words for both."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from dicom_node.associations import Timeouts
from dicom_node.commitment import CommitmentReports, NotCommitting, ask_for_commitment
from dicom_node.peers import Peer, Role
from dicom_node.query import querying
from dicom_node.store_scu import InstanceStatus, SendReport, send
from dicom_node.stow import StowService
from twin_scanner.errors import Transient

Confirm: TypeAlias = Literal["commitment", "query", "status"]


class Send(Protocol):
    """Stores files, as ``store_scu.send`` does."""

    def __call__(
        self,
        files: Sequence[Path],
        *,
        where_taken: Sequence[Path],
        skip: Collection[str],
        on_answer: Callable[[InstanceStatus], None],
        check_stop: Callable[[], bool],
    ) -> SendReport:
        """The answers to all of them; raises as ``store_scu.send`` does."""


class ImageTarget(Protocol):
    """Takes instances, and says which it has."""

    @property
    def by_status(self) -> str:
        """What a delivery is said to be confirmed by where nothing but the answers does."""

    @property
    def send(self) -> Send:
        """How files are stored there."""

    def held(self, study_uid: str, series_uids: Collection[str]) -> frozenset[str]:
        """The SOP Instance UIDs of these series that are there; raises Transient where it does not say."""

    def commit(self, transaction_uid: str, instances: Sequence[tuple[str, str]]) -> None:
        """Ask whether these instances are kept; raises NotCommitting where that cannot be asked, or Transient."""


@dataclass(frozen=True)
class DicomTarget:
    """A DICOM application: C-STORE, C-FIND, and storage commitment whose reports go to ``reports``."""

    peer: Peer
    calling_ae: str
    timeouts: Timeouts
    reports: CommitmentReports
    implicit: bool = False
    associations: int = 1
    """How many are open at once for one delivery, at most."""
    by_status: str = "C-STORE status"

    @property
    def send(self) -> Send:
        """By C-STORE."""
        return partial(
            send,
            peer=self.peer,
            calling_ae=self.calling_ae,
            timeouts=self.timeouts,
            implicit=self.implicit,
            associations=self.associations,
        )

    def held(self, study_uid: str, series_uids: Collection[str]) -> frozenset[str]:
        """By C-FIND over one association; raises Transient where the peer may not be queried."""
        if Role.QUERY not in self.peer.roles:
            raise Transient(f"{self.peer} has not the role 'query': give it to that peer.")
        with querying(self.peer, calling_ae=self.calling_ae, timeouts=self.timeouts) as query:
            return frozenset().union(*(query.instances(study_uid, series_uid) for series_uid in series_uids))

    def commit(self, transaction_uid: str, instances: Sequence[tuple[str, str]]) -> None:
        """By N-ACTION; the report comes on the same association, or on one that the peer opens to us."""
        ask_for_commitment(
            self.peer,
            transaction_uid,
            instances,
            self.reports,
            calling_ae=self.calling_ae,
            timeouts=self.timeouts,
        )


@dataclass(frozen=True)
class StowTarget:
    """A DICOMweb server: STOW-RS and QIDO-RS."""

    service: StowService
    by_status: str = "STOW-RS status"

    @property
    def send(self) -> Send:
        """By STOW-RS, several instances in one request."""
        return self.service.send

    def held(self, study_uid: str, series_uids: Collection[str]) -> frozenset[str]:
        """By QIDO-RS."""
        return frozenset().union(*(self.service.instances(study_uid, series_uid) for series_uid in series_uids))

    def commit(self, transaction_uid: str, instances: Sequence[tuple[str, str]]) -> None:
        """Not offered: DICOMweb's own storage commitment is used by nobody whom we know."""
        raise NotCommitting(f'{self.service} is not asked for storage commitment: set its confirm to "query".')
