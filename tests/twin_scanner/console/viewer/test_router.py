"""The viewer over HTTP: pictures, values, volumes, the page without script, and addresses that lead nowhere."""

import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from tests.fakes.app_browser import AppBrowser
from tests.fakes.console_frame import bare_frame
from tests.samples.viewed_job import BONE_HU, CT_GRID, HOT_SUV, JOB_ID, PET_GRID, hounsfield, suv, write_viewed_job
from twin_scanner.console.viewer.memory import ImageMemory
from twin_scanner.console.viewer.router import viewer_router
from twin_scanner.imaging.volume import read_nifti

pytestmark = pytest.mark.unit
SLICES = f"/jobs/{JOB_ID}/slices"
PLACE = CT_GRID.shape[0] * 7 // 8


class Rig:
    """The viewer of a folder of jobs, and who was seen to look at which."""

    def __init__(self, jobs: Path) -> None:
        self.seen: list[str] = []
        application = FastAPI()
        application.include_router(
            viewer_router(jobs, ImageMemory(), bare_frame, lambda request, job_id: self.seen.append(job_id))
        )
        self.client = AppBrowser(application)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    jobs = tmp_path_factory.mktemp("jobs")
    write_viewed_job(jobs)
    return Rig(jobs)


class Page(HTMLParser):
    """Pictures, links and fields of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures: list[str] = []
        self.links: dict[str, str] = {}
        self.fields: dict[str, str] = {}
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "img":
            self.pictures.append(found["src"])
        if tag == "a" and "aria-label" in found:
            self.links[found["aria-label"]] = found["href"]
        if tag == "input":
            self.fields[found["name"]] = found.get("value", "")
        self.inline += [name for name in found if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in found):
            self.inline.append(tag)


def test_a_slice_is_a_picture_of_the_planes_size(rig: Rig) -> None:
    for plane, size in (("axial", (512, 341)), ("coronal", (512, 427)), ("sagittal", (410, 512))):
        for form in ("jpeg", "png"):
            answer = rig.client.get(f"{SLICES}/{plane}/5.{form}")
            picture = Image.open(io.BytesIO(answer.content))
            assert (picture.format or "").lower() == form == answer.headers["content-type"].partition("/")[2]
            assert picture.size == size
            assert answer.headers["cache-control"] == "no-store"


def test_the_values_under_a_pixel_are_those_of_the_file(rig: Rig) -> None:
    """A pixel's place is computed here from the phantom's measures: 512 x 341 pixels are 72 x 48 mm."""
    seen = set()
    for x_mm, y_mm in ((12.0, 20.0), (45.0, 20.0), (45.0, 35.0), (2.0, 2.0)):
        row, column = int(y_mm / 48 * 341), int(x_mm / 72 * 512)
        found = rig.client.get(f"{SLICES}/axial/{PLACE}/values?row={row}&column={column}").json()
        assert found["hu"] == hounsfield()[PLACE, int(y_mm / 2.0), int(x_mm / 1.5)]
        assert found["suv"] == suv()[PLACE, int(y_mm / 4.0), int(x_mm / 3.0)]
        assert found["slices"] == {"axial": PLACE, "coronal": int(y_mm / 2.0), "sagittal": int(x_mm / 1.5)}
        x, y, z = found["position_lps_mm"]
        assert rig.client.get(f"{SLICES}/values?x={x}&y={y}&z={z}").json()["hu"] == found["hu"]
        seen.add((found["hu"], found["suv"], found["district"]))
    assert seen == {(BONE_HU, 1.0, "head"), (0.0, HOT_SUV, "head"), (0.0, 1.0, "head"), (-1000.0, 0.0, None)}


def test_the_volumes_are_the_files_and_the_ct_lies_on_the_pets_grid(rig: Rig, tmp_path: Path) -> None:
    for name in ("ct", "pet", "districts"):
        (tmp_path / f"{name}.nii.gz").write_bytes(rig.client.get(f"{SLICES}/volumes/{name}.nii.gz").content)
    pet, ct = read_nifti(tmp_path / "pet.nii.gz"), read_nifti(tmp_path / "ct.nii.gz")
    assert np.array_equal(pet.array, suv())
    assert ct.geometry.same_grid(PET_GRID)
    assert set(np.unique(read_nifti(tmp_path / "districts.nii.gz").array)) == {0, 1, 2}


def test_the_page_works_as_forms_and_links(rig: Rig) -> None:
    page = Page(rig.client.get(f"{SLICES}?axial=3&show=pet&suv=5&borders=1").text)
    assert f"{SLICES}/axial/3.jpeg?show=pet" in page.pictures[0]
    assert all(rig.client.get(picture).status_code == 200 for picture in page.pictures)
    after = Page(rig.client.get(SLICES + page.links["axial: forward"].partition("#")[0]).text)
    assert "/axial/4.jpeg?show=pet" in after.pictures[0]
    assert "suv=5" in after.pictures[0]
    assert "borders=1" in after.pictures[0]
    assert after.pictures[1:] == page.pictures[1:]
    assert rig.client.get(SLICES, params=page.fields).status_code == 200
    last = Page(rig.client.get(SLICES + page.links["axial: last"].partition("#")[0]).text)
    assert f"/axial/{CT_GRID.shape[0] - 1}.jpeg" in last.pictures[0]


def test_the_page_has_no_script_or_style_in_it_and_says_which_sources_it_needs(rig: Rig) -> None:
    answer = rig.client.get(SLICES)
    assert Page(answer.text).inline == []
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == "'self' data:"
    assert "SYNTHETIC" in answer.text
    assert "not for diagnosis" in answer.text


def test_what_was_cleared_is_said_on_the_page(tmp_path: Path) -> None:
    folder = write_viewed_job(tmp_path)
    rig = Rig(tmp_path)
    shutil.rmtree(folder / "ct")
    answer = rig.client.get(SLICES)
    assert "The CT was cleared by retention" in answer.text
    assert '<option value="ct"' not in answer.text
    assert rig.client.get(f"{SLICES}/volumes/ct.nii.gz").status_code == 404
    shutil.rmtree(folder)
    answer = rig.client.get(SLICES)
    assert answer.status_code == 404
    assert "cleared by retention" in answer.text
    assert rig.client.get(f"{SLICES}/axial/1.jpeg").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/..%2f..%2fetc/slices", f"/jobs/{JOB_ID}/slices/volumes/..%2f..%2freport.nii.gz",
        f"/jobs/{JOB_ID}/slices/volumes/report.nii.gz", f"/jobs/{JOB_ID}/slices/axial/..%2f1.jpeg",
        f"/jobs/{JOB_ID}/slices/axial/1.gif", f"/jobs/{JOB_ID}/slices/oblique/1.jpeg",
        f"/jobs/{JOB_ID}/slices/axial/-1.jpeg", f"/jobs/{JOB_ID}/slices/axial/99999.jpeg",
        f"/jobs/{JOB_ID}/slices/axial/1.jpeg?suv=nan", f"/jobs/{JOB_ID}/slices/axial/1.jpeg?width=0",
        f"/jobs/{JOB_ID}/slices/values?x=inf&y=0&z=0", f"/jobs/{JOB_ID}/slices/axial/1/values?row=9999&column=1",
        f"/jobs/{JOB_ID.upper()}/slices", f"/jobs/{JOB_ID}%0a/slices", "/jobs/%2e%2e/slices/axial/1.jpeg",
        f"/jobs/{'f' * 32}/slices/axial/1.jpeg", f"/jobs/{JOB_ID}%00/slices/volumes/pet.nii.gz",
    ],
)  # fmt: skip
def test_no_address_leads_out_of_a_jobs_images(rig: Rig, path: str) -> None:
    before = len(rig.seen)
    answer = rig.client.get(path)
    assert answer.status_code in (404, 422)
    assert len(rig.seen) == before
    assert b"model_hash" not in answer.content


def test_whoever_looks_is_noted_before_an_image_is_sent(tmp_path: Path) -> None:
    write_viewed_job(tmp_path)
    rig = Rig(tmp_path)
    for path in ("", "/axial/1.jpeg", "/volumes/pet.nii.gz"):
        assert rig.client.get(SLICES + path).status_code == 200
    assert rig.seen == [JOB_ID] * 3


def test_a_model_of_phantoms_says_so_on_the_page(tmp_path: Path) -> None:
    write_viewed_job(tmp_path, phantom_only=True)
    assert re.search("trained on phantoms only", Rig(tmp_path).client.get(SLICES).text)
