"""Pictures for a first look: CT, districts with their borders and synthetic PET, coronal and sagittal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from twin_scanner.partition import DISTRICT_COLOURS, DISTRICT_NAMES
from twin_scanner.volume import FloatArray, LabelArray, Triple, Volume

SUV_WINDOW: Final = (0.0, 7.0)
"""The customary inverse-grey window for FDG maximum projections, g/ml."""
CT_WINDOW_HU: Final = (-200.0, 800.0)
AIR_HU: Final = -1024.0
WARNING: Final = "SYNTHETIC, RESEARCH, NOT FOR DIAGNOSIS"
MOST_NAMES: Final = 12
"""A legend of more names is no longer read at a glance."""
SCALE_BAR_MM: Final = 100.0
PREVIEW_INCH: Final = (13.5, 8.0)
"""Widest and highest that the row of panels may be."""
KEY_IMAGE_PIXELS: Final = (1024, 1280)
"""Rows and columns: readable in full on any reading-room monitor."""

View: TypeAlias = Literal["coronal", "sagittal"]
AXIS: Final[Mapping[View, int]] = {"coronal": 1, "sagittal": 2}
"""The array axis (D, H, W) along which a view projects."""
MARKS: Final[Mapping[View, tuple[str, str]]] = {"coronal": ("R", "L"), "sagittal": ("A", "P")}
"""What lies on the left and on the right of the picture; the head is at the top."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What is shown, all on one canonical grid (D to the head, H to the back, W to the left).

    CT in HU, PET in SUV (g/ml), ``districts`` with their ``names``; ``missing`` were not synthesised.
    """

    ct: Volume
    districts: LabelArray
    suv: Volume
    names: Mapping[int, str] = field(default_factory=lambda: DISTRICT_NAMES)
    missing: tuple[str, ...] = ()

    @property
    def spacing_mm(self) -> Triple:
        """Along D, H, W."""
        return self.ct.geometry.spacing_mm

    def extent(self, view: View) -> tuple[float, float, float, float]:
        """The picture's edges in mm, as matplotlib wants them."""
        depth, height, width = self.ct.geometry.extent_mm
        return 0.0, (width if view == "coronal" else height), 0.0, depth

    def present(self) -> list[int]:
        """Labels that are there, the largest first."""
        counts = np.bincount(self.districts.ravel(), minlength=256)
        return [int(label) for label in np.argsort(-counts, kind="stable") if label and counts[label]]


def write_preview(path: Path, scene: Scene) -> None:
    """Write a PNG: for each view the CT, the CT under the districts, and the PET with the districts' borders."""
    widths = [scene.extent(view)[1] for view in AXIS for _ in range(3)]
    depth = scene.extent("coronal")[3]
    inch_a_mm = min(PREVIEW_INCH[0] / sum(widths), PREVIEW_INCH[1] / depth)
    size = (max(sum(widths) * inch_a_mm, 9.0) + 0.9, max(depth * inch_a_mm, 1.8) + 1.5)
    figure = Figure(figsize=size, dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 6, gridspec_kw={"width_ratios": widths, "wspace": 0.03})
    figure.subplots_adjust(left=0.01, right=0.94, top=1 - 0.85 / size[1], bottom=0.6 / size[1])
    for view, (ct_axis, district_axis, pet_axis) in zip(AXIS, (axes[:3], axes[3:]), strict=True):
        labels = _prevailing(scene.districts, AXIS[view])
        _show_ct(ct_axis, scene, view, f"CT, {view}")
        _show_ct(district_axis, scene, view, "Districts")
        _fill(district_axis, labels, scene.extent(view))
        _show_pet(pet_axis, scene, view, labels, "Synthetic FDG-PET")
        for axis in (district_axis, pet_axis):
            _draw_borders(axis, labels, scene.extent(view))
        for axis in (ct_axis, district_axis, pet_axis):
            _finish(axis, view)
    _scale_bar(axes[0], scene)
    _suv_bar(figure, size)
    _legend(figure, scene)
    figure.text(0.5, 1 - 0.28 / size[1], WARNING, ha="center", va="center", fontsize=13, weight="bold", color="#b00000")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def key_image(scene: Scene, model: str) -> npt.NDArray[np.uint8]:
    """The reading room's picture, RGB (rows, columns, 3): CT and synthetic PET in both views under a burned-in warning.

    ``model`` names what made the PET. Nothing of the patient but the anatomy is in it.
    """
    dpi = 100
    rows, columns = KEY_IMAGE_PIXELS
    figure = Figure(figsize=(columns / dpi, rows / dpi), dpi=dpi, facecolor="black")
    canvas = FigureCanvasAgg(figure)
    widths = [scene.extent(view)[1] for view in ("coronal", "coronal", "sagittal", "sagittal")]
    axes = figure.subplots(1, 4, gridspec_kw={"width_ratios": widths, "wspace": 0.04})
    figure.subplots_adjust(left=0.01, right=0.99, top=0.86, bottom=0.1)
    for view, (ct_axis, pet_axis) in zip(AXIS, (axes[:2], axes[2:]), strict=True):
        labels = _prevailing(scene.districts, AXIS[view])
        _show_ct(ct_axis, scene, view, f"CT, {view}", colour="white")
        _show_pet(pet_axis, scene, view, labels, f"SYNTHETIC PET, {view}", colour="white")
        for axis in (ct_axis, pet_axis):
            _finish(axis, view)
    for height, size in ((0.95, 26), (0.05, 15)):
        figure.text(0.5, height, WARNING, ha="center", va="center", fontsize=size, weight="bold", color="#ffd800")
    told = f"Maximum projections. PET computed from CT, no tracer was given. SUV {_window()}. Model {model}."
    absent = f" Not synthesised: {', '.join(scene.missing)}." if scene.missing else ""
    figure.text(0.5, 0.905, told + absent, ha="center", va="center", fontsize=10.5, color="white", wrap=True)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _window() -> str:
    return f"{SUV_WINDOW[0]:.0f} to {SUV_WINDOW[1]:.0f} g/ml"


def _show_ct(axis: Axes, scene: Scene, view: View, title: str, colour: str = "black") -> None:
    inside = np.where(scene.districts > 0, scene.ct.array, np.float32(AIR_HU)).max(axis=AXIS[view])
    low, high = CT_WINDOW_HU
    axis.imshow(inside, cmap="gray", vmin=low, vmax=high, origin="lower", extent=scene.extent(view))
    axis.set_title(title, fontsize=10, color=colour)


def _show_pet(axis: Axes, scene: Scene, view: View, labels: LabelArray, title: str, colour: str = "black") -> None:
    """The maximum projection; districts that were not synthesised are hatched, for SUV 0 there is no measurement."""
    projection: FloatArray = scene.suv.array.max(axis=AXIS[view])
    low, high = SUV_WINDOW
    axis.imshow(projection, cmap="gray_r", vmin=low, vmax=high, origin="lower", extent=scene.extent(view))
    unmade = np.isin(labels, [label for label, name in scene.names.items() if name in scene.missing])
    if unmade.any():
        mask = np.where(unmade, 1.0, np.nan)
        grey = ListedColormap(["#b8b8b8"])
        axis.imshow(mask, cmap=grey, origin="lower", extent=scene.extent(view), interpolation="nearest")
        axis.contourf(*_grid(labels, scene.extent(view)), unmade, levels=[0.5, 1.5], colors="none", hatches=["////"])
    axis.set_title(title, fontsize=10, color=colour)


def _grid(labels: LabelArray, extent: Sequence[float]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Centres of the projection's pixels in mm: across and up."""
    rows, columns = labels.shape
    across = (np.arange(columns) + 0.5) * extent[1] / columns
    return across, (np.arange(rows) + 0.5) * extent[3] / rows


def _fill(axis: Axes, labels: LabelArray, extent: Sequence[float]) -> None:
    rgba = np.zeros((*labels.shape, 4), np.float32)
    for label in np.flatnonzero(np.bincount(labels.ravel())):
        if label:
            red, green, blue = bytes.fromhex(_colour(int(label))[1:])
            rgba[labels == label] = (red / 255, green / 255, blue / 255, 0.55)
    axis.imshow(rgba, origin="lower", extent=(extent[0], extent[1], extent[2], extent[3]), interpolation="nearest")


def _draw_borders(axis: Axes, labels: LabelArray, extent: Sequence[float]) -> None:
    """Each district's outline in its colour on a dark line, so that it stands out on black and on white."""
    if min(labels.shape) < 2:
        return
    across, up = _grid(labels, extent)
    for label in np.flatnonzero(np.bincount(labels.ravel())):
        if label:
            lines = axis.contour(across, up, labels == label, levels=[0.5], colors=_colour(int(label)), linewidths=1.3)
            lines.set(path_effects=[withStroke(linewidth=2.4, foreground="#202020")])


def _colour(label: int) -> str:
    """A label's colour; beyond the districts the palette begins anew."""
    return DISTRICT_COLOURS[1 + (label - 1) % (len(DISTRICT_COLOURS) - 1)]


def _finish(axis: Axes, view: View) -> None:
    """No axes, true proportions, and the sides of the patient."""
    axis.set_axis_off()
    axis.set_aspect("equal")
    for place, mark in zip((0.02, 0.98), MARKS[view], strict=True):
        text = axis.text(
            place, 0.5, mark, transform=axis.transAxes, ha="center", va="center", fontsize=9, color="white"
        )
        text.set_path_effects([withStroke(linewidth=2, foreground="black")])


def _scale_bar(axis: Axes, scene: Scene) -> None:
    width = scene.extent("coronal")[1]
    left = 0.5 * (width - SCALE_BAR_MM)
    height = 0.02 * scene.extent("coronal")[3]
    axis.plot([left, left + SCALE_BAR_MM], [height, height], color="white", linewidth=2.5, solid_capstyle="butt")
    text = axis.text(left + SCALE_BAR_MM / 2, 2 * height, "10 cm", ha="center", va="bottom", fontsize=8, color="white")
    text.set_path_effects([withStroke(linewidth=2, foreground="black")])


def _suv_bar(figure: Figure, size: tuple[float, float]) -> None:
    place = figure.add_axes((0.955, 0.6 / size[1], 0.008, 1 - 1.45 / size[1]))
    bar = figure.colorbar(ScalarMappable(Normalize(*SUV_WINDOW), "gray_r"), cax=place)
    bar.set_label("SUV (g/ml)", fontsize=8, labelpad=2)
    bar.ax.tick_params(labelsize=7)


def _legend(figure: Figure, scene: Scene) -> None:
    present = scene.present()
    shown = sorted(present[:MOST_NAMES])
    entries = [Patch(color=_colour(label), label=_told(label, scene)) for label in shown]
    if len(present) > len(shown):
        entries.append(Patch(color="none", label=f"and {len(present) - len(shown)} more"))
    figure.legend(handles=entries, loc="lower center", ncols=7, fontsize=9, frameon=False)


def _told(label: int, scene: Scene) -> str:
    name = scene.names.get(label, f"label {label}")
    return f"{name} (not synthesised)" if name in scene.missing else name


def _prevailing(districts: LabelArray, axis: int) -> LabelArray:
    """Projection of a label map (D, H, W): the district that most of each line of sight goes through."""
    shape = tuple(np.delete(districts.shape, axis))
    best, most = np.zeros(shape, np.uint8), np.zeros(shape, np.int32)
    for label in np.flatnonzero(np.bincount(districts.ravel())):
        if label:
            count = (districts == label).sum(axis=axis, dtype=np.int32)
            best[count > most] = label
            most = np.maximum(most, count)
    return best
