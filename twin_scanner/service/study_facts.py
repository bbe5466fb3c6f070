"""By what a hospital knows a study that arrives: date, accession number, description; read from one file of the spool.

Nothing of the patient is read. Wrong bytes give empty texts, never an error: no study waits for its description.
"""

import re
from typing import Final

from pydicom.charset import python_encoding

from dicom_node.instance_header import file_texts
from dicom_node.spool import Spool
from twin_scanner.errors import TwinScannerError
from twin_scanner.service.ledger import StudyFacts

CHARACTER_SET, STUDY_DATE, ACCESSION_NUMBER, STUDY_DESCRIPTION = 0x00080005, 0x00080020, 0x00080050, 0x00081030
LONGEST: Final = 64
"""Characters that are kept of a text: as many as a description (LO, PS3.5 6.2) may have."""
_DATE: Final = re.compile(r"\d{8}")
_ESCAPE: Final = re.compile(r"\x1b\$?[(),\-.]?[0-~]")
"""What changes the character set within a value (ISO 2022); Python's codecs of that name read it themselves."""


def read_study_facts(spool: Spool, study_uid: str) -> StudyFacts:
    """The facts of a study that lies in the spool, as its first file has them."""
    try:
        file = spool.files(study_uid)[0]
        texts = file_texts(file, (CHARACTER_SET, STUDY_DATE, ACCESSION_NUMBER, STUDY_DESCRIPTION))
    except (TwinScannerError, IndexError):
        return StudyFacts()
    codec = _codec(texts.get(CHARACTER_SET, ""))
    found = _DATE.fullmatch(texts.get(STUDY_DATE, ""))
    return StudyFacts(
        study_date=found.group() if found else "",
        accession_number=_printable(texts.get(ACCESSION_NUMBER, ""), codec),
        study_description=_printable(texts.get(STUDY_DESCRIPTION, ""), codec),
    )


def _codec(character_set: str) -> str:
    """The codec of the last defined term (PS3.3 C.12.1.1.2); Latin 1 for one that is none."""
    terms = [term.strip() for term in character_set.split("\\") if term.strip()]
    return python_encoding.get(terms[-1], "latin-1") if terms else "latin-1"


def _printable(text: str, codec: str) -> str:
    """A text that was read byte by byte, decoded, on one line: nothing in it moves a terminal's cursor."""
    plain = text if codec.startswith("iso2022") else _ESCAPE.sub("", text)
    decoded = plain.encode("latin-1").decode(codec, "replace")
    return " ".join("".join(one if one.isprintable() else " " for one in decoded).split())[:LONGEST]
