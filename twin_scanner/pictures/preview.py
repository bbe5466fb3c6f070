"""The pictures of one synthesis: preview.png for a first look, and what the reading room's key image shows."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from twin_scanner.dicom.write.measurement_report import DistrictMeasurement
from twin_scanner.dicom.write.pet_series import PHANTOM_ONLY
from twin_scanner.files.durable_file import write_durably, writing
from twin_scanner.imaging.district_labels import DISTRICT_NAMES, label_name
from twin_scanner.imaging.volume import Geometry, LabelArray, Volume
from twin_scanner.pictures import panels
from twin_scanner.pictures.panels import SUV_WINDOW, WARNING
from twin_scanner.pictures.projections import Projections, View, project
from twin_scanner.pictures.table import draw_table, table_inch

MOST_NAMES: Final = 12
"""A legend of more names is no longer read at a glance."""
LARGEST_INCH: Final = (13.5, 8.6)
"""Width and height that the panels may take together."""
LARGEST_INCH_A_MM: Final = 0.022
"""A head alone need not fill a screen."""
SMALLEST_INCH: Final = 7.0
"""Room for the headline, however small the field of view."""
GAP_INCH: Final = 0.1
TITLE_INCH: Final = 0.38
HEADLINE_INCH: Final = 0.42
SECOND_LINE_INCH: Final = 0.2
BAR_INCH: Final = 0.8
"""Right of the panels, for the SUV bar."""
LONGEST_BAR_INCH: Final = 2.6
LEGEND_ROW_INCH: Final = 0.24
LEGEND_KEY_INCH: Final = 0.65
LEGEND_LETTER_INCH: Final = 0.08
PREVIEW_DPI: Final = 110
PNG_LEVEL: Final = 1
"""Of zlib: quicker than its default, for a file that is a fifth larger."""
KEY_IMAGE_DPI: Final = 120
SMALLEST_KEY_INCH: Final = 10.2
"""Room for the warning in large letters."""
BANNER_INCH: Final = 0.62
BANNER_COLOURS: Final = ("#ffd800", "#000000")
"""Ground and letters: the strongest contrast on a grey monitor as well."""
CAPTION_INCH: Final = 0.85
WATERMARK: Final = "SYNTHETIC"
LONGEST_MODEL: Final = 60


@dataclass(frozen=True, eq=False)
class Scene:
    """What is shown, all on one canonical grid (D to the head, H to the back, W to the left).

    CT in HU, PET in SUV (g/ml), ``districts`` with their ``names``; ``missing`` names those not synthesised.
    ``phantom_only``: the model was trained on phantoms only, which the pictures say.
    """

    ct: Volume
    districts: LabelArray
    suv: Volume
    names: Mapping[int, str] = field(default_factory=lambda: DISTRICT_NAMES)
    missing: tuple[str, ...] = ()
    phantom_only: bool = False

    @cached_property
    def projections(self) -> Projections:
        """Coronal and sagittal; raises Defect where the three do not share one canonical grid."""
        return project(self.ct, self.districts, self.suv)

    @property
    def by_size(self) -> list[int]:
        """The labels that are there, the largest volume first."""
        voxels = self.projections.voxels
        return sorted(voxels, key=lambda label: (-voxels[label], label))

    @property
    def missing_labels(self) -> frozenset[int]:
        """The labels that are there and not synthesised."""
        return frozenset(label for label in self.projections.voxels if self.name(label) in self.missing)

    def name(self, label: int) -> str:
        """What a label is called."""
        return label_name(label, self.names)


@dataclass(frozen=True)
class _Layout:
    """Panels in rows and columns and the room they take; ``inch_a_mm`` is one scale for all of them."""

    rows: tuple[tuple[View, ...], ...]
    inch_a_mm: float

    @property
    def column_widths_inch(self) -> list[float]:
        """The width of the widest panel in each column."""
        columns = zip(*self.rows, strict=True)
        return [max(panels.panel_mm(view)[1] for view in column) * self.inch_a_mm for column in columns]

    @property
    def size_inch(self) -> tuple[float, float]:
        """Width and height of all panels with their titles and gaps."""
        widths = self.column_widths_inch
        heights = [panels.panel_mm(row[0])[0] * self.inch_a_mm for row in self.rows]
        return sum(widths) + GAP_INCH * (len(widths) - 1), sum(heights) + (TITLE_INCH + GAP_INCH) * len(heights)

    def axes(self, figure: Figure, left_inch: float, top_inch: float) -> list[tuple[Axes, View]]:
        """Each panel's axis, row by row, in the middle of its column; ``top_inch`` is from above."""
        width, height = figure.get_size_inches()
        found, level = [], height - top_inch
        for row in self.rows:
            row_inch = panels.panel_mm(row[0])[0] * self.inch_a_mm
            level -= TITLE_INCH + row_inch
            left = left_inch
            for view, column_inch in zip(row, self.column_widths_inch, strict=True):
                panel_inch = panels.panel_mm(view)[1] * self.inch_a_mm
                across = left + (column_inch - panel_inch) / 2
                box = across / width, level / height, panel_inch / width, row_inch / height
                found.append((figure.add_axes(box), view))
                left += column_inch + GAP_INCH
            level -= GAP_INCH
        return found


def write_preview(path: Path, scene: Scene) -> None:
    """Write a PNG: of each view the CT, the districts over the CT, and the PET, all with the districts' borders.

    The same scene gives the same bytes. Raises Defect where the scene's parts do not share one canonical grid,
    Transient where the disk fails.
    """
    with panels.drawing_style():
        content = _png(_preview(scene))
    with writing(path.name, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, content)


def key_image(scene: Scene, model: str, measured: Sequence[DistrictMeasurement] = ()) -> npt.NDArray[np.uint8]:
    """The reading room's picture, RGB (rows, columns, 3): CT and synthetic PET in both views under burned-in warnings.

    ``model`` names the model of the PET; ``measured`` becomes a table below the views, since most viewers show no
    structured report beside a segmentation. Nothing of the patient but the anatomy is in it. Raises Defect as
    ``write_preview`` does.
    """
    with panels.drawing_style():
        figure = _key_figure(scene, model, measured)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def load_drawing() -> None:
    """Draw a few voxels to nowhere: else the first pictures of a process wait for fonts, contours and colour maps."""
    grid = Geometry((4, 4, 4), (20.0, 20.0, 20.0), (0.0, 0.0, 0.0))
    labels = np.zeros(grid.shape, np.uint8)
    labels[1:3, 1:3, 1:3] = 1
    voxels = Volume(labels.astype(np.float32), grid)
    scene = Scene(voxels, labels, voxels)
    key_image(scene, "")
    with panels.drawing_style():
        _png(_preview(scene))


def _preview(scene: Scene) -> Figure:
    front, side = scene.projections.coronal, scene.projections.sagittal
    layout = _largest(((front,) * 3 + (side,) * 3,), ((front,) * 3, (side,) * 3), ((front, side),) * 3)
    width, height = layout.size_inch
    width_inch = max(width, SMALLEST_INCH) + BAR_INCH
    entries = _legend_entries(scene)
    columns = _legend_columns(entries, width_inch)
    legend_inch = 0.12 + LEGEND_ROW_INCH * -(-len(entries) // columns)
    headline_inch = HEADLINE_INCH + (SECOND_LINE_INCH if scene.phantom_only else 0.0)
    size = width_inch, headline_inch + height + legend_inch
    figure = Figure(figsize=size, dpi=PREVIEW_DPI, facecolor="white")
    left = (width_inch - BAR_INCH - width) / 2 + GAP_INCH
    kinds = ("CT", "Districts", "PET")
    order = [kind for kind in kinds for _ in range(2)] if len(layout.rows) == 3 else kinds * 2
    for (axis, view), kind in zip(layout.axes(figure, left, headline_inch), order, strict=True):
        _draw_panel(axis, kind, view, scene)
    _draw_suv_bar(figure, layout, left, legend_inch + GAP_INCH, "black")
    figure.legend(handles=entries, loc="lower center", ncols=columns, fontsize=9, frameon=False, borderaxespad=0.2)
    figure.text(0.5, 1 - 0.22 / size[1], WARNING, ha="center", va="center", fontsize=14, weight="bold", color="#b00000")
    if scene.phantom_only:
        seen = PHANTOM_ONLY.upper()
        figure.text(0.5, 1 - 0.45 / size[1], seen, ha="center", va="center", fontsize=10, color="#b00000")
    return figure


def _draw_panel(axis: Axes, kind: str, view: View, scene: Scene) -> None:
    colours = panels.label_colours(view.silhouettes)
    if kind == "CT":
        panels.prepare(axis, view, f"CT\n{view.name}")
        panels.show_ct(axis, view)
        panels.draw_scale_bar(axis, view)
        panels.draw_borders(axis, view, colours, 0.7)
    elif kind == "Districts":
        panels.prepare(axis, view, f"Districts\n{view.name}")
        panels.show_districts(axis, view, colours)
        panels.draw_borders(axis, view, colours, 1.3)
        panels.name_districts(axis, view, _largest_names(scene, view))
    else:
        panels.prepare(axis, view, f"Synthetic FDG-PET\n{view.name}")
        panels.show_pet(axis, view, scene.missing_labels)
        panels.draw_borders(axis, view, colours, 0.7)
    panels.mark_sides(axis, view)


def _key_figure(scene: Scene, model: str, measured: Sequence[DistrictMeasurement] = ()) -> Figure:
    front, side = scene.projections.coronal, scene.projections.sagittal
    across_inch, up_inch = LARGEST_INCH
    below_inch = BANNER_INCH + CAPTION_INCH + table_inch(measured)
    layout = _largest(
        ((front, front, side, side),),
        ((front, front), (side, side)),
        ((front,), (front,), (side,), (side,)),
        room_inch=(across_inch, up_inch - table_inch(measured)),
    )
    width, height = layout.size_inch
    size = max(width + BAR_INCH, SMALLEST_KEY_INCH), height + BANNER_INCH + below_inch
    figure = Figure(figsize=size, dpi=KEY_IMAGE_DPI, facecolor="black")
    left = (size[0] - BAR_INCH - width) / 2 + GAP_INCH
    for place, (axis, view) in enumerate(layout.axes(figure, left, BANNER_INCH + 0.05)):
        if place % 2 == 0:
            panels.prepare(axis, view, f"CT\n{view.name}", "white")
            panels.show_ct(axis, view)
            panels.draw_scale_bar(axis, view)
        else:
            panels.prepare(axis, view, f"SYNTHETIC FDG-PET\n{view.name}", "white")
            panels.show_pet(axis, view, scene.missing_labels)
            panels.stamp(axis, WATERMARK)
        panels.mark_sides(axis, view)
    _draw_suv_bar(figure, layout, left, below_inch, "white")
    draw_table(figure, measured, BANNER_INCH + CAPTION_INCH, "white")
    for bottom in (1 - BANNER_INCH / size[1], 0.0):
        _banner(figure, bottom, BANNER_INCH / size[1])
    middle = (BANNER_INCH + CAPTION_INCH / 2 - 0.06) / size[1]
    figure.text(0.5, middle, _caption(scene, model), ha="center", va="center", fontsize=10, color="white")
    return figure


def _draw_suv_bar(figure: Figure, layout: _Layout, left_inch: float, bottom_inch: float, colour: str) -> None:
    """Right of the panels, beside the last row."""
    width, height = figure.get_size_inches()
    across, up = layout.size_inch
    bar_inch = min(LONGEST_BAR_INCH, up - TITLE_INCH - GAP_INCH)
    box = (left_inch + across + 0.14) / width, bottom_inch / height, 0.14 / width, bar_inch / height
    panels.suv_bar(figure, box, colour)


def _largest(*arrangements: tuple[tuple[View, ...], ...], room_inch: tuple[float, float] = LARGEST_INCH) -> _Layout:
    """The arrangement that shows the patient the largest in the room, the first of equals."""
    layouts = [_Layout(rows, _inch_a_mm(rows, room_inch)) for rows in arrangements]
    return max(layouts, key=lambda layout: layout.inch_a_mm)


def _inch_a_mm(rows: tuple[tuple[View, ...], ...], room_inch: tuple[float, float]) -> float:
    columns = list(zip(*rows, strict=True))
    across_mm = sum(max(panels.panel_mm(view)[1] for view in column) for column in columns)
    up_mm = sum(panels.panel_mm(row[0])[0] for row in rows)
    across = (room_inch[0] - GAP_INCH * (len(columns) - 1)) / across_mm
    up = (room_inch[1] - (TITLE_INCH + GAP_INCH) * len(rows)) / up_mm
    return min(across, up, LARGEST_INCH_A_MM)


def _legend_entries(scene: Scene) -> list[Patch]:
    """The largest districts in the order of their labels, then how many more there are; what is missing comes first."""
    by_size, missing = scene.by_size, scene.missing_labels
    most_wanted = sorted(by_size, key=lambda label: label not in missing)
    shown = sorted(most_wanted[:MOST_NAMES])
    colours = panels.label_colours(shown)
    entries = []
    for label in shown:
        name, hatch = panels.drawable(scene.name(label)), "///" if label in missing else ""
        entry = f"{name}: {panels.NOT_SYNTHESISED}" if hatch else name
        entries.append(Patch(facecolor=colours[label], hatch=hatch, label=entry))
    rest = set(by_size) - set(shown)
    if rest:
        unsynthesised = f", {len(rest & missing)} of them {panels.NOT_SYNTHESISED}" if rest & missing else ""
        entries.append(Patch(facecolor="none", label=f"and {len(rest)} more{unsynthesised}"))
    unseen = [name for name in scene.missing if name not in {scene.name(label) for label in missing}]
    absent = ", ".join(panels.drawable(name) for name in unseen[:MOST_NAMES])
    return [*entries, *([Patch(facecolor="none", label=f"{absent}: {panels.NOT_SYNTHESISED}")] if unseen else [])]


def _legend_columns(entries: list[Patch], width_inch: float) -> int:
    longest = max((len(str(entry.get_label())) for entry in entries), default=1)
    return max(1, min(len(entries), int(width_inch / (LEGEND_KEY_INCH + LEGEND_LETTER_INCH * longest))))


def _largest_names(scene: Scene, view: View) -> dict[int, str]:
    largest = scene.by_size[:MOST_NAMES]
    return {label: panels.drawable(scene.name(label)) for label in largest if label in view.silhouettes}


def _caption(scene: Scene, model: str) -> str:
    """What the picture shows, in words; nothing of the patient."""
    lines = [
        *([f"{PHANTOM_ONLY.upper()}: this picture says nothing of a patient."] if scene.phantom_only else []),
        f"PET computed from the CT by model {panels.drawable(model, LONGEST_MODEL)}; no tracer was given.",
        f"Maximum projections, SUV-bw {SUV_WINDOW[0]:.0f} (white) to {SUV_WINDOW[1]:.0f} g/ml and above (black).",
    ]
    if scene.missing:
        shown = [panels.drawable(name) for name in scene.missing[:4]]
        more = f" and {len(scene.missing) - 4} more" if len(scene.missing) > 4 else ""
        lines.append(f"NOT SYNTHESISED (hatched): {', '.join(shown)}{more}.")
    return "\n".join(lines)


def _banner(figure: Figure, bottom: float, height: float) -> None:
    axis = figure.add_axes((0.0, bottom, 1.0, height), facecolor=BANNER_COLOURS[0])
    axis.set_xticks([])
    axis.set_yticks([])
    size = min(27.0, 2.55 * figure.get_size_inches()[0])
    axis.text(0.5, 0.48, WARNING, ha="center", va="center", fontsize=size, weight="bold", color=BANNER_COLOURS[1])


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    metadata = {"Software": None, "Title": WARNING}
    FigureCanvasAgg(figure).print_png(stream, metadata=metadata, pil_kwargs={"compress_level": PNG_LEVEL})
    return stream.getvalue()
