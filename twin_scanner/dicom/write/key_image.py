"""The key image for the reading room: a picture with its warning burned in, as a Secondary Capture."""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from twin_scanner.dicom.equipment import derive_uid
from twin_scanner.dicom.read.ct_series import CtSeries
from twin_scanner.dicom.read.patient import required_uid, text
from twin_scanner.dicom.write.companions import (
    PET_CLASS,
    WrittenObject,
    companion_series_uid,
    pet_reference,
    put_into_study,
    write_object,
)
from twin_scanner.dicom.write.pet_series import (
    Synthesis,
    WrittenSeries,
    add_compression,
    comment,
    series_reference,
    source_images,
    titled,
)
from twin_scanner.errors import Defect

DESCRIPTION: Final = "SYNTHETIC FDG-PET, key image, RESEARCH"


def write_key_image(
    pixels: npt.NDArray[np.uint8], source: CtSeries, pet: WrittenSeries, synthesis: Synthesis, folder: Path
) -> WrittenObject:
    """Write an RGB picture (rows, columns, 3) as one Secondary Capture Image, PS3.3 A.8.1.

    BurnedInAnnotation YES: the warning is in the pixels, no patient is. SyntheticData YES. It references CT and PET.
    The same arguments give the same bytes. Raises Defect for other pixels, Transient where the disk fails.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise Defect(f"A key image is RGB with 8 bits, not {pixels.dtype} of shape {pixels.shape}.")
    key_image = Dataset()
    key_image.SOPClassUID = SecondaryCaptureImageStorage
    key_image.SeriesInstanceUID = companion_series_uid("key-image", pet.series_uid)
    key_image.SOPInstanceUID = derive_uid("key-image-instance", key_image.SeriesInstanceUID)
    put_into_study(key_image, "key-image", source, synthesis, titled(DESCRIPTION, synthesis), synthetic=True)
    key_image.Modality = "OT"
    key_image.ConversionType = "SYN"
    key_image.InstanceNumber = 1
    key_image.BodyPartExamined = "WHOLEBODY"
    key_image.PatientOrientation = ""
    key_image.ImageType = ["DERIVED", "SECONDARY"]
    key_image.ImageComments = comment(synthesis)
    key_image.DerivationDescription = (
        "Maximum projections of a synthetic FDG-PET and of the CT that it was computed from"
    )
    key_image.BurnedInAnnotation = "YES"
    key_image.ContentQualification = "RESEARCH"
    lossy = source.lossy or text(source.header, "LossyImageCompression") == "01"
    add_compression(key_image, source.header, lossy=lossy)
    _add_references(key_image, source, pet)
    _add_pixels(key_image, pixels)
    return write_object(key_image, "key-image", folder)


def _add_references(key_image: Dataset, source: CtSeries, pet: WrittenSeries) -> None:
    """Both series, and each image as a source whose places are not those of a projection: PS3.3 C.12.2, C.7.6.1.1.4."""
    ct_series_uid = required_uid(source.header, "SeriesInstanceUID")
    ct = series_reference(ct_series_uid, source.sop_class_uid, source.sop_instance_uids)
    key_image.ReferencedSeriesSequence = [ct, pet_reference(pet)]
    key_image.SourceImageSequence = [
        *source_images(PET_CLASS, pet.sop_instance_uids, preserved="NO"),
        *source_images(source.sop_class_uid, source.sop_instance_uids, preserved="NO"),
    ]


def _add_pixels(key_image: Dataset, pixels: npt.NDArray[np.uint8]) -> None:
    """Image Pixel, PS3.3 C.7.6.3: red, green and blue of a pixel side by side, a pad byte where the count is odd."""
    key_image.Rows, key_image.Columns = pixels.shape[:2]
    key_image.SamplesPerPixel, key_image.PhotometricInterpretation, key_image.PlanarConfiguration = 3, "RGB", 0
    key_image.BitsAllocated, key_image.BitsStored, key_image.HighBit, key_image.PixelRepresentation = 8, 8, 7, 0
    content = np.ascontiguousarray(pixels).tobytes()
    key_image.PixelData = content + b"\0" * (len(content) % 2)
    key_image["PixelData"].VR = "OB"
