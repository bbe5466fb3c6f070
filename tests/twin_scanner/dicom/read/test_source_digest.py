"""Which CT is another one. Oracles: the formula over pydicom's own reading, and a number from an earlier version."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import pydicom
import pytest

from tests.samples.ct_files import overwrite, write_series
from twin_scanner.dicom.read.dicom_files import read_header
from twin_scanner.dicom.read.preference import Preference
from twin_scanner.dicom.read.series_choice import choose_series
from twin_scanner.dicom.read.source_digest import IDENTITY_KEYWORDS, source_digest

pytestmark = pytest.mark.unit


def _digest(files: Sequence[Path]) -> str:
    return source_digest(read_header(file, IDENTITY_KEYWORDS) for file in files)


def test_another_transfer_syntax_of_the_same_ct_is_the_same_source(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct")
    compressed = []
    for file in files:
        image = pydicom.dcmread(file)
        image.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        compressed.append(tmp_path / "rle" / file.name)
        compressed[-1].parent.mkdir(exist_ok=True)
        image.save_as(compressed[-1])
    assert _digest(files) == _digest(list(reversed(compressed)))


def test_the_digest_of_a_ct_is_the_one_that_an_earlier_version_recorded(tmp_path: Path) -> None:
    """A ledger keeps it for years: another number would make every CT that comes again a new one."""
    files = write_series(tmp_path, 3)
    assert _digest(files) == "69c11e90d48d3c5f7cd387f738927093a43b08cab57dbc841fe9ec6c4207ec80"


@pytest.mark.parametrize("keyword", ["PatientName", "PixelSpacing", "RescaleSlope", "ImagePositionPatient"])
def test_another_patient_place_or_scale_is_another_source(tmp_path: Path, keyword: str) -> None:
    values = {"PatientName": "Other^One", "PixelSpacing": [1, 1], "RescaleSlope": 2, "ImagePositionPatient": [1, 2, 3]}
    files = write_series(tmp_path / "a", 2)
    others = write_series(tmp_path / "b", 2, **{keyword: values[keyword]})
    assert _digest(files) != _digest(others)


def test_a_number_that_is_none_counts_as_its_bytes(tmp_path: Path) -> None:
    files = write_series(tmp_path, 1, PatientWeight="70.5")
    before = _digest(files)
    overwrite(files[0], b"70.5", b"70x5")
    one = _digest(files)
    overwrite(files[0], b"70x5", b"71x5")
    assert len({before, one, _digest(files)}) == 3


def test_a_choice_brings_the_digest_of_its_files_and_passes_between_processes(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    (choice,) = choose_series(files, Preference(minimum_coverage_mm=0))
    assert choice.source_digest == _digest(files)
    assert pickle.loads(pickle.dumps(choice)) == choice
    (none,) = choose_series(files[:3], Preference())
    assert (none.series_uid, none.source_digest) == (None, "")
