"""One instance on its way in: its bytes go to a partial file as they come, within the limits that the node sets.

After a refusal the rest is read and thrown away, for a C-STORE can be answered only once the sender has sent it all.
"""

import logging
from dataclasses import dataclass
from typing import Final

from dicom_node.refusal import OUT_OF_RESOURCES, Refusal
from dicom_node.spool import Partial, Spool
from twin_scanner.errors import Transient

MEGABYTE: Final = 2**20
_STEP_BYTES: Final = 32 * MEGABYTE
"""So often a large instance is put on disk and the free space is looked at: its end is then answered soon."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReceiptLimits:
    """What an instance may cost: its own size, and what must stay free on the spool's disk."""

    maximum_bytes: int = 4096 * MEGABYTE
    minimum_free_bytes: int = 0


class Receipt:
    """The data set of one C-STORE: ``write`` it part by part, then let the spool ``keep`` the partial file.

    Nothing here raises for a disk that fails: the refusal is kept for the answer. Used by one thread at a time.
    """

    def __init__(self, spool: Spool, limits: ReceiptLimits) -> None:
        self._spool = spool
        self._limits = limits
        self._partial: Partial | None = None
        self._refusal: Refusal | None = None
        self._checked_at = 0
        self._meta_bytes = 0

    @property
    def name(self) -> str:
        """Where the partial file lies; pynetdicom removes a file of this name after its answer, if there is one."""
        return "" if self._partial is None else str(self._partial.path)

    def begin(self, meta: bytes) -> None:
        """Open the partial file with its preamble and meta information."""
        try:
            self._check_room()
            self._partial = self._spool.begin()
            self._partial.write(meta)
            self._meta_bytes = len(meta)
        except (Refusal, Transient) as error:
            self.refuse(error)

    def write(self, data: memoryview) -> None:
        """Add the next part of the data set; it is thrown away once the instance is refused."""
        partial = self._partial
        if partial is None:
            return
        try:
            if partial.size + len(data) > self._limits.maximum_bytes:
                megabytes = self._limits.maximum_bytes // MEGABYTE
                raise Refusal(OUT_OF_RESOURCES, f"An instance may have {megabytes} MB here (node.maximum_instance_mb).")
            partial.write(data)
            if partial.size - self._checked_at > _STEP_BYTES:
                self._checked_at = partial.size
                partial.flush()
                self._check_room()
        except (Refusal, Transient) as error:
            self.refuse(error)

    def refuse(self, error: Refusal | Transient) -> None:
        """Give up the partial file; the first refusal is the one that is answered."""
        if isinstance(error, Transient):
            logger.error("%s", error)
            error = Refusal(OUT_OF_RESOURCES, "The instance cannot be kept now; send again later.")
        self._refusal = self._refusal or error
        self.close()

    def whole(self) -> Partial:
        """The partial file with the whole data set; raises Refusal where the instance was refused on the way."""
        if self._refusal is not None:
            raise self._refusal
        assert self._partial is not None, "the receipt was begun"
        return self._partial

    def start(self, most: int) -> bytes:
        """The first bytes of the data set."""
        return self.whole().read(self._meta_bytes, most)

    def close(self) -> None:
        """Remove the partial file, unless the spool has kept it."""
        if self._partial is not None:
            self._partial.close()
            if self._refusal is not None:
                self._partial = None

    def _check_room(self) -> None:
        if self._spool.free_bytes() < self._limits.minimum_free_bytes:
            raise Refusal(OUT_OF_RESOURCES, "Too little free disk space; send again later.")
