"""An explanation on disk: the attribution as NIfTI, and a picture of it over the CT in three planes."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import ScalarFormatter
from scipy import ndimage

from twin_scanner.files.durable_file import write_durably, writing
from twin_scanner.imaging.volume import FloatArray, Geometry, Volume, write_nifti
from twin_scanner.pictures.panels import WARNING, drawing_style
from twin_scanner.synthesis.explain import SOFT_TISSUE_HU, Explanation

CT_WINDOW_HU: Final = (-400.0, 600.0)
"""Lung vessels, soft tissue and bone are distinct in one picture."""
MARGIN_MM: Final = 25.0
SMALLEST_VIEW_MM: Final = 120.0
STRONGEST: Final = 0.999
"""This quantile of the attribution's magnitude has full colour: single voxels beyond it would pale the rest."""
SMOOTHING_VOXELS: Final = 1.0
"""Only in the picture: gradients alternate from voxel to voxel, and the eye wants their local sum."""
PLANES_INCH: Final = (13.0, 8.0)
"""Width and height that the three planes may take."""
SMALLEST_INCH: Final = 10.0
"""Room for the headline, however narrow the planes."""
BAR_INCH: Final = 1.6
HEADLINE_INCH: Final = 1.3
GAP_INCH: Final = 0.12
OPACITY: Final = 0.85
TINY: Final = 1e-12
LONGEST_NAME: Final = 48


@dataclass(frozen=True)
class _Plane:
    """A plane's name and what its left, right, upper and lower side are, on canonical axes: PS3.3 C.7.6.1.1.1."""

    name: str
    sides: tuple[str, str, str, str]


PLANES: Final = (
    _Plane("Axial", ("R", "L", "A", "P")),
    _Plane("Coronal", ("R", "L", "H", "F")),
    _Plane("Sagittal", ("A", "P", "H", "F")),
)
"""In the order of the array axes that they are perpendicular to: D, H, W."""


def write_explanation(folder: Path, explanation: Explanation, ct: Volume) -> tuple[Path, Path]:
    """Write ``explanation.nii.gz`` (the attribution) and ``explanation.png``; raises Transient where the disk fails."""
    nifti, picture = folder / "explanation.nii.gz", folder / "explanation.png"
    write_nifti(nifti, explanation.attribution.array, explanation.attribution.geometry)
    with writing(picture.name, folder):
        write_durably(picture, _picture(explanation, ct))
    return nifti, picture


def _picture(explanation: Explanation, ct: Volume) -> bytes:
    with drawing_style():
        figure = _figure(explanation, ct)
        stream = io.BytesIO()
        FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None, "Title": WARNING})
    return stream.getvalue()


def _figure(explanation: Explanation, ct: Volume) -> Figure:
    """Axial, coronal and sagittal planes through the target, side by side on one scale."""
    shown = explanation.attribution.array
    if explanation.method == "integrated-gradients":
        shown = ndimage.gaussian_filter(shown, SMOOTHING_VOXELS)
    magnitude = np.abs(shown[shown != 0])
    strongest = float(np.quantile(magnitude, STRONGEST)) if magnitude.size else 1.0
    box = _box(explanation)
    sizes = _plane_sizes_mm(box, ct.geometry)
    inch_a_mm = min(PLANES_INCH[0] / sum(width for _, width in sizes), PLANES_INCH[1] / max(tall for tall, _ in sizes))
    tallest = max(tall for tall, _ in sizes) * inch_a_mm
    whole = max(sum(width for _, width in sizes) * inch_a_mm + BAR_INCH, SMALLEST_INCH), tallest + HEADLINE_INCH
    figure = Figure(figsize=whole, dpi=110, facecolor="white")
    left = (whole[0] - sum(width for _, width in sizes) * inch_a_mm - BAR_INCH) / 2 + GAP_INCH
    for sight, (tall, width) in enumerate(sizes):
        level = 0.3 + (tallest - tall * inch_a_mm) / 2
        place = left / whole[0], level / whole[1], width * inch_a_mm / whole[0], tall * inch_a_mm / whole[1]
        _draw_plane(figure.add_axes(place), sight, explanation, ct, (shown, strongest), box)
        left += width * inch_a_mm + GAP_INCH
    _draw_bar(
        figure, (left / whole[0], 0.3 / whole[1], 0.15 / whole[0], min(tallest, 4.0) / whole[1]), explanation, strongest
    )
    figure.text(0.5, 1 - 0.25 / whole[1], WARNING, ha="center", va="center", fontsize=13, color="#b00000")
    figure.text(0.5, 1 - 0.62 / whole[1], _caption(explanation), ha="center", va="center", fontsize=9)
    return figure


def _draw_bar(
    figure: Figure, place: tuple[float, float, float, float], explanation: Explanation, strongest: float
) -> None:
    axis = figure.add_axes(place)
    bar = figure.colorbar(ScalarMappable(Normalize(-strongest, strongest), "RdBu_r"), cax=axis)
    bar.formatter = ScalarFormatter(useMathText=False)
    bar.formatter.set_powerlimits((-2, 2))
    bar.set_label(f"{explanation.unit}\nred raised the uptake, blue lowered it", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.yaxis.get_offset_text().set_fontsize(7)


def _draw_plane(
    axis: Axes,
    sight: int,
    explanation: Explanation,
    ct: Volume,
    shown: tuple[FloatArray, float],
    box: tuple[slice, slice, slice],
) -> None:
    """The plane through the target's centre across one axis: CT, attribution over it, the target's outline, sides."""
    values, strongest = shown
    centre = explanation.centre[sight]
    hu, evidence, target = (_plane(image, sight, centre, box) for image in (ct.array, values, explanation.target.mask))
    rows, columns = _plane_axes(sight)
    spacing_mm = ct.geometry.spacing_mm
    tall, width = hu.shape[0] * spacing_mm[rows], hu.shape[1] * spacing_mm[columns]
    upright = sight != 0
    place: dict[str, Any] = {
        "extent": (0.0, width, 0.0, tall) if upright else (0.0, width, tall, 0.0),
        "origin": "lower" if upright else "upper",
        "interpolation": "nearest",
    }
    axis.imshow(hu, cmap="gray", vmin=CT_WINDOW_HU[0], vmax=CT_WINDOW_HU[1], **place)
    strength = np.clip(np.abs(evidence) / max(strongest, TINY), 0.0, 1.0)
    colours = matplotlib.colormaps["RdBu_r"](0.5 + 0.5 * np.sign(evidence) * strength)
    colours[..., 3] = OPACITY * np.sqrt(strength)
    axis.imshow(colours, **place)
    if target.any():
        across = (np.arange(hu.shape[1]) + 0.5) * spacing_mm[columns]
        along = (np.arange(hu.shape[0]) + 0.5) * spacing_mm[rows]
        if min(target.shape) > 1:
            axis.contour(across, along, target, levels=[0.5], colors="#ffd800", linewidths=1.2)
    axis.set_axis_off()
    axis.set_title(PLANES[sight].name, fontsize=9, pad=3)
    _mark_sides(axis, PLANES[sight])


def _mark_sides(axis: Axes, plane: _Plane) -> None:
    places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.98), (0.5, 0.02))
    for letter, (across, up) in zip(plane.sides, places, strict=True):
        halo: list[AbstractPathEffect] = [withStroke(linewidth=2, foreground="black")]
        aligned = "center" if across == 0.5 else ("left" if across < 0.5 else "right")
        level = "center" if up == 0.5 else ("top" if up > 0.5 else "bottom")
        text = axis.text(across, up, letter, transform=axis.transAxes, color="white", fontsize=10, ha=aligned, va=level)
        text.set_path_effects(halo)


def _plane(image: npt.NDArray[Any], sight: int, centre: int, box: tuple[slice, slice, slice]) -> npt.NDArray[Any]:
    return np.take(image, centre, axis=sight)[tuple(box[axis] for axis in _plane_axes(sight))]


def _plane_axes(sight: int) -> tuple[int, int]:
    """Array axes of a plane's rows and columns."""
    rows, columns = (axis for axis in range(3) if axis != sight)
    return rows, columns


def _plane_sizes_mm(box: tuple[slice, slice, slice], geometry: Geometry) -> list[tuple[float, float]]:
    lengths = [(part.stop - part.start) * spacing for part, spacing in zip(box, geometry.spacing_mm, strict=True)]
    return [(lengths[rows], lengths[columns]) for rows, columns in map(_plane_axes, range(3))]


def _box(explanation: Explanation) -> tuple[slice, slice, slice]:
    """All of the attribution and the target, with a margin, and no less than SMALLEST_VIEW_MM."""
    reached = (explanation.attribution.array != 0) | explanation.target.mask
    parts = []
    for axis, (centre, spacing) in enumerate(
        zip(explanation.centre, explanation.attribution.geometry.spacing_mm, strict=True)
    ):
        found = np.flatnonzero(reached.any(axis=tuple(other for other in range(3) if other != axis)))
        margin, half = int(MARGIN_MM / spacing), int(SMALLEST_VIEW_MM / 2 / spacing)
        first, last = min(int(found[0]) - margin, centre - half), max(int(found[-1]) + margin, centre + half)
        parts.append(slice(max(0, first), min(reached.shape[axis], last + 1)))
    return parts[0], parts[1], parts[2]


def _caption(explanation: Explanation) -> str:
    """What the picture shows, in words."""
    how = (
        "integrated gradients, smoothed by one voxel for the eye"
        if explanation.block is None
        else f"occlusion by blocks of {explanation.block} voxels an edge"
    )
    against = {"air": "air", "soft-tissue": f"soft tissue of {SOFT_TISSUE_HU:g} HU"}[explanation.baseline]
    return (
        f"CT evidence for {_shortened(explanation.target.name)} (yellow): synthetic mean SUV {explanation.suv:.2f}, "
        f"{explanation.suv_baseline:.2f} if the CT were {against};\n{how}."
    )


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
