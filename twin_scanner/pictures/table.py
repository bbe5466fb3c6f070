"""The table of a picture: volume and SUV of each district, as the structured report has them."""

from collections.abc import Sequence
from typing import Final

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from twin_scanner.dicom.write.measurement_report import DistrictMeasurement
from twin_scanner.pictures.panels import NOT_SYNTHESISED, drawable

HEADINGS: Final = ("SYNTHETIC, by district", "Volume (ml)", "SUVmean", "SUVmax", "SUVpeak")
UNIT: Final = "SUV-bw in g/ml. SUVpeak: the highest mean of a sphere of 1 ml."
MOST_ROWS: Final = 8
"""More would leave no room for the images; the structured report has them all."""
ROW_INCH: Final = 0.27
POINTS: Final = 12.5
"""Letters of 21 pixels at the key image's resolution: still read when a viewer shows it at half its size."""
ENDS_INCH: Final = (0.0, 3.9, 5.2, 6.5, 7.8)
"""Where the names begin, and where each column of numbers ends."""
GAP_INCH: Final = 0.15


def table_inch(measured: Sequence[DistrictMeasurement]) -> float:
    """The height that ``draw_table`` takes; 0 where there is nothing to show."""
    if not measured:
        return 0.0
    return ROW_INCH * (2 + len(_shown(measured)) + (len(measured) > MOST_ROWS)) + GAP_INCH


def draw_table(figure: Figure, measured: Sequence[DistrictMeasurement], bottom_inch: float, colour: str) -> None:
    """A heading, a row for each of the largest districts, and what the numbers are; in the middle of the figure.

    A district that was not synthesised has its volume and no number beside it, never SUV 0.
    """
    if not measured:
        return
    width, height = figure.get_size_inches()
    left = (width - ENDS_INCH[-1]) / 2
    shown = _shown(measured)
    lines = [HEADINGS, *(_row(district) for district in shown)]
    level = bottom_inch + table_inch(measured) - GAP_INCH - ROW_INCH / 2
    for place, line in enumerate(lines):
        for text, end in zip(line, ENDS_INCH, strict=True):
            figure.text(
                (left + end) / width,
                level / height,
                text,
                ha="right" if end else "left",
                va="center",
                fontsize=POINTS,
                weight="normal" if place else "bold",
                color=colour,
            )
        level -= ROW_INCH
    under = (bottom_inch + table_inch(measured) - GAP_INCH - ROW_INCH) / height
    figure.add_artist(Line2D([left / width, (left + ENDS_INCH[-1]) / width], [under, under], color=colour, lw=0.8))
    rest = len(measured) - len(shown)
    notes = [*([f"and {rest} more: see the structured report"] if rest else []), UNIT]
    for note in notes:
        figure.text(left / width, level / height, note, ha="left", va="center", fontsize=10, color=colour)
        level -= ROW_INCH


def _shown(measured: Sequence[DistrictMeasurement]) -> list[DistrictMeasurement]:
    """The largest ones, in the order in which they come."""
    if len(measured) <= MOST_ROWS:
        return list(measured)
    smallest = sorted((district.volume_ml for district in measured), reverse=True)[MOST_ROWS - 1]
    return [district for district in measured if district.volume_ml >= smallest][:MOST_ROWS]


def _row(district: DistrictMeasurement) -> tuple[str, str, str, str, str]:
    name, volume, suv = drawable(district.name), f"{district.volume_ml:.0f}", district.suv
    if suv is None:
        return name, volume, "", "", NOT_SYNTHESISED
    peak = "none" if suv.peak is None else f"{suv.peak:.2f}"
    return name, volume, f"{suv.mean:.2f}", f"{suv.maximum:.2f}", peak
