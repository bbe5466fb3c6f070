"""What every section of the configuration is made of: frozen, no unknown keys, and the types of common values."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _ae_title(text: str) -> str:
    if not text.strip() or len(text) > 16 or not text.isascii() or not text.isprintable() or "\\" in text:
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash (PS3.5, VR AE)")
    return text.strip()


def text_like(pattern: str, words: str) -> AfterValidator:
    """A check that a text has the form of a regular expression; ``words`` say so to a person."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(words)
        return text

    return AfterValidator(check)


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]
ListenPort = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
Sha256 = Annotated[str, text_like(r"([0-9a-f]{64})?", "a SHA-256 has 64 digits 0-9 and a-f")]


class Section(BaseModel):
    """One table of the TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
