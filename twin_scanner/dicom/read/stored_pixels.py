"""Stored pixels of an image: decoding in any transfer syntax, which of them are padding, whether their bits fit."""

from collections.abc import Callable, Iterator, Sequence
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

from twin_scanner.dicom.read.dicom_files import UNREADABLE
from twin_scanner.dicom.read.jpeg_stream import check_jpeg, check_jpeg2000
from twin_scanner.dicom.read.slice_headers import ImageSlice, integer, is_given, name_of
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import FloatArray

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


def decoded_frames(dataset: Dataset, frames: Sequence[tuple[int, Dataset]]) -> Iterator[IntegerArray]:
    """Stored values (rows, columns) of frames of a multi-frame image: (index in the file, the frame's header) each."""
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
        yield stored


def decoded_slice(dataset: Dataset) -> IntegerArray:
    """Stored values (rows, columns) of a single-frame image; raises Rejected where they cannot be decoded."""
    try:
        return pixel_array(dataset, decoding_plugin=_plugin(dataset), correct_unused_bits=False)
    except UNREADABLE as error:
        raise _undecodable(dataset) from error


def padding_of(stored: IntegerArray, header: Dataset) -> npt.NDArray[np.bool_] | None:
    """Where an image (rows, columns) is padding, None where none is declared.

    Raises Rejected where the pixels are not as many, or need more bits, than the header says.
    """
    _check_samples(stored, header)
    padding = _padding(stored, header)
    _check_bits(stored, padding, header)
    return padding


def confirmed_repeats(
    repeated: Sequence[tuple[ImageSlice, ImageSlice]], values: Callable[[ImageSlice], FloatArray]
) -> tuple[str, ...]:
    """A sentence on files that bear an instance a second time; ``values`` reads a slice.

    Such a file is left out only if its pixels are the same, in any syntax; raises Rejected where they are not.
    """
    for kept, again in repeated:
        if not np.array_equal(values(kept), values(again)):
            raise Rejected(
                f"SOPInstanceUID of {kept.name} stands on two files with different pixels: correct the sender."
            )
    if not repeated:
        return ()
    names = ", ".join(again.name for _, again in repeated[:3])
    more = ", ..." if len(repeated) > 3 else ""
    return (f"{len(repeated)} of the images came twice, the second set aside: {names}{more}.",)


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
