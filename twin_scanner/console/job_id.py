"""What a job's id looks like in an address: nothing else ever becomes the name of a folder."""

import re
from typing import Annotated, Final

from fastapi import Path

_JOB_ID: Final = "[0-9a-f]{32}"
JobId = Annotated[str, Path(pattern=f"^{_JOB_ID}$")]
"""The part of an address that names a job."""


def is_job_id(text: str) -> bool:
    """Whether a job may have this id."""
    return re.fullmatch(_JOB_ID, text) is not None
