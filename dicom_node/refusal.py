"""Why a request of another node is refused: its status (PS3.7 annex C, PS3.4 table B.2-1), and what is said."""

from typing import Final

INVALID_SOP_INSTANCE: Final = 0x0117
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
NOT_AUTHORISED: Final = 0x0124
OUT_OF_RESOURCES: Final = 0xA700
DOES_NOT_MATCH: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000
COMMENT_LENGTH: Final = 64
"""ErrorComment is an LO and holds no more characters (PS3.5 6.2)."""


class Refusal(Exception):
    """One instance is not kept; the comment names no value of the data set."""

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = comment
