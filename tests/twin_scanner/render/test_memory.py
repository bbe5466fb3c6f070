"""What a render is predicted to take, from files; ``python -m benchmarks memory`` holds it against what it takes."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest

from tests.samples.small_ct import write_series
from twin_scanner.districts.choice import SegmenterChoice
from twin_scanner.errors import Held, Transient
from twin_scanner.executor.memory import Memory
from twin_scanner.models.card import read_card
from twin_scanner.models.store import ModelStore
from twin_scanner.render.memory import CtExtent, Need, check_memory, extent_of, need_of, predicted
from twin_scanner.render.request import RenderRequest

pytestmark = pytest.mark.unit

WHOLE_BODY = CtExtent(512 * 512 * 1500, 512 * 512 * 1500 * 0.977 * 0.977 * 1.2)
GB = 10**9


def test_the_extent_of_a_ct_is_read_from_its_headers(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct")
    extent = extent_of(tmp_path / "ct")
    headers = [pydicom.dcmread(file) for file in files]
    assert extent.voxels == sum(header.pixel_array.size for header in headers)
    heights = sorted(float(header.ImagePositionPatient[2]) for header in headers)
    rows, columns = map(float, headers[0].PixelSpacing)
    voxel_mm3 = rows * columns * (heights[1] - heights[0])
    assert extent.volume_mm3 == pytest.approx(extent.voxels * voxel_mm3)


def test_a_header_without_a_possible_size_is_left_to_the_render_which_says_what_is_wrong(tmp_path: Path) -> None:
    request = RenderRequest(
        source=tmp_path / "ct",
        result=tmp_path / "result",
        made_at=datetime(2026, 1, 1, tzinfo=UTC),
        model="demonstration",
        model_store=tmp_path,
        segmenter=SegmenterChoice(),
        allow_other_segmenter=False,
        missing_district="reject",
        device_serial_number="1",
        accept_synthetic_ct=True,
    )
    file, *_ = write_series(tmp_path / "ct")
    assert need_of(request) is not None
    header = pydicom.dcmread(file)
    header.PixelSpacing = ["1e300", "1e300"]
    header.save_as(file)
    assert need_of(request) is None


def test_the_need_grows_with_the_ct_and_with_the_weights(tmp_path: Path) -> None:
    package = ModelStore(tmp_path).resolve("demonstration")
    card = read_card(package)
    whole = predicted(WHOLE_BODY, card, package)
    half = predicted(CtExtent(WHOLE_BODY.voxels // 2, WHOLE_BODY.volume_mm3 / 2), card, package)
    assert whole.working == pytest.approx(2 * half.working, rel=1e-6)
    assert whole.resident == half.resident
    stored_as_float32 = predicted(WHOLE_BODY, replace(card, precision="float32"), package)
    assert card.precision == "float16"
    assert stored_as_float32.resident < whole.resident, "half the bytes in the file are as many weights"


def test_a_whole_body_in_the_thinnest_slices_takes_at_most_four_gigabytes(tmp_path: Path) -> None:
    package = ModelStore(tmp_path).resolve("demonstration")
    assert predicted(WHOLE_BODY, read_card(package), package).peak <= 4 * GB


def test_what_can_never_fit_is_held_and_what_does_not_fit_now_waits() -> None:
    need = Need(resident=1 * GB, working=3 * GB)
    check_memory(need, Memory(total=8 * GB, free=3 * GB))
    check_memory(need, None)
    check_memory(None, Memory(total=1, free=1))
    with pytest.raises(Held, match=r"takes 4.0 GB of memory, and this machine gives 3.9 GB"):
        check_memory(need, Memory(total=39 * GB // 10, free=39 * GB // 10))
    with pytest.raises(Transient, match=r"takes 3.0 GB of memory beside what the worker has, and 2.0 GB are free"):
        check_memory(need, Memory(total=8 * GB, free=2 * GB))
