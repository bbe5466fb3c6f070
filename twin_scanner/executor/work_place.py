"""What a worker on another machine must have before it is given work: this version, and the files where the work looks.

A worker offers the name of each place that it is; work asks for one by that name. So whoever lacks the files, or runs
another version, never claims anything.
"""

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal, TypeAlias

from twin_scanner.errors import Transient

STORAGE_ID: Final = "storage-id"
"""The file of a storage folder that holds its id: whoever reads the same id there sees the same files."""
WorkKind: TypeAlias = Literal["render", "training"]


@dataclass(frozen=True)
class WorkPlace:
    """One kind of work, on the storage folder ``storage`` where its files do not travel; the path is the same there."""

    kind: WorkKind
    storage: Path | None = None
    storage_id: str = ""

    @cached_property
    def resource(self) -> str:
        """The name that a worker offers and work asks for."""
        shared = "" if self.storage is None else f"/{self.storage_id}@{self.storage}"
        return f"twin-scanner/{version('twin-scanner')}/{self.kind}{shared}"

    @property
    def priority(self) -> int:
        """Renders go before training."""
        return 1 if self.kind == "render" else 0

    @property
    def gives_way(self) -> bool:
        """Whether work that has begun stops, and goes on later, where work that goes before it waits for its worker."""
        return self.kind == "training"

    def is_here(self) -> bool:
        """Whether this machine sees the files."""
        try:
            return self.storage is None or read_storage_id(self.storage) == self.storage_id
        except Transient:
            return False


def read_storage_id(storage: Path) -> str:
    """The id of a storage folder; raises Transient where it cannot be read, as before a node's first start."""
    try:
        return (storage / STORAGE_ID).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Transient(
            f"{storage / STORAGE_ID} cannot be read: mount the storage folder here under the same path, and start its "
            "node once."
        ) from error
