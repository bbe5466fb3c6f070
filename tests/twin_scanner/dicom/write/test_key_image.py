"""The key image as the reading room gets it. Oracles: Orthanc and DCMTK render it, dciodvfy reads its attributes."""

import io
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from matplotlib.image import imread

from dicom_node.peers import Peer
from dicom_node.store_scu import send
from tests.peers.check_dicom import errors_in
from tests.peers.orthanc import Orthanc
from tests.twin_scanner.dicom.write.test_pet_series import SYNTHESIS, _ct, _write
from training.phantom.phantom import PhantomOptions, make_phantom
from twin_scanner.dicom.read.ct_series import CtSeries
from twin_scanner.dicom.write.companions import WrittenObject
from twin_scanner.dicom.write.key_image import write_key_image
from twin_scanner.dicom.write.pet_series import WrittenSeries
from twin_scanner.pictures.preview import Scene, key_image

pytestmark = pytest.mark.node

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def picture() -> Pixels:
    phantom = make_phantom(3, PhantomOptions(spacing_mm=(10.0, 8.0, 8.0)))
    return key_image(Scene(phantom.ct, phantom.districts, phantom.pet, missing=("legs",)), "demonstration 0123456789ab")


def written(folder: Path, picture: Pixels, ct: CtSeries | None = None) -> tuple[WrittenSeries, WrittenObject]:
    ct = ct or _ct()
    pet, _ = _write(folder / "pet", ct)
    return pet, write_key_image(picture, ct, pet, SYNTHESIS, folder / "key")


def test_orthanc_takes_it_over_c_store_and_renders_every_pixel(
    picture: Pixels, tmp_path: Path, peer: Callable[[str], str], free_port: Callable[[], int]
) -> None:
    _, key = written(tmp_path, picture)
    with Orthanc(tmp_path / "orthanc", free_port(), free_port(), program=peer("Orthanc")) as pacs:
        send([key.file], Peer(pacs.ae_title, "127.0.0.1", pacs.dicom_port), calling_ae="TWINSCANNER")
        (instance,) = pacs.rest("/instances")
        rendered = imread(io.BytesIO(pacs.rest_bytes(f"/instances/{instance}/preview")))
        tags = pacs.rest(f"/instances/{instance}/simplified-tags")
    assert np.array_equal((rendered[..., :3] * 255).round().astype(np.uint8), picture)
    assert tags["BurnedInAnnotation"] == "YES"
    assert tags["SeriesInstanceUID"] == key.series_uid


def test_dcmtk_renders_every_pixel(picture: Pixels, tmp_path: Path, peer: Callable[[str], str]) -> None:
    _, key = written(tmp_path, picture)
    subprocess.run([peer("dcm2pnm"), "--write-raw-pnm", key.file, tmp_path / "key.ppm"], check=True, timeout=60)
    content = (tmp_path / "key.ppm").read_bytes()
    kind, columns, rows, most = content.split(maxsplit=4)[:4]
    assert (kind, most) == (b"P6", b"255")
    shape = int(rows), int(columns), 3
    assert np.array_equal(np.frombuffer(content[-int(np.prod(shape)) :], np.uint8).reshape(shape), picture)


@pytest.mark.parametrize("columns", [50, 51], ids=["even", "odd"])
def test_dciodvfy_finds_no_error(columns: int, tmp_path: Path, peer: Callable[[str], str]) -> None:
    peer("dciodvfy")
    noise = np.random.default_rng(1).integers(0, 256, (33, columns, 3)).astype(np.uint8)
    _, key = written(tmp_path, noise, _ct(LossyImageCompression="01", LossyImageCompressionRatio="8.5"))
    assert errors_in([key.file], synthetic=True) == []
    assert key.file.stat().st_size % 2 == 0


def test_it_names_ct_and_pet_as_sources_in_other_places(picture: Pixels, tmp_path: Path) -> None:
    """A projection keeps no place of its sources: SpatialLocationsPreserved NO (PS3.3 C.7.6.1.1.4)."""
    ct = _ct()
    pet, key = written(tmp_path, picture, ct)
    read = pydicom.dcmread(key.file)
    assert [image.ReferencedSOPInstanceUID for image in read.SourceImageSequence] == [
        *pet.sop_instance_uids,
        *ct.sop_instance_uids,
    ]
    assert {image.SpatialLocationsPreserved for image in read.SourceImageSequence} == {"NO"}
    assert {series.SeriesInstanceUID for series in read.ReferencedSeriesSequence} == {pet.series_uid, "1.2.3.4"}
    assert list(read.ImageType) == ["DERIVED", "SECONDARY"]
    assert (read.SyntheticData, read.BurnedInAnnotation, read.ConversionType) == ("YES", "YES", "SYN")


@pytest.mark.parametrize("lossy", ["by the header", "in some slice", "never"])
def test_what_derives_from_a_lossy_ct_says_so(lossy: str, picture: Pixels, tmp_path: Path) -> None:
    ct = _ct(LossyImageCompression="01", LossyImageCompressionRatio="8.5") if lossy == "by the header" else _ct()
    ct = replace(ct, lossy=lossy == "in some slice")
    _, key = written(tmp_path, picture, ct)
    read = pydicom.dcmread(key.file)
    assert read.LossyImageCompression == ("00" if lossy == "never" else "01")
    assert ("LossyImageCompressionRatio" in read) == (lossy == "by the header")
