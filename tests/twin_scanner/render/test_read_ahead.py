"""A CT that is read before its render is asked for: to the bit what the render would read, or not taken at all."""

import os
import shutil
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLosslessSV1, JPEGLSLossless

from tests.samples.ct_files import write_series
from twin_scanner.dicom.read.ct_series import ChosenSeries, CtSeries, read_ct_series
from twin_scanner.dicom.read.preference import Preference
from twin_scanner.districts.choice import SegmenterChoice, make_segmenter
from twin_scanner.districts.district_map import DistrictMap
from twin_scanner.districts.landmarks.segmenter import LandmarkSegmenter
from twin_scanner.errors import Defect
from twin_scanner.executor.memory import Memory
from twin_scanner.imaging.volume import Geometry, Volume
from twin_scanner.render import read_ahead, render
from twin_scanner.render.read_ahead import MOST_VOXELS, ReadAhead, ReadCt, has_room
from twin_scanner.render.request import RenderRequest

pytestmark = pytest.mark.unit

AMPLE = Memory(total=10**11, free=10**11)


def request_for(source: Path) -> RenderRequest:
    return RenderRequest(
        source=source,
        result=source.with_name("result"),
        made_at=datetime(2026, 1, 1, tzinfo=UTC),
        model="champion",
        model_store=source.with_name("models"),
        segmenter=SegmenterChoice(),
        allow_other_segmenter=False,
        missing_district="reject",
        device_serial_number="1",
        accept_synthetic_ct=False,
    )


def linked(files: list[Path], folder: Path) -> Path:
    """What the intake makes of a study's chosen files: hard links in the job's folder."""
    folder.mkdir()
    for file in files:
        os.link(file, folder / file.name)
    return folder


def assert_same(ahead: ReadCt | None, read: CtSeries) -> None:
    assert ahead is not None
    taken = ahead.series
    assert np.array_equal(taken.volume.array, read.volume.array)
    assert taken.volume.array.dtype == read.volume.array.dtype
    same = (
        *("sop_instance_uids", "sop_class_uid", "set_aside", "lossy", "derivation", "instance_numbers"),
        *("header",),
    )
    assert [getattr(taken, name) for name in same] == [getattr(read, name) for name in same]
    assert taken.volume.geometry == read.volume.geometry


def test_what_was_read_ahead_is_to_the_bit_what_the_render_would_read(tmp_path: Path) -> None:
    files = write_series(tmp_path / "spool")
    request = request_for(linked(files, tmp_path / "ct"))
    ahead = ReadAhead()
    assert ahead.read(files[::-1], request, AMPLE)
    assert_same(ahead.take(request), read_ct_series(tmp_path / "ct"))
    assert ahead.take(request) is None, "it is another's from then on"


def test_a_real_ct_is_the_same_read_ahead(tmp_path: Path, shared_data: Path) -> None:
    """JPEG-LS, 512 x 512, positions that jitter."""
    files = sorted((shared_data / "thorax_petct" / "ct").iterdir())[:40]
    copies = [Path(shutil.copy(file, tmp_path)) for file in files]
    request = request_for(linked(copies, tmp_path / "ct"))
    ahead = ReadAhead()
    assert ahead.read(copies, request, AMPLE)
    taken, series = ahead.take(request), read_ct_series(tmp_path / "ct")
    assert_same(taken, series)
    assert taken is not None and taken.segmenter is not None
    districts = make_segmenter(request.segmenter).segment(series.volume)
    found = taken.segmenter.segment(taken.series.volume)
    assert np.array_equal(found.labels, districts.labels) and found.labels.any()
    assert replace(found, labels=districts.labels).__dict__ == districts.__dict__


def test_of_several_series_the_chosen_one_is_read_as_if_it_had_been_alone(tmp_path: Path) -> None:
    thin = write_series(tmp_path / "spool", 24, name="thin")
    few = write_series(tmp_path / "spool", 17, name="few", SeriesInstanceUID="2.25.7")
    request = request_for(linked(thin, tmp_path / "ct"))
    ahead = ReadAhead()
    assert ahead.read([*few, *thin], replace(request, preference=Preference(minimum_coverage_mm=0.0)), AMPLE)
    taken = ahead.take(replace(request, preference=Preference(minimum_coverage_mm=0.0)))
    assert_same(taken, read_ct_series(tmp_path / "ct"))
    assert taken is not None and taken.series.set_aside == ()


def _sent_again(ct: Path) -> None:
    """The same size, another content, another file under the same name."""
    file = min(ct.iterdir())
    image = pydicom.dcmread(file)
    image.PixelData = image.PixelData[::-1]
    file.unlink()
    image.save_as(file)


def _written_over(ct: Path) -> None:
    file = min(ct.iterdir())
    status = file.stat()
    file.write_bytes(file.read_bytes())
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def _one_more(ct: Path) -> None:
    shutil.copy(min(ct.iterdir()), ct / "more.dcm")


def _one_less(ct: Path) -> None:
    min(ct.iterdir()).unlink()


def _copied(ct: Path) -> None:
    """As where the file system has no links: whether the copies are the same nobody has looked at."""
    for file in list(ct.iterdir()):
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)


@pytest.mark.parametrize("change", [_sent_again, _written_over, _one_more, _one_less, _copied])
def test_other_files_are_read_by_the_render_itself(tmp_path: Path, change: Callable[[Path], None]) -> None:
    files = write_series(tmp_path / "spool")
    request = request_for(linked(files, tmp_path / "ct"))
    ahead = ReadAhead()
    assert ahead.read(files, request, AMPLE)
    change(request.source)
    assert ahead.take(request) is None


def test_a_correction_that_comes_while_the_ct_is_read_is_never_served_as_what_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``Spool.take_apart`` renames a held study's new files into the place of the old ones, in the midst of a read."""
    files = write_series(tmp_path / "spool")
    request = request_for(tmp_path / "ct")
    read = read_ahead.read_chosen_series

    def read_while_corrected(*arguments: Any, **how: Any) -> ChosenSeries | None:
        chosen = read(*arguments, **how)
        for file in files:
            image = pydicom.dcmread(file)
            image.PatientID = "the right one"
            image.save_as(tmp_path / "partial")
            (tmp_path / "partial").rename(file)
        return chosen

    monkeypatch.setattr(read_ahead, "read_chosen_series", read_while_corrected)
    ahead = ReadAhead()
    is_kept = ahead.read(files, request, AMPLE)
    linked(files, request.source)
    assert ahead.take(request) is None, "these are the old slices under the identity of the new files"
    assert not is_kept


def test_another_way_of_reading_takes_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    files = write_series(tmp_path / "spool")
    request = request_for(linked(files, tmp_path / "ct"))
    ahead = ReadAhead()
    for other in (
        replace(request, gantry_tilt="resample"),
        replace(request, accept_synthetic_ct=True),
        replace(request, preference=Preference(contrast="with")),
        replace(request, segmenter=SegmenterChoice("labelmap")),
    ):
        assert ahead.read(files, request, AMPLE)
        assert ahead.take(other) is None
        assert ahead.take(request) is None, "no second CT is ever held beside the one that is rendered"


def test_what_cannot_be_read_is_left_to_the_render_which_says_why(tmp_path: Path) -> None:
    files = write_series(tmp_path / "spool")
    ahead = ReadAhead()
    request = request_for(linked(files, tmp_path / "ct"))
    assert ahead.read(files, request, AMPLE)
    files[3].write_bytes(files[3].read_bytes()[:-9])
    assert not ahead.read(files, request, AMPLE)
    assert not ahead.read(files[:3], request, AMPLE)
    assert not ahead.read([tmp_path / "gone.dcm"], request, AMPLE)
    assert ahead.take(request) is None, "nor does what was read before stay"


def test_what_no_render_asks_for_is_forgotten_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[tuple[float, Callable[..., None], tuple[object, ...]]] = []

    class Timer:
        daemon = False

        def __init__(self, after_s: float, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
            timers.append((after_s, work, arguments))

        def start(self) -> None: ...

        def cancel(self) -> None: ...

    monkeypatch.setattr(threading, "Timer", Timer)
    files = write_series(tmp_path / "spool")
    request = request_for(linked(files, tmp_path / "ct"))
    ahead = ReadAhead(keep_s=30.0)
    assert ahead.read(files, request, AMPLE)
    assert ahead.read(files, request, AMPLE)
    (_, forget_first, first), (after_s, forget, last) = timers
    forget_first(*first)
    assert ahead._kept is not None, "the first one's time does not end the second one's"
    forget(*last)
    assert ahead._kept is None and after_s == 30.0


def _found(self: LandmarkSegmenter, ct: Volume) -> DistrictMap:
    return DistrictMap(np.ones(ct.geometry.shape, np.uint8), ct.geometry, "landmarks", "1")


def test_a_render_takes_what_was_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LandmarkSegmenter, "segment", _found)
    files = write_series(tmp_path / "spool")
    request = request_for(linked(files, tmp_path / "ct"))
    ahead = ReadAhead()
    monkeypatch.setattr(render, "READ_AHEAD", ahead)
    assert ahead.read(files, request, AMPLE)
    kept = ahead._kept
    series, _, segmenter = render._read(request)
    assert kept is not None and series is kept.series and segmenter is kept.segmenter
    again, volume, other = render._read(request)
    assert again is not kept.series and np.array_equal(volume.array, kept.series.volume.array)
    assert isinstance(other, LandmarkSegmenter)
    with pytest.raises(Defect, match="another CT"):
        segmenter.segment(volume)


def test_districts_found_ahead_do_not_keep_the_ct_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A render lets go of the CT before it writes; the prediction of its memory counts on that."""
    monkeypatch.setattr(LandmarkSegmenter, "segment", _found)
    files = write_series(tmp_path / "spool")
    request = request_for(linked(files, tmp_path / "ct"))
    ahead = ReadAhead()
    monkeypatch.setattr(render, "READ_AHEAD", ahead)
    assert ahead.read(files, request, AMPLE)
    series, volume, segmenter = render._read(request)
    assert series is not None
    districts, array = segmenter.segment(volume), weakref.ref(volume.array)
    series = series.without_voxels()
    del volume
    assert array() is None and districts.labels.all()


def test_a_ct_without_districts_is_kept_and_other_segmenters_are_left_to_the_render(tmp_path: Path) -> None:
    files = write_series(tmp_path / "spool")
    request = request_for(linked(files, tmp_path / "ct"))
    ahead = ReadAhead()
    for one in (request, replace(request, segmenter=SegmenterChoice("labelmap"))):
        assert ahead.read(files, one, AMPLE)
        taken = ahead.take(one)
        assert taken is not None and taken.segmenter is None


def test_only_a_ct_that_is_small_beside_the_free_memory_is_read_ahead_and_never_by_gdcm() -> None:
    """A render that waits behind GDCM would be lost with it."""
    thorax = Geometry((135, 512, 512), (3.75, 1.0, 1.0), (0.0, 0.0, 0.0))
    most = 135 * 512 * 512 * 4 * 8
    assert has_room(thorax, {JPEGLSLossless}, Memory(most, most))
    assert not has_room(thorax, {JPEGLSLossless}, Memory(most, most - 1))
    assert not has_room(thorax, {JPEGLSLossless}, None)
    assert not has_room(thorax, {JPEGLSLossless, JPEGLosslessSV1}, AMPLE)
    whole_body = replace(thorax, shape=(MOST_VOXELS // 512**2 + 1, 512, 512))
    assert not has_room(whole_body, {JPEGLSLossless}, AMPLE)
