"""The figures of an evaluation: a study's real PET beside the synthetic one, and what all studies together show."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, NullFormatter
from scipy import ndimage

from training.evaluation.case import BODY, LESION, Case
from training.evaluation.statistics import Comparison, Scores, family
from training.evaluation.tables import LABELS, REGIONS
from twin_scanner.errors import Transient
from twin_scanner.files.durable_file import write_durably
from twin_scanner.imaging.district_labels import DISTRICT_NAMES
from twin_scanner.imaging.volume import FloatArray, LabelArray
from twin_scanner.pictures.panels import SUV_WINDOW, WARNING, drawable, drawing_style

Scalar = TypeVar("Scalar", np.float32, np.uint8)
Counts: TypeAlias = npt.NDArray[np.int64]
Box: TypeAlias = tuple[float, float, float, float]

PRINT_WIDTH_INCH: Final = 7.0
"""The width of every figure: what A4 leaves between its margins, so that POINTS are points on paper."""
DPI: Final = 160
POINTS: Final = 9.0
"""The smallest text."""
SUV_SCALE: Final = f"SUV {SUV_WINDOW[0]:g} to {SUV_WINDOW[1]:g} and above (g/ml)"
DIFFERENCE_WINDOW: Final = (-5.0, 5.0)
DIFFERENCE_COLOURS: Final = "cividis"
"""Its lightness only rises, so that too little and too much differ in grey and by every eye."""
MARGIN_MM: Final = 20.0
"""Shown beyond what a picture is of."""
TALLEST_INCH: Final = 6.8
GAP_INCH: Final = 0.12
LINE_INCH: Final = 0.17
BAR_INCH: Final = 0.62
"""Height of a colour bar with its ticks and label."""
ZOOM_MM: Final = 80.0
"""Edge of an enlarged region."""
TALL: Final = 2.1
"""A district more than this many times as tall as wide is cut across: a coronal slice of it would be a thread."""
LONGEST_NAME: Final = 24
LINE_OF_FOREST_INCH: Final = 0.3
OUTLINE: Final = "#d55e00"
"""The colour of boxes and lesions: Okabe and Ito's vermilion, dark enough to be seen in grey."""
MARKERS: Final = "os^Dv"
SHADES: Final = (0.0, 0.92)
"""Part of the colour map that patients' markers are taken from."""
HIGHEST_SUV: Final = 20.0
BINS: Final = 100
LIMITS_SD: Final = 1.96
"""Limits of agreement: Bland and Altman, Lancet 1986; 327:307."""
PICTURES: Final = {
    "projections": "coronal maximum intensity projections of the real PET, of the synthetic one of {models}, and of "
    "their difference inside the body (synthetic less real)",
    "districts": "a slice of each district through its hottest lesion, or its hottest voxel where none is annotated, "
    "in the real PET and in that of {first}; the boxes are enlarged on the right, lesions outlined",
}
"""The pictures of a study: what its file's name ends in, and what it shows."""


@dataclass(frozen=True)
class Picture:
    """An image, PNG or SVG, with its caption, and in words what it shows for those who do not see it."""

    caption: str
    alt: str
    image: bytes
    media_type: str = "image/png"


def plot_study(cases: Mapping[str, Case], folder: Path) -> None:
    """Write a study's pictures as PNG: the first case is the model's, a second one the baseline's.

    All cases are of one study on one upright grid (D to the head, H to the back, W to the left). The files' names are
    hashes, for a study's name comes from outside. Raises ValueError for no case or more than two, Transient where the
    disk fails.
    """
    if len(cases) not in (1, 2):
        raise ValueError(f"a study is drawn for one model or two, not {len(cases)}")
    study = next(iter(cases.values())).study
    with drawing_style():
        figures = {"projections": _projections(cases), "districts": _districts(*next(iter(cases.items())))}
        contents = {what: png(figure) for what, figure in figures.items() if figure is not None}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for what, content in contents.items():
            write_durably(folder / _file(study, tuple(cases), what), content)
    except OSError as error:
        raise Transient(f"The pictures cannot be written to {folder}: check free space and rights.") from error


def study_pictures(study: str, models: Sequence[str], folder: Path) -> list[Picture]:
    """What ``plot_study`` plotted of a study with the cases of these models, in that order; empty where nothing was.

    Raises Transient where a picture cannot be read.
    """
    found = []
    for what, shows in PICTURES.items():
        file = folder / _file(study, models, what)
        contents = shows.format(models=" and of ".join(models), first=models[0])
        try:
            if file.is_file():
                found.append(Picture(f"Study {study}: {contents}.", f"PET images: {contents}", file.read_bytes()))
        except OSError as error:
            raise Transient(f"{file} cannot be read: check the disk and its rights.") from error
    return found


def png(figure: Figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    stream = io.BytesIO()
    with drawing_style():
        figure.set_dpi(DPI)
        FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    return stream.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as SVG that needs no font, sharp in any size; the same figure gives the same bytes."""
    stream = io.StringIO()
    with drawing_style(), rc_context({"svg.hashsalt": "twin-scanner"}):
        figure.set_dpi(DPI)
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    return stream.getvalue().encode()


def joint_histogram(case: Case) -> dict[str, Counts]:
    """How often a real SUV meets a synthetic one: (BINS real, BINS synthetic) from SUV 0 to 20, each district and body.

    SUV outside is counted in the outermost bins. Every region is there, that of a district out of sight with zeros, so
    that studies can be added.
    """
    inside = case.labels > 0
    real, synthetic = (_bins(image[inside]) for image in (case.real, case.synthetic))
    place, labels = real * BINS + synthetic, case.labels[inside]
    found = {name: _counted(place[labels == label]) for label, name in DISTRICT_NAMES.items()}
    return {**found, BODY: _counted(place)}


def plot_joint_histograms(total: Mapping[str, Counts], model: str, n_studies: int) -> Figure:
    """The sum of ``joint_histogram`` over studies, a panel a region, counts in a logarithmic scale."""
    with drawing_style():
        columns, edge = 3, 1.62
        regions = [region for region in REGIONS if total[region].any()] or [BODY]
        rows = -(-len(regions) // columns)
        height = rows * (edge + 0.75) + BAR_INCH + 0.55
        figure = Figure(figsize=(PRINT_WIDTH_INCH, height), facecolor="white")
        studies = f"{n_studies} {'study' if n_studies == 1 else 'studies'}"
        _headline(figure, f"Real against synthetic SUV, voxel by voxel: {drawable(model, LONGEST_NAME)}, {studies}")
        norm = LogNorm(1, max(2.0, *(float(total[region].max()) for region in regions)))
        for number, region in enumerate(regions):
            row, column = divmod(number, columns)
            top = 0.5 + row * (edge + 0.75)
            axis = figure.add_axes(_box(figure, 0.55 + column * (edge + 0.58), top + 0.15, edge, edge))
            image = _plot_joint(axis, total[region], norm, region)
            axis.set_ylabel("synthetic SUV" if column == 0 else "", fontsize=POINTS)
        bar = figure.add_axes(_box(figure, 1.75, height - BAR_INCH + 0.05, 3.5, 0.14))
        figure.colorbar(image, cax=bar, orientation="horizontal", format=FuncFormatter(_thousands))
        bar.xaxis.set_minor_formatter(NullFormatter())
        _style_bar(bar, "voxels in a bin of SUV 0.2 x 0.2")
        return figure


def bland_altman(table: pd.DataFrame, model: str) -> Figure | None:
    """SUVmax of lesions, synthetic less real against their mean, with bias and limits of agreement; None without any.

    ``table`` holds the measured rows; seeds of a model are averaged lesion by lesion. Lesions of one patient share a
    shade and a marker. Limits are bias ± 1.96 SD over lesions; one lesion has none.
    """
    scores, name = Scores(table), family(model)
    keys = ["study", "patient", "item"]
    bias = scores.averaged(name, LESION, "suv_max_bias")
    lesions = bias.merge(scores.averaged(name, LESION, "suv_max_real"), on=keys, suffixes=("_bias", "_real"))
    lesions = lesions[lesions["item"] >= 1]
    if lesions.empty:
        return None
    with drawing_style():
        figure = Figure(figsize=(PRINT_WIDTH_INCH, 4.2), facecolor="white")
        axis = figure.add_axes(_box(figure, 0.75, 0.45, 4.55, 3.15))
        _headline(figure, _bland_altman_title(name, len(lesions), lesions["patient"].nunique()))
        _scatter(axis, lesions)
        _plot_limits(axis, lesions["value_bias"].to_numpy(np.float64))
        axis.set_xlabel("mean of real and synthetic SUVmax (g/ml)", fontsize=POINTS)
        axis.set_ylabel("synthetic less real SUVmax (g/ml)", fontsize=POINTS)
        _plain(axis)
        return figure


def forest(comparisons: Mapping[str, Sequence[Comparison]], model: str) -> Figure | None:
    """Differences of the mean absolute error, model less each baseline, a line a region; None where none was compared.

    ``comparisons`` is by the baseline's name. A bar is the 95 % interval over patients; a hollow marker has none.
    """
    lines = [
        (baseline, one)
        for region in (*REGIONS, LESION)
        for baseline, found in comparisons.items()
        for one in found
        if one.metric == "mae" and one.region == region
    ]
    if not lines:
        return None
    with drawing_style():
        across, up, below = 3.0, LINE_OF_FOREST_INCH * len(lines), 0.6 + 0.2 * len(comparisons)
        figure = Figure(figsize=(PRINT_WIDTH_INCH, 0.75 + up + below), facecolor="white")
        axis = figure.add_axes(_box(figure, 1.05, 0.7, across, up))
        _headline(figure, f"Mean absolute error of {drawable(model, LONGEST_NAME)} less that of each baseline")
        for place, (baseline, one) in enumerate(lines):
            _plot_line(axis, place, one, _marker(list(comparisons).index(baseline)))
        _forest_axis(axis, lines)
        for number, baseline in enumerate(comparisons):
            level = 1 - (0.75 + up + 0.58 + 0.2 * number) / figure.get_size_inches()[1]
            key, label = [1.05 / PRINT_WIDTH_INCH], f"against {drawable(baseline, 2 * LONGEST_NAME)}"
            figure.add_artist(Line2D(key, [level], marker=_marker(number), color="black", linestyle="none"))
            figure.text(1.2 / PRINT_WIDTH_INCH, level, label, va="center_baseline", fontsize=POINTS)
        return figure


def _file(study: str, models: Sequence[str], what: str) -> str:
    """The models belong to the name: pictures of other models are never shown in their place."""
    digest = hashlib.sha256(json.dumps([study, *models]).encode()).hexdigest()
    return f"{digest[:24]}-{what}.png"


def _box(figure: Figure, left_inch: float, top_inch: float, width_inch: float, height_inch: float) -> Box:
    """In parts of the figure; ``top_inch`` is from above."""
    width, height = figure.get_size_inches()
    return left_inch / width, 1 - (top_inch + height_inch) / height, width_inch / width, height_inch / height


def _headline(figure: Figure, text: str) -> None:
    height = figure.get_size_inches()[1]
    figure.text(0.5, 1 - 0.06 / height, text, ha="center", va="top", fontsize=POINTS + 1.5, weight="bold")


def _around(part: slice, size: int, spacing_mm: float) -> slice:
    """A part of an axis and MARGIN_MM beside it, as far as the image goes."""
    margin = int(np.ceil(MARGIN_MM / spacing_mm))
    return slice(max(0, part.start - margin), min(size, part.stop + margin))


def _projections(cases: Mapping[str, Case]) -> Figure:
    case = next(iter(cases.values()))
    d_mm, _, w_mm = case.geometry.spacing_mm
    occupied = np.flatnonzero(case.labels.any(axis=(0, 1)))
    part = slice(int(occupied[0]), int(occupied[-1]) + 1) if len(occupied) else slice(0, case.geometry.shape[2])
    window = _around(part, case.geometry.shape[2], w_mm)
    real = case.real.max(axis=1)[::-1, window]
    projections = {name: one.synthetic.max(axis=1)[::-1, window] for name, one in cases.items()}
    body = case.labels > 0
    inside = [image.max(axis=1, where=body, initial=0)[::-1, window] for image in (case.real, case.synthetic)]
    panels: list[tuple[str, FloatArray, bool]] = [("real", real, False)]
    panels += [(f"synthetic:\n{drawable(name, LONGEST_NAME)}", image, False) for name, image in projections.items()]
    panels.append((f"{drawable(next(iter(projections)), LONGEST_NAME)}\nless real", inside[1] - inside[0], True))
    across = (PRINT_WIDTH_INCH - GAP_INCH * (len(panels) + 1)) / len(panels)
    up = min(TALLEST_INCH, across * real.shape[0] * d_mm / (real.shape[1] * w_mm))
    figure = Figure(figsize=(PRINT_WIDTH_INCH, up + 2.4 * LINE_INCH + BAR_INCH + 0.3), facecolor="white")
    images = []
    for number, (title, image, signed) in enumerate(panels):
        left = GAP_INCH + number * (across + GAP_INCH)
        axis = figure.add_axes(_box(figure, left, 2.4 * LINE_INCH, across, up))
        images.append(_show(axis, image, (d_mm, w_mm), signed=signed))
        axis.set_title(title, fontsize=POINTS, pad=3)
        _mark(axis, "RLHF")
    level = 2.4 * LINE_INCH + up + 0.1
    wide = (len(panels) - 1) * (across + GAP_INCH) - 2 * GAP_INCH
    _bar(figure, images[0], (2 * GAP_INCH, level, min(wide, 3.2)), SUV_SCALE)
    _bar(figure, images[-1], (PRINT_WIDTH_INCH - across - GAP_INCH + 0.1, level, across - 0.2), "SUV difference")
    _foot(figure)
    return figure


def _show(axis: Axes, image: FloatArray, spacing_mm: tuple[float, float], *, signed: bool = False) -> AxesImage:
    """An image whose first row is above, in millimetres along both axes; PET in inverted grey."""
    rows, columns = image.shape
    low, high = DIFFERENCE_WINDOW if signed else SUV_WINDOW
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(color="#808080", linewidth=0.6)
    return axis.imshow(
        image, cmap=DIFFERENCE_COLOURS if signed else "gray_r", vmin=low, vmax=high, origin="upper", aspect="equal",
        extent=(0.0, columns * spacing_mm[1], rows * spacing_mm[0], 0.0),
    )  # fmt: skip


def _mark(axis: Axes, markers: str) -> None:
    """The patient's side at the left, right, upper and lower edge."""
    places = ((0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center"))
    more = ((0.5, 0.985, "center", "top"), (0.5, 0.015, "center", "bottom"))
    for mark, (x, y, along, up) in zip(markers, (*places, *more), strict=True):
        text = axis.text(x, y, mark, transform=axis.transAxes, ha=along, va=up, fontsize=POINTS, weight="bold")
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _bar(figure: Figure, image: AxesImage, place: tuple[float, float, float], label: str) -> None:
    """A colour bar lying at ``place``: left, top and width in inches."""
    left, top, width = place
    low, high = image.get_clim()
    bar = figure.add_axes(_box(figure, left, top, width, 0.13))
    figure.colorbar(image, cax=bar, orientation="horizontal", ticks=np.arange(low, high + 1, 2 if low == 0 else 5))
    _style_bar(bar, label)


def _style_bar(bar: Axes, label: str) -> None:
    bar.tick_params(labelsize=POINTS, length=2)
    bar.set_xlabel(label, fontsize=POINTS, labelpad=2)


def _foot(figure: Figure) -> None:
    height = figure.get_size_inches()[1]
    figure.text(0.5, 0.05 / height, WARNING, ha="center", va="bottom", fontsize=POINTS, weight="bold", color="#b00000")


@dataclass(frozen=True, eq=False)
class _Cut:
    """A slice of a district, its first row above: SUV and lesions (rows, columns), and where its hottest place lies."""

    caption: str
    markers: str
    real: FloatArray
    synthetic: FloatArray
    lesions: LabelArray | None
    spacing_mm: tuple[float, float]
    place: tuple[int, int]

    @property
    def zoom_mm(self) -> tuple[float, float, float]:
        """Left and upper edge of the enlarged square, and its edge's length; it lies inside the slice."""
        sizes = [n * mm for n, mm in zip(self.real.shape, self.spacing_mm, strict=True)]
        edge = min(ZOOM_MM, 0.7 * min(sizes))
        top, left = (
            min(max(0.0, (n + 0.5) * mm - edge / 2), size - edge)
            for n, mm, size in zip(self.place, self.spacing_mm, sizes, strict=True)
        )
        return left, top, edge


def _districts(model: str, case: Case) -> Figure | None:
    cuts = list(_cuts(case))
    if not cuts:
        return None
    edge = (PRINT_WIDTH_INCH - 5 * GAP_INCH) / 4
    row_inch = edge + 1.6 * LINE_INCH
    head = 2.5 * LINE_INCH
    figure = Figure(figsize=(PRINT_WIDTH_INCH, head + len(cuts) * row_inch + BAR_INCH + 0.3), facecolor="white")
    name = drawable(model, LONGEST_NAME)
    for number, title in enumerate(("real", f"synthetic:\n{name}", "real,\nenlarged", "synthetic,\nenlarged")):
        middle = (GAP_INCH + number * (edge + GAP_INCH) + edge / 2) / PRINT_WIDTH_INCH
        level = 1 - (head - 0.06) / figure.get_size_inches()[1]
        figure.text(middle, level, title, ha="center", va="bottom", fontsize=POINTS)
    for row, cut in enumerate(cuts):
        top = head + row * row_inch
        left, level, *_ = _box(figure, GAP_INCH, top + 0.03, 1.0, 0.0)
        figure.text(left, level, cut.caption, va="top", fontsize=POINTS, weight="bold")
        boxes = [_box(figure, GAP_INCH + n * (edge + GAP_INCH), top + 1.3 * LINE_INCH, edge, edge) for n in range(4)]
        image = _plot_cut([figure.add_axes(box) for box in boxes], cut)
    _bar(figure, image, (1.9, head + len(cuts) * row_inch + 0.05, 3.2), SUV_SCALE)
    _foot(figure)
    return figure


def _plot_cut(axes: Sequence[Axes], cut: _Cut) -> AxesImage:
    """Both slices with the box, and both enlarged."""
    left, top, edge = cut.zoom_mm
    for axis, image in zip(axes, (cut.real, cut.synthetic) * 2, strict=True):
        shown = _show(axis, image, cut.spacing_mm)
        if axis in axes[:2]:
            axis.add_patch(Rectangle((left, top), edge, edge, fill=False, edgecolor=OUTLINE, linewidth=1.4))
            _mark(axis, cut.markers)
            continue
        if cut.lesions is not None and cut.lesions.any():
            rows, columns = ((np.arange(n) + 0.5) * mm for n, mm in zip(cut.lesions.shape, cut.spacing_mm, strict=True))
            axis.contour(columns, rows, cut.lesions, levels=[0.5], colors=[OUTLINE], linewidths=1.2)
        axis.set_xlim(left, left + edge)
        axis.set_ylim(top + edge, top)
        for spine in axis.spines.values():
            spine.set(color=OUTLINE, linewidth=1.4)
    return shown


def _cuts(case: Case) -> Iterator[_Cut]:
    for label, box in enumerate(ndimage.find_objects(case.labels, max_label=max(DISTRICT_NAMES)), start=1):
        if box is not None and label in DISTRICT_NAMES:
            yield _cut(case, label, box)


def _cut(case: Case, label: int, box: tuple[slice, ...]) -> _Cut:
    """Coronal, or axial where the district is tall and thin."""
    inside = case.labels[box] == label
    lesion = None if case.lesions is None else inside & (case.lesions[box] > 0)
    chosen, what = (lesion, "lesion") if lesion is not None and lesion.any() else (inside, "voxel")
    hottest = np.unravel_index(int(np.where(chosen, case.real[box], -np.inf).argmax()), inside.shape)
    d, h, w = (int(index) + part.start for index, part in zip(hottest, box, strict=True))
    d_mm, h_mm, w_mm = case.geometry.spacing_mm
    coronal = inside.shape[0] * d_mm <= TALL * inside.shape[2] * w_mm
    up, across = 0 if coronal else 1, _around(box[2], case.geometry.shape[2], w_mm)
    upright = _around(box[up], case.geometry.shape[up], d_mm if coronal else h_mm)

    def shown(image: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        return image[upright, h, across][::-1] if coronal else image[d, upright, across]

    return _Cut(
        caption=f"{_region(DISTRICT_NAMES[label])}, {'coronal' if coronal else 'axial'}: its hottest {what}, SUV "
        f"{case.real[d, h, w]:.1f} real, {case.synthetic[d, h, w]:.1f} synthetic",
        markers="RLHF" if coronal else "RLAP",
        real=shown(case.real),
        synthetic=shown(case.synthetic),
        lesions=None if case.lesions is None else shown(case.lesions),
        spacing_mm=(d_mm if coronal else h_mm, w_mm),
        place=(upright.stop - 1 - d if coronal else h - upright.start, w - across.start),
    )


def _bins(suv: FloatArray) -> npt.NDArray[np.int32]:
    return np.clip(suv * np.float32(BINS / HIGHEST_SUV), 0, BINS - 1).astype(np.int32)


def _counted(place: npt.NDArray[np.int32]) -> Counts:
    return np.bincount(place, minlength=BINS * BINS).reshape(BINS, BINS).astype(np.int64)


def _plot_joint(axis: Axes, counts: Counts, norm: LogNorm, region: str) -> AxesImage:
    image = axis.imshow(
        np.ma.masked_equal(counts.T, 0), norm=norm, cmap="viridis_r", origin="lower", aspect="equal",
        extent=(0, HIGHEST_SUV, 0, HIGHEST_SUV), interpolation="nearest",
    )  # fmt: skip
    axis.plot([0, HIGHEST_SUV], [0, HIGHEST_SUV], color="black", linewidth=0.8, linestyle=(0, (4, 3)))
    axis.set_title(f"{_region(region)}\nn {_thousands(float(counts.sum()))}", fontsize=POINTS, pad=3)
    axis.set_xlabel("real SUV", fontsize=POINTS, labelpad=1)
    axis.set_xticks(np.arange(0, HIGHEST_SUV + 1, 5))
    axis.set_yticks(np.arange(0, HIGHEST_SUV + 1, 5))
    axis.tick_params(labelsize=POINTS, length=2)
    return image


def _thousands(value: float, _: int | None = None) -> str:
    return f"{value:,.0f}".replace(",", " ")


def _region(name: str) -> str:
    return LABELS.get(name, name.capitalize())


def _bland_altman_title(model: str, lesions: int, patients: int) -> str:
    counted = f"{lesions} {'lesion' if lesions == 1 else 'lesions'}"
    of = f"{patients} {'patient' if patients == 1 else 'patients'}"
    return f"Lesion SUVmax, {drawable(model, LONGEST_NAME)}: n = {counted} of {of}"


def _scatter(axis: Axes, lesions: pd.DataFrame) -> None:
    """A shade and a marker per patient, the next patient's both different."""
    patients = sorted(lesions["patient"].unique())
    shades = colormaps["cividis"](np.linspace(*SHADES, max(2, len(patients))))
    for number, patient in enumerate(patients):
        own = lesions[lesions["patient"] == patient]
        axis.scatter(
            own["value_real"] + own["value_bias"] / 2, own["value_bias"], s=34, marker=_marker(number),
            color=[shades[number]], edgecolors="black", linewidths=0.7, zorder=3,
        )  # fmt: skip


def _plot_limits(axis: Axes, bias: npt.NDArray[np.float64]) -> None:
    mean = float(bias.mean())
    spread = LIMITS_SD * float(bias.std(ddof=1)) if len(bias) > 1 else None
    lines = [(mean, "bias", "-")]
    if spread:
        lines += [(mean + spread, "bias + 1.96 SD", "--"), (mean - spread, "bias - 1.96 SD", "--")]
    axis.axhline(0.0, color="#808080", linewidth=0.8)
    for value, label, style in lines:
        axis.axhline(value, color="black", linewidth=1.1, linestyle=style)
        _beside(axis, value, f"{label} {value:+.2f}")
    axis.margins(y=0.12)


def _plain(axis: Axes) -> None:
    axis.tick_params(labelsize=POINTS)
    axis.spines[["top", "right"]].set_visible(False)


def _marker(number: int) -> str:
    return MARKERS[number % len(MARKERS)]


def _plot_line(axis: Axes, place: int, one: Comparison, marker: str) -> None:
    bounds, fill = "no interval", "white"
    if one.low is not None and one.high is not None:
        axis.plot([one.low, one.high], [place, place], color="black", linewidth=1.4)
        bounds, fill = f"[{one.low:+.4f}, {one.high:+.4f}]", "black"
    axis.plot(one.difference, place, marker, color="black", markersize=6, markerfacecolor=fill)
    _beside(axis, place, f"{one.difference:+.4f} {bounds}, {one.studies} / {one.patients}")


def _beside(axis: Axes, level: float, text: str) -> None:
    """Text right of an axis, in the height of a value, with minus signs as they are printed."""
    axis.annotate(
        text.replace("-", "−"), (1.0, level), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="center", fontsize=POINTS,
    )  # fmt: skip


def _forest_axis(axis: Axes, lines: Sequence[tuple[str, Comparison]]) -> None:
    axis.axvline(0.0, color="#808080", linewidth=0.9, zorder=0)
    axis.set_ylim(len(lines) - 0.5, -0.5)
    axis.set_yticks(range(len(lines)), [_region(one.region) for _, one in lines])
    axis.set_xlabel("← model lower    MAE (1 is SUV 20)    model higher →", fontsize=POINTS)
    _plain(axis)
    axis.locator_params(axis="x", nbins=5)
    _beside(axis, -1.0, "difference [95 %], studies / patients")
