"""The viewer over HTTP: the page, each slice as a picture, the values under the pointer, and the volumes for WebGL2.

Everything is below ``/jobs/{job_id}/slices``. An address holds a job's id and numbers, nothing of the patient.
"""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import urlencode

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response, params
from fastapi import Path as PathPart
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from twin_scanner.console.access.roles import Role, needs
from twin_scanner.console.job_id import JobId
from twin_scanner.console.looks import LookLog
from twin_scanner.console.viewer.drawing import WARNING, WINDOWS, Format, Look, Shown, Window, draw, encode
from twin_scanner.console.viewer.images import CLEARED, DISTRICTS_FILE, PET_FILE, JobFiles, JobImages, job_files
from twin_scanner.console.viewer.memory import ImageMemory
from twin_scanner.console.viewer.planes import Plane, Sight, nearest_value
from twin_scanner.errors import Rejected, TwinScannerError
from twin_scanner.imaging.volume import AIR_HU, Triple, Volume, resample, write_nifti

PAGE_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Of this page alone: NiiVue's font is a data: image. It needs no worker, no WebAssembly, no eval and no blob."""
NO_STORE: Final = {"Cache-Control": "no-store"}
"""Patients' images stay on no workstation's disk."""
FREE: Final = "free"

Page: TypeAlias = Callable[[Request, str, Mapping[str, Any]], Response]
"""Renders a template with the console's frame around it."""
Place = Annotated[str, PathPart(pattern="^([0-9]{1,5}|middle)$")]
Millimetres = Annotated[float, Query(ge=-10_000, le=10_000, allow_inf_nan=False)]


class VolumeName(StrEnum):
    """What the browser may draw itself."""

    CT = "ct"
    PET = "pet"
    DISTRICTS = "districts"


class LookQuery(BaseModel):
    """How slices are to look, as a form says it: a window by its preset's name, or free with its centre and width."""

    model_config = ConfigDict(extra="ignore")

    show: Shown = Shown.FUSED
    preset: str = Field("soft tissue", max_length=20)
    centre: float = Field(40.0, ge=-2000, le=4000, allow_inf_nan=False)
    width: float = Field(400.0, ge=1, le=8000, allow_inf_nan=False)
    suv: float = Field(10.0, ge=0.1, le=100, allow_inf_nan=False)
    opacity: int = Field(60, ge=0, le=100)
    borders: bool = False

    @property
    def look(self) -> Look:
        """What to draw."""
        window = WINDOWS.get(self.preset, Window(self.centre, self.width))
        return Look(self.show, window, self.suv, self.opacity / 100, self.borders)

    @property
    def query(self) -> dict[str, str]:
        """The same as the parameters of an address."""
        free = {"centre": f"{self.centre:g}", "width": f"{self.width:g}"} if self.preset not in WINDOWS else {}
        shown = {"show": self.show.value, "preset": self.preset, "suv": f"{self.suv:g}", "opacity": str(self.opacity)}
        return {**shown, **free, **({"borders": "1"} if self.borders else {})}


class PageQuery(LookQuery):
    """How the page looks, and at which slice each plane is; None is the middle."""

    axial: int | None = Field(None, ge=0, le=99_999)
    coronal: int | None = Field(None, ge=0, le=99_999)
    sagittal: int | None = Field(None, ge=0, le=99_999)


class ValuesUnderPointer(BaseModel):
    """Of the voxels in which a place lies: HU of the CT, SUV (g/ml) of the PET, the district; null where none is.

    ``slices`` are those of the three planes that meet there.
    """

    position_lps_mm: tuple[float, float, float]
    hu: float | None
    suv: float | None
    district: str | None
    slices: dict[Plane, int]


def router(jobs_folder: Path, page: Page, looks: LookLog) -> APIRouter:
    """The viewer of a site's jobs, one folder each, for who may see; ``looks`` notes who does."""
    return viewer_router(jobs_folder, ImageMemory(), page, looks, [Depends(needs(Role.VIEWER))])


@dataclass(frozen=True)
class _Viewed:
    """The jobs' images, and who is told that somebody looks at them."""

    jobs_folder: Path
    memory: ImageMemory
    seen: Callable[[Request, str], None]

    def files(self, job_id: str) -> JobFiles:
        """Where a job's images lie."""
        return job_files(self.jobs_folder, job_id)

    def images(self, job_id: str) -> JobImages:
        """A job's images; a 404 that says why where there are none."""
        try:
            return self.memory.images(self.files(job_id))
        except TwinScannerError as error:
            raise HTTPException(404, str(error)) from error


def viewer_router(
    jobs_folder: Path,
    memory: ImageMemory,
    page: Page,
    seen: Callable[[Request, str], None],
    dependencies: Sequence[params.Depends] = (),
) -> APIRouter:
    """The routes; ``seen`` notes in the audit that somebody looks at a job's images, and runs before they are sent."""
    routes = APIRouter(prefix="/jobs/{job_id}/slices", tags=["viewer"], dependencies=list(dependencies))
    viewed = _Viewed(jobs_folder, memory, seen)
    _add_page(routes, viewed, page)
    _add_volumes(routes, viewed)  # before the pictures, whose addresses these would also be
    _add_pictures(routes, viewed)
    _add_values(routes, viewed)
    return routes


def _add_page(routes: APIRouter, viewed: _Viewed, page: Page) -> None:
    @routes.get("", include_in_schema=False)
    def slices(request: Request, job_id: JobId, query: Annotated[PageQuery, Query()]) -> Response:
        try:
            images = viewed.memory.images(viewed.files(job_id))
        except Rejected as error:
            answer = page(request, "slices.html", {"job_id": job_id, "remarks": [str(error)], "views": []})
            answer.status_code = 404
        else:
            viewed.seen(request, job_id)
            answer = page(request, "slices.html", _page_content(job_id, images, query))
        answer.headers["Content-Security-Policy"] = PAGE_POLICY
        answer.headers.update(NO_STORE)
        return answer


def _add_volumes(routes: APIRouter, viewed: _Viewed) -> None:
    @routes.get("/volumes/{name}.nii.gz", response_class=Response)
    def volume(request: Request, job_id: JobId, name: VolumeName) -> Response:
        """A whole volume for the browser to draw, the CT on the PET's grid."""
        files = viewed.files(job_id)
        if files.stamp() is None:
            raise HTTPException(404, CLEARED)
        viewed.seen(request, job_id)
        if name == VolumeName.CT:
            content = _ct_file(viewed.images(job_id))
            return Response(content, media_type="application/gzip", headers=NO_STORE)
        file = files.result / (PET_FILE if name == VolumeName.PET else DISTRICTS_FILE)
        return FileResponse(file, media_type="application/gzip", headers=NO_STORE)


def _add_pictures(routes: APIRouter, viewed: _Viewed) -> None:
    @routes.get("/{plane}/{place}.{form}", response_class=Response)
    def picture(
        request: Request, job_id: JobId, plane: Plane, place: Place, form: Format, query: Annotated[LookQuery, Query()]
    ) -> Response:
        """One slice as JPEG or PNG."""
        images = viewed.images(job_id)
        sight = Sight(plane, images.base)
        index = _slice_index(sight, place)
        viewed.seen(request, job_id)
        content = encode(draw(images, sight, index, query.look), form)
        return Response(content, media_type=f"image/{form.value}", headers=NO_STORE)


def _add_values(routes: APIRouter, viewed: _Viewed) -> None:
    @routes.get("/values")
    def values(job_id: JobId, x: Millimetres, y: Millimetres, z: Millimetres) -> ValuesUnderPointer:
        """The voxels at a place in the patient (DICOM's coordinates, mm)."""
        return _values(viewed.images(job_id), (x, y, z))

    @routes.get("/{plane}/{place}/values")
    def values_in_picture(
        job_id: JobId,
        plane: Plane,
        place: Place,
        row: Annotated[int, Query(ge=0)],
        column: Annotated[int, Query(ge=0)],
    ) -> ValuesUnderPointer:
        """The voxels under a pixel of a picture."""
        images = viewed.images(job_id)
        sight = Sight(plane, images.base)
        rows, columns = sight.size_px
        if row >= rows or column >= columns:
            raise HTTPException(404, "The picture has no such pixel.")
        return _values(images, sight.position_lps_mm(_slice_index(sight, place), row, column))


def _slice_index(sight: Sight, place: str) -> int:
    index = sight.count // 2 if place == "middle" else int(place)
    if index >= sight.count:
        raise HTTPException(404, f"There are {sight.count} {sight.plane} slices.")
    return index


def _values(images: JobImages, position: Triple) -> ValuesUnderPointer:
    hu = None if images.ct is None else nearest_value(images.ct, position)
    suv = nearest_value(images.pet, position)
    label = nearest_value(images.districts, position)
    place = np.linalg.inv(images.base.affine) @ np.array([*position, 1.0])
    slices = {}
    for plane in Plane:
        sight = Sight(plane, images.base)
        slices[plane] = min(max(round(float(place[sight.axes[0]])), 0), sight.count - 1)
    return ValuesUnderPointer(
        position_lps_mm=(round(position[0], 2), round(position[1], 2), round(position[2], 2)),
        hu=None if hu is None else _number(hu),
        suv=None if suv is None else _number(suv),
        district=images.names.get(int(label)) if label is not None else None,
        slices=slices,
    )


def _number(value: np.generic) -> float | None:
    number = float(value.item())
    return number if math.isfinite(number) else None


def _ct_file(images: JobImages) -> bytes:
    """The CT on the PET's grid as NIfTI: of the size that a browser takes."""
    if images.ct is None:
        raise HTTPException(404, "The CT of this job was cleared.")
    ct = Volume(images.ct.array.astype(np.float32), images.ct.geometry)
    on_pet = resample(ct, images.pet.geometry, outside=AIR_HU)
    with tempfile.TemporaryDirectory(prefix="twin-scanner-viewer-") as folder:
        file = Path(folder) / "ct.nii.gz"
        write_nifti(file, np.rint(on_pet.array).astype(np.int16), on_pet.geometry)
        return file.read_bytes()


def _page_content(job_id: str, images: JobImages, query: PageQuery) -> dict[str, Any]:
    sights = [Sight(plane, images.base) for plane in Plane]
    places = {sight.plane.value: _within(getattr(query, sight.plane.value), sight.count) for sight in sights}
    look = query.look
    return {
        "job_id": job_id,
        "remarks": images.remarks,
        "warning": WARNING,
        "phantom_only": images.phantom_only,
        "has_ct": images.ct is not None,
        "look": query,
        "window": look.window,
        "presets": {name: asdict(window) for name, window in WINDOWS.items()},
        "free": FREE,
        "names": images.names,
        "views": [_view(job_id, sight, places, query) for sight in sights],
        "choices": {"shown": list(Shown) if images.ct is not None else [Shown.PET]},
    }


def _view(job_id: str, sight: Sight, places: dict[str, int], query: PageQuery) -> dict[str, Any]:
    """What the page says of one plane: its picture and where its links lead."""
    name, count = sight.plane.value, sight.count
    rows, columns = sight.size_px
    steps: list[tuple[Literal["first", "back 10", "back", "forward", "forward 10", "last"], int]] = [
        ("first", 0),
        ("back 10", places[name] - 10),
        ("back", places[name] - 1),
        ("forward", places[name] + 1),
        ("forward 10", places[name] + 10),
        ("last", count - 1),
    ]
    links = {
        step: "?" + urlencode({**query.query, **places, name: min(max(index, 0), count - 1)}) + f"#{name}"
        for step, index in steps
    }
    return {
        "name": name,
        "index": places[name],
        "count": count,
        "rows": rows,
        "columns": columns,
        "edges": asdict(sight.edges),
        "links": links,
        "source": f"/jobs/{job_id}/slices/{name}/{places[name]}.jpeg?{urlencode(query.query)}",
        "pixel_mm": sight.pixel_mm,
    }


def _within(index: int | None, count: int) -> int:
    return count // 2 if index is None else min(index, count - 1)
