"""By what a hospital knows a study: from a file of the spool, in whatever character set, and never an error."""

from pathlib import Path

import pydicom
import pytest

from dicom_node.spool import Spool
from tests.samples.small_ct import write_series
from twin_scanner.service.ledger import StudyFacts
from twin_scanner.service.study_facts import read_study_facts

pytestmark = pytest.mark.unit

STUDY = "1.2.3"


def stored(folder: Path, **attributes: str) -> Spool:
    """A spool with one slice, as the receiver keeps it."""
    spool = Spool(folder / "spool")
    (file,) = write_series(folder / "sent", slices=1, **attributes)
    header = pydicom.dcmread(file, stop_before_pixels=True)
    series = spool.folder / STUDY / str(header.SeriesInstanceUID)
    series.mkdir(parents=True)
    (series / f"{header.SOPInstanceUID}.dcm").write_bytes(file.read_bytes())
    return spool


@pytest.mark.parametrize(
    ("character_set", "description"),
    [
        ("ISO_IR 100", "CT Schädel"),
        ("ISO_IR 192", "КТ грудной клетки"),
        ("\\ISO 2022 IR 87", "CT 頭部"),
    ],
)
def test_facts_are_read_in_the_character_set_of_the_file(tmp_path: Path, character_set: str, description: str) -> None:
    facts = {"StudyDate": "20260301", "AccessionNumber": "A-17", "StudyDescription": description}
    spool = stored(tmp_path, SpecificCharacterSet=character_set, **facts)
    assert read_study_facts(spool, STUDY) == StudyFacts("20260301", "A-17", description)


def test_nothing_in_a_text_moves_a_terminal_and_a_wrong_date_is_none(tmp_path: Path) -> None:
    spool = stored(tmp_path, StudyDate="", AccessionNumber="A\x1b[2J17", StudyDescription="two\r\nlines")
    assert read_study_facts(spool, STUDY) == StudyFacts("", "A2J17", "two lines")


def test_a_study_that_cannot_be_read_has_no_facts(tmp_path: Path) -> None:
    spool = stored(tmp_path)
    (file,) = spool.files(STUDY)
    file.write_bytes(b"damaged")
    assert read_study_facts(spool, STUDY) == read_study_facts(spool, "1.2.4") == StudyFacts()
