"""The picture for a first look: CT, districts and synthetic PET as coronal maximum projections."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from twin_scanner.partition import DISTRICT_NAMES
from twin_scanner.volume import LabelArray, Volume

DISTRICT_COLOURS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#cc79a7")
"""Background, head, trunk, arms, legs: the Okabe-Ito palette, told apart by colour-blind readers too."""
SUV_WINDOW = (0.0, 7.0)
"""The customary inverse-grey window for FDG maximum projections, g/ml."""
CT_WINDOW_HU = (-200.0, 800.0)


def write_preview(path: Path, ct: Volume, districts: LabelArray, suv: Volume) -> None:
    """Write a PNG of the CT (HU), the districts and the PET (SUV g/ml), all on one canonical grid (D to the head)."""
    depth_mm, _, width_mm = ct.geometry.extent_mm
    panel_inch = 3.4
    figure = Figure(figsize=(3 * panel_inch, panel_inch * min(max(depth_mm / width_mm, 0.6), 3.2) + 0.9), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    extent = (0.0, width_mm, 0.0, depth_mm)
    body_ct = np.where(districts > 0, ct.array, -1024)
    axes[0].imshow(
        body_ct.max(axis=1), cmap="gray", vmin=CT_WINDOW_HU[0], vmax=CT_WINDOW_HU[1], origin="lower", extent=extent
    )
    axes[0].set_title("CT")
    labels = _prevailing(districts)
    axes[1].imshow(
        labels,
        cmap=ListedColormap(list(DISTRICT_COLOURS)),
        vmin=0,
        vmax=len(DISTRICT_COLOURS) - 1,
        origin="lower",
        extent=extent,
        interpolation="nearest",
    )
    axes[1].set_title("Districts")
    shown = [label for label in DISTRICT_NAMES if (labels == label).any()]
    axes[1].legend(
        handles=[Patch(color=DISTRICT_COLOURS[label], label=DISTRICT_NAMES[label]) for label in shown],
        loc="upper right",
        fontsize=7,
        framealpha=0.8,
    )
    axes[2].imshow(
        suv.array.max(axis=1), cmap="gray_r", vmin=SUV_WINDOW[0], vmax=SUV_WINDOW[1], origin="lower", extent=extent
    )
    axes[2].set_title(f"Synthetic FDG-PET (SUV {SUV_WINDOW[0]:.0f} to {SUV_WINDOW[1]:.0f})")
    for axis in axes:
        axis.set_axis_off()
        axis.set_aspect("equal")
    figure.suptitle(
        "SYNTHETIC, RESEARCH, NOT FOR DIAGNOSIS. Coronal maximum projections, patient's right on the left.", fontsize=9
    )
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _prevailing(districts: LabelArray) -> LabelArray:
    """Coronal projection (D, W) of a label map (D, H, W): the district that most of the line of sight goes through."""
    counts = np.stack([(districts == label).sum(axis=1) for label in DISTRICT_NAMES])
    prevailing = np.array(list(DISTRICT_NAMES), np.uint8)[counts.argmax(axis=0)]
    return np.where(counts.any(axis=0), prevailing, 0).astype(np.uint8)
