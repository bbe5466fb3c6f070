"""Stored CT pixels to Hounsfield units: decoding, padding, rescale; one slice at a time, no geometry."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from twin_scanner.dicom.read.slice_headers import name_of, rescale
from twin_scanner.dicom.read.stored_pixels import IntegerArray, decoded_frames, decoded_slice, padding_of
from twin_scanner.errors import Rejected
from twin_scanner.imaging.bounds import HOUNSFIELD_RANGE
from twin_scanner.imaging.volume import AIR_HU, FloatArray

TISSUE_HU: Final = (-500.0, 3000.0)
"""Soft tissue to dense bone; lung and air beside the padding may share its value without harm."""


def hounsfield_slice(dataset: Dataset) -> FloatArray:
    """The HU (rows, columns) of a single-frame CT data set in any transfer syntax with a codec here.

    Raises Rejected where the pixels cannot be decoded or their meaning is not given.
    """
    return to_hounsfield(decoded_slice(dataset), dataset)


def hounsfield_frames(dataset: Dataset, frames: Sequence[tuple[int, Dataset]]) -> Iterator[FloatArray]:
    """The HU (rows, columns) of frames of a multi-frame CT: (index in the file, that frame's own header) each."""
    for stored, (_, header) in zip(decoded_frames(dataset, frames), frames, strict=True):
        yield to_hounsfield(stored, header)


def to_hounsfield(stored: IntegerArray, header: Dataset) -> FloatArray:
    """HU = stored x RescaleSlope + RescaleIntercept (PS3.3 C.11.1.1.2) in float32; padding becomes AIR_HU first.

    Raises Rejected, naming the slice, where the result lies outside HOUNSFIELD_RANGE.
    """
    padding = padding_of(stored, header)
    slope, intercept = rescale(header)
    hounsfield = stored.astype(np.float32)
    hounsfield *= np.float32(slope)
    hounsfield += np.float32(intercept)
    if padding is not None:
        _check_padding(hounsfield, padding, header)
        hounsfield[padding] = AIR_HU
    _check_range(hounsfield, header)
    return np.maximum(hounsfield, np.float32(AIR_HU), out=hounsfield)


def _check_range(hounsfield: FloatArray, header: Dataset) -> None:
    low, high = HOUNSFIELD_RANGE
    for value in (float(hounsfield.min()), float(hounsfield.max())):
        if not low <= value <= high:
            raise Rejected(
                f"RescaleSlope or RescaleIntercept of {name_of(header)} is wrong, for it gives {value:.0f} HU, outside "
                f"{low:g} to {high:g}: correct the sender."
            )


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
