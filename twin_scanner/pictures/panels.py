"""One panel of a picture: a projection of CT, districts or PET with its borders, sides, names and scale; no files."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from typing import Final

import matplotlib
import matplotlib.style
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from scipy import ndimage

from twin_scanner.errors import Defect
from twin_scanner.imaging.district_labels import DISTRICT_COLOURS
from twin_scanner.imaging.volume import FloatArray
from twin_scanner.pictures.projections import BoolArray, View

WARNING: Final = "SYNTHETIC, RESEARCH, NOT FOR DIAGNOSIS"
"""On every picture of a synthetic PET."""
SUV_WINDOW: Final = (0.0, 7.0)
"""The customary inverse-grey window for FDG maximum projections, g/ml."""
CT_WINDOW_HU: Final = (-200.0, 800.0)
"""The window reaches from fat to cortical bone: a maximum projection shows little else."""
SURROUNDINGS: Final = 0.4
"""Brightness of what lies outside the districts: the table recedes, a limb that they miss is still seen."""
FILL: Final = 0.6
"""Share of a district's colour over the CT."""
MOST_OUTLINES: Final = 8
"""With more labels, only the borders between the prevailing ones are shown: outlines would cover everything."""
MORE_COLOURS: Final = ("#f0e442", "#d55e00", "#0072b2")
"""What the Okabe-Ito palette has beyond the districts' four."""
SHADES: Final = (1.0, 0.62)
"""Brightness of the palette's later rounds; with more labels than all of them, colours come again."""
NOT_SYNTHESISED: Final = "not synthesised"
UNSYNTHESISED_COLOUR: Final = "#a6a6c4"
"""Bluish, so that it is none of the SUV scale's greys."""
SCALE_BARS_MM: Final = (100.0, 50.0, 20.0, 10.0, 5.0)
SMALLEST_PANEL_MM: Final = 70.0
"""Room for the sides' letters and the scale bar beside a slab of a few slices."""
NAME_ROOM: Final = 2.6
"""A name is written where it is no wider than this many radii of the widest circle in its region."""
LONGEST_NAME: Final = 24
STAMP_POINTS_AN_INCH: Final = 11.0
"""Nine letters, aslant, then fill a panel's width."""
LARGEST_STAMP_POINTS: Final = 30.0
STAMP_EVERY_INCH: Final = 3.5
STAMP_EVERY: Final = 0.6
"""Height between two stamps, in widths between two."""
STAMP_ALPHA: Final = 0.3


@contextmanager
def drawing_style() -> Iterator[None]:
    """matplotlib's own defaults and fonts, whatever the machine's matplotlibrc says: the same bytes everywhere."""
    with matplotlib.rc_context(), matplotlib.style.context("default"):
        matplotlib.rcParams["font.family"] = "DejaVu Sans"
        matplotlib.rcParams["text.parse_math"] = False
        matplotlib.rcParams["hatch.linewidth"] = 1.2
        yield


def label_colours(labels: Iterable[int]) -> dict[int, str]:
    """A colour per label: districts 1 to 4 keep theirs, others follow the palette by their number."""
    palette = [
        "#" + "".join(f"{round(255 * shade * part):02x}" for part in to_rgb(colour))
        for shade in SHADES
        for colour in (*DISTRICT_COLOURS[1:], *MORE_COLOURS)
    ]
    return {label: palette[(label - 1) % len(palette)] for label in labels}


def drawable(name: str, longest: int = LONGEST_NAME) -> str:
    """A name as the picture's font can show it: unknown characters as '?', cut where it is long."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    shown = "".join(letter if font.get_char_index(ord(letter)) else "?" for letter in " ".join(name.split()))
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def panel_mm(view: View) -> tuple[float, float]:
    """Height and width of a view's panel: the picture's, with room beside it where the picture is a mere strip."""
    height_mm, width_mm = view.size_mm
    return max(height_mm, SMALLEST_PANEL_MM), max(width_mm, SMALLEST_PANEL_MM)


def prepare(axis: Axes, view: View, title: str, colour: str = "black") -> None:
    """Millimetres along both axes in true proportion, the picture in the middle of its panel, no frame, a title."""
    (height_mm, width_mm), (panel_height_mm, panel_width_mm) = view.size_mm, panel_mm(view)
    axis.set_xlim((width_mm - panel_width_mm) / 2, (width_mm + panel_width_mm) / 2)
    axis.set_ylim((height_mm - panel_height_mm) / 2, (height_mm + panel_height_mm) / 2)
    axis.set_aspect("equal")
    axis.set_axis_off()
    # Else ticks that nobody sees are laid out to find room for the title: a third of a picture's time.
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, fontsize=9, color=colour, pad=3)


def show_ct(axis: Axes, view: View) -> None:
    """The CT's maximum projection, bright inside the districts and dim outside."""
    _show(axis, view, _grey(ct_brightness(view)))


def show_districts(axis: Axes, view: View, colours: Mapping[int, str]) -> None:
    """The district that prevails along each line of sight, as colour over the CT."""
    brightness = ct_brightness(view)
    picture = _grey(brightness)
    for label, colour in colours.items():
        where = view.prevailing == label
        tinted = np.asarray(to_rgb(colour)) * (0.55 + 0.45 * brightness[where])[:, None]
        picture[where] = FILL * tinted + (1 - FILL) * picture[where]
    _show(axis, view, picture)


def show_pet(axis: Axes, view: View, missing: Iterable[int]) -> None:
    """The PET's maximum projection in inverse grey; what was not synthesised is tinted and hatched, never SUV 0.

    Tinted is where a line of sight meets missing districts alone; hatched is where it meets one at all.
    """
    low, high = SUV_WINDOW
    picture = _grey(1 - np.clip((view.suv - low) / (high - low), 0, 1))
    unsynthesised, synthesised = np.zeros_like(view.prevailing, bool), np.zeros_like(view.prevailing, bool)
    unknown = set(missing)
    for label, silhouette in view.silhouettes.items():
        (unsynthesised if label in unknown else synthesised)[silhouette] = True
    picture[unsynthesised & ~synthesised] = to_rgb(UNSYNTHESISED_COLOUR)
    _show(axis, view, picture)
    if unsynthesised.any():
        across, up, mask = _padded(view, unsynthesised)
        axis.contourf(across, up, mask, levels=[0.5, 1.5], colors="none", hatches=["///"])
        _name(axis, view, unsynthesised & ~synthesised, NOT_SYNTHESISED.replace(" ", "\n"), 7.0)


def draw_borders(axis: Axes, view: View, colours: Mapping[int, str], width: float) -> None:
    """Each district's outline in its colour on a dark line, also where another one lies before it.

    With many labels, only the lines where what prevails changes, in white on dark.
    """
    dark = [withStroke(linewidth=width + 1.2, foreground="#181818")]
    if len(view.silhouettes) > MOST_OUTLINES:
        _draw_changes(axis, view, width)
        return
    for label, silhouette in view.silhouettes.items():
        across, up, mask = _padded(view, silhouette)
        lines = axis.contour(across, up, mask, levels=[0.5], colors=[colours[label]], linewidths=width)
        lines.set(path_effects=dark)


def name_districts(axis: Axes, view: View, names: Mapping[int, str]) -> None:
    """Write each name where its district is widest, so that colour is not the only key."""
    for label, name in names.items():
        _name(axis, view, view.prevailing == label, name, 8.0)


def mark_sides(axis: Axes, view: View) -> None:
    """The patient's sides at the picture's edges."""
    places = ((0.0, 0.5, "left", "center"), (1.0, 0.5, "right", "center"), (0.5, 1.0, "center", "top"))
    for mark, (x, y, along, up) in zip(view.markers, (*places, (0.5, 0.0, "center", "bottom")), strict=True):
        offset = (3 if x == 0 else -3 if x == 1 else 0, 2 if y == 0 else -2 if y == 1 else 0)
        text = axis.annotate(
            mark,
            (x, y),
            xytext=offset,
            xycoords="axes fraction",
            textcoords="offset points",
            ha=along,
            va=up,
            fontsize=8,
            weight="bold",
            color="#ffe94d",
        )
        text.set_path_effects([withStroke(linewidth=2, foreground="black")])


def draw_scale_bar(axis: Axes, view: View) -> None:
    """A bar of 10 cm in the lower left corner; a shorter one where the picture is small."""
    height_mm, width_mm = view.size_mm
    length = next((bar for bar in SCALE_BARS_MM if bar <= 0.5 * width_mm), SCALE_BARS_MM[-1])
    left, level = 0.03 * width_mm, min(0.05 * height_mm, 0.04 * width_mm)
    halo = [withStroke(linewidth=2.5, foreground="black")]
    caption = f"{length / 10:g} cm"
    axis.plot([left, left + length], [level, level], color="white", lw=3, solid_capstyle="butt", path_effects=halo)
    axis.annotate(
        caption, (left, level), (0, 3), textcoords="offset points", color="white", fontsize=8, path_effects=halo
    )


def suv_bar(figure: Figure, box: tuple[float, float, float, float], colour: str = "black") -> None:
    """The key to the PET's greys; ``box`` is left, bottom, width and height in parts of the figure."""
    axis = figure.add_axes(box)
    steps = np.linspace(*SUV_WINDOW, 256)[:, None]
    axis.imshow(steps, cmap="gray_r", origin="lower", aspect="auto", extent=(0, 1, *SUV_WINDOW))
    axis.set_xticks([])
    axis.yaxis.tick_right()
    axis.set_yticks(np.arange(SUV_WINDOW[0], SUV_WINDOW[1] + 1))
    axis.tick_params(labelsize=7, colors=colour, length=2)
    axis.set_title("SUV\ng/ml", fontsize=7, color=colour, pad=4)
    for spine in axis.spines.values():
        spine.set_color(colour)


def ct_brightness(view: View) -> FloatArray:
    """Brightness 0 to 1: CT_WINDOW_HU inside the districts, at most SURROUNDINGS where only the rest is met."""
    low, high = CT_WINDOW_HU
    body = np.clip((view.ct_body_hu - low) / (high - low), 0, 1)
    everything = np.clip((view.ct_hu - low) / (high - low), 0, 1)
    return np.maximum(body, SURROUNDINGS * everything)


def _grey(brightness: FloatArray) -> FloatArray:
    return np.repeat(brightness[..., None], 3, axis=2)


def _show(axis: Axes, view: View, picture: FloatArray) -> None:
    height_mm, width_mm = view.size_mm
    extent = (0.0, width_mm, 0.0, height_mm)
    axis.imshow(picture, origin="lower", extent=extent, interpolation="bilinear", aspect="equal")
    axis.add_patch(Rectangle((0, 0), width_mm, height_mm, fill=False, edgecolor="#808080", linewidth=0.8))


def _padded(
    view: View, mask: BoolArray
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Pixel centres in mm across and up, and the mask, with a rim of zeros: an outline closes at the image's edge."""
    rows, columns = mask.shape
    across = (np.arange(-1, columns + 1) + 0.5) * view.spacing_mm[1]
    up = (np.arange(-1, rows + 1) + 0.5) * view.spacing_mm[0]
    return across, up, np.pad(mask.astype(np.float64), 1)


def _draw_changes(axis: Axes, view: View, width: float) -> None:
    """The pixel edges between two labels, as they are."""
    labels = np.pad(view.prevailing, 1)
    up_mm, across_mm = view.spacing_mm
    row, column = np.nonzero(labels[:, 1:] != labels[:, :-1])
    upright = [np.stack([column * across_mm, (row - 1 + end) * up_mm], axis=1) for end in (0, 1)]
    row, column = np.nonzero(labels[1:] != labels[:-1])
    level = [np.stack([(column - 1 + end) * across_mm, row * up_mm], axis=1) for end in (0, 1)]
    edges = np.concatenate([np.stack(upright, axis=1), np.stack(level, axis=1)])
    codes = np.tile([Path.MOVETO, Path.LINETO], len(edges))
    halo = [withStroke(linewidth=width + 0.6, foreground="#181818")]
    path = Path(edges.reshape(-1, 2), codes)
    axis.add_artist(PathPatch(path, fill=False, edgecolor="white", linewidth=0.5 * width, path_effects=halo))


def _name(axis: Axes, view: View, region: BoolArray, name: str, size: float) -> None:
    """Text in the middle of the region's widest place; none where it has no room."""
    if not region.any():
        return
    depth_mm = ndimage.distance_transform_edt(np.pad(region, 1), sampling=view.spacing_mm)[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth_mm)), depth_mm.shape)
    place = (float(column) + 0.5) * view.spacing_mm[1], (float(row) + 0.5) * view.spacing_mm[0]
    text = axis.text(*place, name, ha="center", va="center", fontsize=size, color="white", weight="bold")
    text.set_path_effects([withStroke(linewidth=2, foreground="black")])
    pixels_a_mm = float(axis.transData.transform((1.0, 0.0))[0] - axis.transData.transform((0.0, 0.0))[0])
    if text.get_window_extent().width > NAME_ROOM * float(depth_mm[row, column]) * pixels_a_mm:
        text.remove()


def stamp(axis: Axes, word: str) -> None:
    """The word aslant over the panel, again and again and translucent: no crop of the panel is without it."""
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    figure = axis.get_figure(root=True)
    if figure is None:
        raise Defect("A panel without its figure cannot be stamped.")
    width_inch = axis.get_position().width * figure.get_size_inches()[0]
    points = min(STAMP_POINTS_AN_INCH * width_inch, LARGEST_STAMP_POINTS)
    columns = max(1, round(width_inch / STAMP_EVERY_INCH))
    rows = max(1, round(columns * (high - low) / (STAMP_EVERY * (right - left))))
    for across, up in product((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows):
        axis.text(
            left + across * (right - left),
            low + up * (high - low),
            word,
            ha="center",
            va="center",
            rotation=30,
            fontsize=points,
            weight="bold",
            color="#d00000",
            alpha=STAMP_ALPHA,
            clip_on=True,
        )
