"""One slice as a picture: windowed CT, PET in colours over it, district borders, and the words that it must bear."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from twin_scanner.console.viewer.images import JobImages
from twin_scanner.console.viewer.planes import Edges, Sight
from twin_scanner.imaging.district_labels import DISTRICT_COLOURS
from twin_scanner.imaging.volume import AIR_HU, FloatArray

Pixels: TypeAlias = npt.NDArray[np.uint8]
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

WARNING: Final = "SYNTHETIC - research, not for diagnosis"
CT_WARNING: Final = "CT - research view, not for diagnosis"
PHANTOM_WARNING: Final = "trained on phantoms only"
JPEG_QUALITY: Final = 90
LETTER_PX: Final = 16
WORDS_PX: Final = 12
MARGIN_PX: Final = 4
FULL_COLOUR_AT: Final = 0.25
"""Share of the SUV scale from which the PET has its whole opacity; below, it fades, so that the CT is seen there."""
_GREY: Final = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
_INVERTED: Final = _GREY[::-1].copy()
"""Black on white, as PET is read."""


class Shown(StrEnum):
    """Which images a slice shows."""

    CT = "ct"
    PET = "pet"
    FUSED = "fused"


class Format(StrEnum):
    """How a picture is encoded: JPEG is fast, PNG keeps every pixel."""

    JPEG = "jpeg"
    PNG = "png"


@dataclass(frozen=True)
class Window:
    """A range of HU by its centre and width (PS3.3 C.11.2.1.2)."""

    centre_hu: float
    width_hu: float


WINDOWS: Final[Mapping[str, Window]] = MappingProxyType(
    {
        "soft tissue": Window(40, 400),
        "lung": Window(-600, 1500),
        "bone": Window(450, 1800),
        "brain": Window(40, 80),
        "liver": Window(60, 160),
        "whole range": Window(500, 3000),
    }
)
"""What radiology stations offer."""


@dataclass(frozen=True)
class Look:
    """How slices are to look: ``opacity`` of the PET over the CT is 0 to 1, ``suv_max`` in g/ml ends the scale."""

    shown: Shown = Shown.FUSED
    window: Window = WINDOWS["soft tissue"]
    suv_max: float = 10.0
    opacity: float = 0.6
    borders: bool = False


def draw(images: JobImages, sight: Sight, slice_index: int, look: Look) -> Image.Image:
    """One slice; without a CT the PET alone, whatever the look asks for."""
    shown = look.shown if images.ct is not None else Shown.PET
    if shown == Shown.PET:
        pixels = _INVERTED.take(_pet_steps(images, sight, slice_index, look), axis=0)
    elif shown == Shown.CT:
        pixels = _GREY.take(_ct_steps(images, sight, slice_index, look.window), axis=0)
    else:
        pairs = _pet_steps(images, sight, slice_index, look).astype(np.uint16) << 8
        pairs |= _ct_steps(images, sight, slice_index, look.window)
        pixels = _fusion(round(look.opacity, 2)).take(pairs, axis=0)
    if look.borders:
        _draw_borders(pixels, sight.nearest(images.districts, slice_index).astype(np.uint8))
    _draw_words(pixels, sight.edges, _warning(shown, images), light=shown == Shown.PET)
    return Image.fromarray(pixels)


def encode(picture: Image.Image, form: Format) -> bytes:
    """The picture's file."""
    stream = io.BytesIO()
    if form == Format.JPEG:
        picture.save(stream, "JPEG", quality=JPEG_QUALITY)
    else:
        picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _warning(shown: Shown, images: JobImages) -> str:
    if shown == Shown.CT:
        return CT_WARNING
    return f"{WARNING} - {PHANTOM_WARNING}" if images.phantom_only else WARNING


def _ct_steps(images: JobImages, sight: Sight, slice_index: int, window: Window) -> Pixels:
    assert images.ct is not None
    hu = sight.linear(images.ct, slice_index, outside=AIR_HU)
    low = window.centre_hu - window.width_hu / 2
    return _steps(hu, low, window.width_hu)


def _pet_steps(images: JobImages, sight: Sight, slice_index: int, look: Look) -> Pixels:
    return _steps(sight.linear(images.pet, slice_index, outside=0.0), 0.0, look.suv_max)


def _steps(values: FloatArray, low: float, width: float) -> Pixels:
    """0 at the lower end of a range and below, 255 at its upper end and above."""
    scaled = (values - np.float32(low)) * np.float32(255.0 / width)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)


@lru_cache(maxsize=128)
def _fusion(opacity: float) -> Pixels:
    """The colour of each pair of a step of the PET (times 256) and a step of the CT.

    The PET's colours run from black over red and yellow to white ("hot").
    """
    step = np.arange(256) / 255.0
    alpha = (opacity * np.minimum(1.0, step / FULL_COLOUR_AT))[:, None, None]
    hot = np.stack([np.clip(3 * step - begin, 0, 1) for begin in (0, 1, 2)], axis=1)[:, None, :]
    return np.rint(255 * (hot * alpha + step[None, :, None] * (1 - alpha))).astype(np.uint8).reshape(-1, 3)


def _draw_borders(pixels: Pixels, labels: Pixels) -> None:
    """Colour the pixels of a district that have another one, or none, above or to the left of them."""
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    rows, columns = np.nonzero(edge)
    owner = labels[rows, columns]
    for beside in (labels[rows, columns - 1], labels[rows - 1, columns]):  # outside, the border is the neighbour's
        owner = np.where(owner == 0, beside, owner)
    pixels[rows, columns] = _border_colours()[owner]


@lru_cache(maxsize=1)
def _border_colours() -> Pixels:
    shades = [[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in DISTRICT_COLOURS[1:]]
    return np.array([shades[(label - 1) % len(shades)] for label in range(256)], np.uint8)


def _draw_words(pixels: Pixels, edges: Edges, warning: str, *, light: bool) -> None:
    """The letters of the four sides and the warning, with a rim so that they are read on any ground."""
    rim, ink = _words(pixels.shape[0], pixels.shape[1], edges, warning)
    pixels[rim] = 255 if light else 0
    pixels[ink] = (130, 0, 0) if light else (255, 214, 102)


@lru_cache(maxsize=64)
def _words(
    rows: int, columns: int, edges: Edges, warning: str
) -> tuple[tuple[npt.NDArray[np.intp], ...], tuple[npt.NDArray[np.intp], ...]]:
    """Which pixels of a picture are rim and which are ink."""
    masks = []
    letter = ImageFont.load_default(LETTER_PX)
    middle, centre = rows // 2, columns // 2
    for rim in (2, 0):
        mask = Image.new("L", (columns, rows))
        ink = ImageDraw.Draw(mask)

        def put(text: str, at: tuple[int, int], anchor: str, font: Font, rim: int = rim) -> None:
            ink.text(at, text, fill=255, font=font, anchor=anchor, stroke_width=rim)  # noqa: B023

        put(edges.left, (MARGIN_PX, middle), "lm", letter)
        put(edges.right, (columns - MARGIN_PX, middle), "rm", letter)
        put(edges.top, (centre, MARGIN_PX), "mt", letter)
        put(edges.bottom, (centre, rows - 2 * MARGIN_PX - WORDS_PX), "mb", letter)
        put(warning, (centre, rows - MARGIN_PX), "mb", _fitting(warning, columns - 2 * MARGIN_PX))
        masks.append(np.nonzero(np.asarray(mask) > 127))
    return masks[0], masks[1]


def _fitting(text: str, width_px: int) -> Font:
    """The font in which a text fits into a width, never larger than WORDS_PX."""
    font = ImageFont.load_default(WORDS_PX)
    length = font.getlength(text)
    return font if length <= width_px else ImageFont.load_default(max(4.0, WORDS_PX * width_px / length))
