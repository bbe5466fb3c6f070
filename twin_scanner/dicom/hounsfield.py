"""Stored CT pixels to Hounsfield units: decoding, padding, rescale; one slice at a time, no geometry."""

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import iter_pixels, pixel_array
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from twin_scanner.dicom.ct_headers import integer, is_given, name_of, rescale
from twin_scanner.dicom.dicom_files import UNREADABLE
from twin_scanner.dicom.jpeg_stream import check_jpeg, check_jpeg2000
from twin_scanner.errors import Rejected
from twin_scanner.volume import AIR_HU, FloatArray

TISSUE_HU: Final = (-500.0, 3000.0)
"""Soft tissue to dense bone; lung and air beside the padding may share its value without harm."""

PLUGINS: Final = {
    str(RLELossless): "pydicom",
    str(JPEGLSLossless): "pyjpegls",
    str(JPEGLSNearLossless): "pyjpegls",
    str(JPEG2000Lossless): "pylibjpeg",
    str(JPEG2000): "pylibjpeg",
}
"""The one codec for each transfer syntax that has several; left to itself pydicom tries them all on damaged pixels.

These fail with an exception. pylibjpeg's RLE decoder panics (an exception nothing catches), GDCM may end the process;
for JPEG there is only GDCM, so its streams are checked first. pyjpegls takes 2/3 of GDCM's time.
"""
JPEG_BY_GDCM: Final = frozenset(map(str, (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)))
CHECKS: Final = dict.fromkeys(JPEG_BY_GDCM, check_jpeg) | dict.fromkeys(
    map(str, (JPEG2000Lossless, JPEG2000)), check_jpeg2000
)
"""What is looked at before a codec runs, by transfer syntax."""

IntegerArray: TypeAlias = npt.NDArray[np.integer]


def hounsfield_slice(dataset: Dataset) -> FloatArray:
    """The HU (rows, columns) of a single-frame CT data set in any transfer syntax with a codec here.

    Raises Rejected where the pixels cannot be decoded or their meaning is not given.
    """
    return to_hounsfield(_decoded(dataset), dataset)


def hounsfield_frames(dataset: Dataset, frames: Sequence[tuple[int, Dataset]]) -> Iterator[FloatArray]:
    """The HU (rows, columns) of frames of a multi-frame CT: (index in the file, that frame's own header) each."""
    indices = [index for index, _ in frames]
    pixels: Iterator[IntegerArray] = iter(())
    for place, (_, header) in enumerate(frames):
        try:
            if place == 0:
                plugin = _plugin(dataset)
                pixels = iter_pixels(dataset, indices=indices, decoding_plugin=plugin, correct_unused_bits=False)
            stored = next(pixels)
        except (StopIteration, *UNREADABLE) as error:
            raise _undecodable(header) from error
        yield to_hounsfield(stored, header)


def to_hounsfield(stored: IntegerArray, header: Dataset) -> FloatArray:
    """HU = stored x RescaleSlope + RescaleIntercept (PS3.3 C.11.1.1.2) in float32; padding becomes AIR_HU first."""
    _check_samples(stored, header)
    slope, intercept = rescale(header)
    padding = _padding(stored, header)
    _check_bits(stored, padding, header)
    hounsfield = stored.astype(np.float32)
    hounsfield *= np.float32(slope)
    hounsfield += np.float32(intercept)
    if padding is not None:
        _check_padding(hounsfield, padding, header)
        hounsfield[padding] = AIR_HU
    return np.maximum(hounsfield, np.float32(AIR_HU), out=hounsfield)


def _decoded(dataset: Dataset) -> IntegerArray:
    try:
        return pixel_array(dataset, decoding_plugin=_plugin(dataset), correct_unused_bits=False)
    except UNREADABLE as error:
        raise _undecodable(dataset) from error


def _plugin(dataset: Dataset) -> str:
    """The codec for a data set's transfer syntax (empty: the only one); raises UnsoundJpeg where none may be run."""
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    check = CHECKS.get(syntax)
    if check is not None:
        frames = max(1, integer(dataset, "NumberOfFrames")) if "NumberOfFrames" in dataset else 1
        for stream in generate_frames(dataset.PixelData, number_of_frames=frames):
            check(stream, integer(dataset, "Rows"), integer(dataset, "Columns"))
    return PLUGINS.get(syntax, "")


def _undecodable(header: Dataset) -> Rejected:
    return Rejected(
        f"The pixels of {name_of(header)} cannot be decoded: they are damaged or cut short, or their transfer syntax "
        "is not supported; send them again, uncompressed."
    )


def _check_samples(stored: IntegerArray, header: Dataset) -> None:
    expected = (integer(header, "Rows"), integer(header, "Columns"))
    if stored.shape != expected or stored.dtype.kind not in "iu":
        raise Rejected(
            f"The pixels of {name_of(header)} are not one whole number each in {expected[0]} rows and {expected[1]} "
            "columns: correct the sender."
        )


def _padding(stored: IntegerArray, header: Dataset) -> npt.NDArray[np.bool_] | None:
    """Where PixelPaddingValue, or the range up to PixelPaddingRangeLimit, lies (PS3.3 C.7.5.1.1.2)."""
    value = _in_signedness_of(stored, header, "PixelPaddingValue")
    if value is None:
        return None
    limit = _in_signedness_of(stored, header, "PixelPaddingRangeLimit")
    if limit is None:
        return stored == value
    return (stored >= min(value, limit)) & (stored <= max(value, limit))


def _check_padding(hounsfield: FloatArray, padding: npt.NDArray[np.bool_], header: Dataset) -> None:
    """Padding lies around the image; a value of tissue that lies scattered inside it would become holes of air."""
    low, high = TISSUE_HU
    suspect = padding & (hounsfield > low) & (hounsfield < high)
    if not suspect.any():
        return
    around = np.pad(padding, 1, constant_values=True)
    alone = ~(around[:-2, 1:-1] | around[2:, 1:-1] | around[1:-1, :-2] | around[1:-1, 2:])
    if (suspect & alone).any():
        row, column = (int(index) for index in np.argwhere(suspect & alone)[0])
        raise Rejected(
            f"PixelPaddingValue of {name_of(header)} is {hounsfield[row, column]:g} HU, as tissue has, and lies inside "
            f"the image (row {row}, column {column}): correct the padding at the sender."
        )


def _in_signedness_of(stored: IntegerArray, header: Dataset, keyword: str) -> int | None:
    """A padding value as the pixels would hold it: many writers give -2000 as the unsigned 63536, or the reverse."""
    if not is_given(header, keyword):
        return None
    value = integer(header, keyword)
    bits = 8 * stored.dtype.itemsize
    value &= (1 << bits) - 1
    if stored.dtype.kind == "i" and value >> (bits - 1):
        value -= 1 << bits
    return value


def _check_bits(stored: IntegerArray, padding: npt.NDArray[np.bool_] | None, header: Dataset) -> None:
    """Bits above BitsStored may hold an overlay or a sign that was cut off: guessing which would invent HU."""
    bits = integer(header, "BitsStored")
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if stored.dtype.kind == "i" else (0, (1 << bits) - 1)
    if stored.min() >= low and stored.max() <= high:
        return
    outside = (stored < low) | (stored > high)
    if padding is not None:
        outside &= ~padding
    if outside.any():
        worst = int(stored[outside][0])
        raise Rejected(
            f"BitsStored of {name_of(header)} is {bits}, too few for its stored value {worst}: correct the sender."
        )
