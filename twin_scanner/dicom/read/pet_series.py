"""A PET series from its files to a volume in SUV and in Bq/ml: read_pet_series, exact in geometry or Rejected."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset

from twin_scanner.dicom.read.ct_stack import MINIMUM_SLICES, Instance
from twin_scanner.dicom.read.dicom_files import find_dicom_files, quiet_pydicom, read_dataset, read_header
from twin_scanner.dicom.read.pet_headers import (
    PET_IMAGE,
    PET_KEYWORDS,
    attributes_of,
    is_pet,
    pet_slice,
    philips_factors,
)
from twin_scanner.dicom.read.slice_grid import SliceStack, axial_slices, stacked
from twin_scanner.dicom.read.slice_headers import ImageSlice, lossy_remark, name_of, naming_series, rescale
from twin_scanner.dicom.read.stored_pixels import confirmed_repeats, decoded_slice, padding_of
from twin_scanner.errors import Rejected
from twin_scanner.imaging.bounds import LARGEST_SUV
from twin_scanner.imaging.suv import PetAttributes, PhilipsFactors, bqml_factor, decay_reference, suv_factor
from twin_scanner.imaging.volume import FloatArray, Volume

SAME_RATIO: Final = 1e-4
"""Ratios of two decimal strings agree within their rounding."""


@dataclass(frozen=True)
class PetStack(SliceStack):
    """The stack of a PET series as its headers tell it.

    ``suv_factors``: SUV-bw of one unit of a rescaled pixel, slice by slice. ``bqml_per_suv`` is None where the series
    knows no activity. ``set_aside`` are sentences on what else was in the series and how its time was read.
    """

    attributes: PetAttributes
    suv_factors: tuple[float, ...]
    bqml_per_suv: float | None
    set_aside: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class PetSeries:
    """A PET series: SUV by body weight (g/ml) float32 (D, H, W), D along the stack's normal (row x column), padding 0.

    Values below 0, which some reconstructions give, stay. ``bqml_per_suv`` is the Bq/ml of SUV 1, None where the series
    knows no activity (GML, or Philips' counts with a SUV factor alone). ``header`` is the first slice's data set
    without pixels, nothing in it decoded yet. ``sop_instance_uids`` are in stack order; ``set_aside`` are sentences.
    """

    suv: Volume
    bqml_per_suv: float | None
    attributes: PetAttributes
    header: Dataset
    sop_instance_uids: tuple[str, ...]
    set_aside: tuple[str, ...]
    lossy: bool = False

    def activity(self) -> Volume:
        """The concentration in Bq/ml at the time to which the series was corrected; Rejected where it is not known."""
        if self.bqml_per_suv is None:
            raise Rejected(f"Units of the PET are {self.attributes.units}: send it in BQML to know its activity.")
        return Volume(self.suv.array * np.float32(self.bqml_per_suv), self.suv.geometry)


def read_pet_series(files: Path | Sequence[Path], *, accept_synthetic: bool = False) -> PetSeries:
    """Read one acquired PET series from a folder (searched to the bottom) or a list of its files.

    ``accept_synthetic`` lets phantoms in, whose SyntheticData is YES; what this program synthesised never is.
    Raises Rejected, with one sentence that names the slice or the attribute, for everything that is not one regular,
    axial stack of slices, measured, corrected for attenuation and decay, with all that its SUV follows from; Transient
    where the disk fails.
    """
    with quiet_pydicom():
        found = find_dicom_files(files)
        instances = [Instance(file, read_header(file, PET_KEYWORDS)) for file in found.dicom]
        stack = pet_stack_of(instances, accept_synthetic=accept_synthetic)
        array = np.empty(stack.geometry.shape, dtype=np.float32)
        with naming_series(stack.slices[0].header):
            for plane, image, factor in zip(array, stack.slices, stack.suv_factors, strict=True):
                plane[:] = _suv_slice(image, factor)
            repeats = confirmed_repeats(stack.repeated, partial(_suv_slice, factor=1.0))
        header = read_header(stack.slices[0].file)
    remarks = lossy_remark(stack.slices, "SUV")
    return PetSeries(
        suv=Volume(array, stack.geometry),
        bqml_per_suv=stack.bqml_per_suv,
        attributes=stack.attributes,
        header=header,
        sop_instance_uids=tuple(image.sop_instance_uid for image in stack.slices),
        set_aside=(*found.set_aside, *stack.set_aside, *repeats, *remarks),
        lossy=bool(remarks),
    )


def pet_stack_of(instances: Sequence[Instance], *, accept_synthetic: bool = False) -> PetStack:
    """The stack that the PET images of one series form, and their SUV factors; headers (PET_KEYWORDS) alone.

    Raises Rejected as ``read_pet_series`` does.
    """
    if not instances:
        raise Rejected("There is no DICOM image: give the folder of a PET series.")
    named = next((one for one in instances if is_pet(one.header)), instances[0])
    with naming_series(named.header):
        return _pet_stack_of(instances, accept_synthetic)


def _pet_stack_of(instances: Sequence[Instance], accept_synthetic: bool) -> PetStack:
    images = [
        pet_slice(instance.header, instance.file, accept_synthetic=accept_synthetic)
        for instance in instances
        if is_pet(instance.header)
    ]
    others = [instance.header for instance in instances if not is_pet(instance.header)]
    slices, set_aside = axial_slices(images, others, "PET", {PET_IMAGE})
    stack = stacked(slices, MINIMUM_SLICES)
    attributes = attributes_of(stack.slices)
    philips = [philips_factors(image.header) for image in stack.slices]
    factors = tuple(suv_factor(attributes, own) for own in philips)
    return PetStack(
        slices=stack.slices,
        geometry=stack.geometry,
        repeated=stack.repeated,
        tilt=stack.tilt,
        attributes=attributes,
        suv_factors=factors,
        bqml_per_suv=_bqml_per_suv(attributes, philips, factors),
        set_aside=(*set_aside, *_remark_on_time(attributes)),
    )


def _bqml_per_suv(
    attributes: PetAttributes, philips: Sequence[PhilipsFactors], suv_factors: Sequence[float]
) -> float | None:
    """One number for the series, None where there is none: Philips' two factors may go their own ways."""
    activity = [bqml_factor(attributes, own) for own in philips]
    ratios = [bqml / suv for bqml, suv in zip(activity, suv_factors, strict=True) if bqml is not None]
    if len(ratios) < len(activity) or max(ratios) > (1.0 + SAME_RATIO) * min(ratios):
        return None
    return ratios[0]


def _remark_on_time(attributes: PetAttributes) -> tuple[str, ...]:
    start = attributes.series_start
    if attributes.units == "GML" or attributes.decay_correction != "START" or start is None:
        return ()
    if attributes.first_acquisition is None or decay_reference(attributes) == start:
        return ()
    return ("SeriesTime of the PET is after its first AcquisitionTime, from which its decay was reckoned instead.",)


def _suv_slice(image: ImageSlice, factor: float) -> FloatArray:
    """Stored x RescaleSlope + RescaleIntercept, slice by slice (PS3.3 C.8.9.4.1.8), times ``factor``; padding 0."""
    dataset = read_dataset(image.file)
    stored = decoded_slice(dataset)
    padding = padding_of(stored, dataset)
    slope, intercept = rescale(dataset)
    values = (stored * slope + intercept) * factor
    if padding is not None:
        values[padding] = 0.0
    if not max(abs(float(values.min())), abs(float(values.max()))) <= LARGEST_SUV:
        worst = max(values.min(), values.max(), key=abs)
        raise Rejected(
            f"RescaleSlope of {name_of(dataset)} or the dose is wrong, for they give SUV {worst:g}, outside "
            f"{-LARGEST_SUV:g} to {LARGEST_SUV:g}: correct the sender."
        )
    return values.astype(np.float32)
