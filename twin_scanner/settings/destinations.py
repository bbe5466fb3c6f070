"""The section of the places that take our images: [[destinations]], each a peer or a DICOMweb server."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from twin_scanner.settings.section import Seconds, Section, text_like

TWIN: Final = "twin"
"""Names the twin record among the deliveries."""
Confirmation = Literal["commitment", "query", "status"]
Associations = Annotated[int, Field(ge=1, le=16)]
DestinationName = Annotated[
    str,
    text_like(
        r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,31}",
        "a destination's name has 1 to 32 letters, digits, dots, hyphens and underscores, and no dot at its beginning",
    ),
]


class DestinationSection(Section):
    """Where the synthetic PET goes."""

    name: DestinationName
    peer: str = ""
    url: Annotated[str, text_like(r"(https?://.+)?", "a service root begins with http:// or https://")] = ""
    token_file: Path | None = None
    ca_file: Path | None = None
    timeout_s: Seconds = 60.0
    associations: Associations = 2
    transfer_syntax: Literal["explicit", "implicit"] = "explicit"
    confirm: Confirmation = "query"
    commitment_timeout_s: Seconds = 3600.0
    required: bool = True
    late_slices: Literal["supersede", "supersede and reject"] = "supersede"

    @model_validator(mode="after")
    def _is_one_of_two(self) -> "DestinationSection":
        said = f"the destination '{self.name}'"
        if self.name == TWIN:
            raise ValueError("no destination may have the name 'twin': that is the twin record")
        if bool(self.peer) == bool(self.url):
            raise ValueError(f"{said} needs either a peer or a url")
        if self.peer and (self.token_file or self.ca_file):
            raise ValueError(f"{said} is a peer: token_file and ca_file are for a url, a peer has tls and [tls]")
        if self.url and self.transfer_syntax == "implicit":
            raise ValueError(f"{said} has a url: DICOMweb knows no implicit transfer syntax")
        if self.url and "associations" in self.model_fields_set:
            raise ValueError(f"{said} has a url: associations are for a peer")
        if self.url and self.confirm == "commitment":
            raise ValueError(f'{said} has a url, which is not asked for storage commitment: set confirm = "query"')
        return self
