"""What one destination has answered for, instance by instance: a file in the result's folder, one line for each.

A line is a SOP Instance UID, behind a warning also its status (``1.2.3 0xB000``). A killed process leaves its lines, so
that what it sent is not sent again. A power cut may lose the last of them: those are sent twice, with the same content.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dicom_node.store_scu import InstanceStatus
from twin_scanner.files.durable_file import write_durably, writing

_FILE: Final = "stored-at-{}"
_AGAIN: Final = "resend-to-{}"
_WHAT: Final = "What the destination has answered for"

Answered = dict[str, str]
"""SOP Instance UID to the status of its warning, empty where there was none."""


def read_answered(folder: Path, destination: str) -> Answered:
    """The instances that the destination has taken."""
    file = folder / _FILE.format(destination)
    lines = file.read_text("ascii").split("\n")[:-1] if file.exists() else []
    return {uid: status for uid, _, status in (line.partition(" ") for line in lines)}


@contextmanager
def answering(folder: Path, destination: str) -> Iterator[tuple[Answered, Callable[[InstanceStatus], None]]]:
    """The instances that the destination has taken, and what adds an answer; raises Transient where the disk fails."""
    with writing(_WHAT, folder):
        answered = read_answered(folder, destination)
        with (folder / _FILE.format(destination)).open("a", encoding="ascii") as lines:

            def note(answer: InstanceStatus) -> None:
                if answer.stored:
                    status = f"0x{answer.status:04X}" if answer.warning else ""
                    answered[answer.sop_instance_uid] = status
                    lines.write(f"{answer.sop_instance_uid} {status}".rstrip() + "\n")
                    lines.flush()

            yield answered, note


def answer_again(folder: Path, destination: str, wish: str, sop_instance_uids: Collection[str]) -> None:
    """What was answered of these before this wish to send them again counts no more; once per wish, whatever crashes.

    What rejected an earlier PET there does count. Raises Transient where the disk fails.
    """
    begun = folder / _AGAIN.format(destination)
    if begun.exists() and begun.read_text("ascii") == wish:
        return
    forget_answered(folder, destination, sop_instance_uids)
    with writing(_WHAT, folder):
        write_durably(begun, wish.encode("ascii"))


def forget_answered(folder: Path, destination: str, sop_instance_uids: Collection[str]) -> None:
    """The destination does not keep these: they are sent again. Raises Transient where the disk fails."""
    answered = read_answered(folder, destination)
    kept = [f"{uid} {status}".rstrip() + "\n" for uid, status in answered.items() if uid not in sop_instance_uids]
    with writing(_WHAT, folder):
        write_durably(folder / _FILE.format(destination), "".join(kept).encode("ascii"))
