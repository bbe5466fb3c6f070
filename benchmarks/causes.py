"""Why a figure falls short of its goal or its peer: written by hand, one sentence for each, and shown on the page."""

from typing import Final

FSYNCS: Final = "Two fsyncs per instance come before its acknowledgement; the other receivers promise less."
CAUSES: Final[dict[tuple[str, str], str]] = {
    ("latency", "all but the networks"): (
        "Writing the results, the districts and the PACS's count of the study are most of it, each on one core."
    ),
    ("receipt", "600 CT slices"): FSYNCS,
    ("receipt", "times as fast as"): FSYNCS,
    ("receipt", "rate of 8 senders"): "The senders, the receiver and the disk share 2 cores.",
}
"""By benchmark, and by how the figure begins."""


def cause_of(name: str, figure: str) -> str:
    """The cause of a figure that falls short; empty where nobody has written one."""
    return next((cause for (of, begins), cause in CAUSES.items() if of == name and figure.startswith(begins)), "")
