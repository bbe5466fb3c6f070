"""What is measured in a district, and by which codes: one table for the DICOM report and the twin record."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

SUV_BW: Final = Code("126401", "DCM", "SUVbw")
SUV_UNIT: Final = Code("{SUVbw}g/ml", "UCUM", "Standardized Uptake Value body weight")
VOLUME_UNIT: Final = Code("cm3", "UCUM", "cubic centimeter")


@dataclass(frozen=True)
class Quantity:
    """One measurement: its concept, its derivation where it has one (PS3.16 CID 7464), its unit (UCUM).

    ``key`` is its name in the report of a render, ``label`` its name for a person. A value has so many ``digits`` after
    the point wherever it is written: finer than any RescaleSlope.
    """

    key: str
    label: str
    concept: Code
    derivation: Code | None
    unit: Code
    digits: int


VOLUME: Final = Quantity("volume_ml", "Volume", codes.SCT.Volume, None, VOLUME_UNIT, 3)
SUV_MEAN: Final = Quantity("suv_mean", "SUVmean", SUV_BW, codes.SCT.Mean, SUV_UNIT, 4)
SUV_MAX: Final = Quantity("suv_max", "SUVmax", SUV_BW, codes.SCT.Maximum, SUV_UNIT, 4)
SUV_PEAK: Final = Quantity("suv_peak", "SUVpeak", SUV_BW, codes.DCM.PeakValueWithinROI, SUV_UNIT, 4)
QUANTITIES: Final = (VOLUME, SUV_MEAN, SUV_MAX, SUV_PEAK)
DISTRICT_CODES: Final[Mapping[str, Code]] = MappingProxyType(
    {
        "head": codes.SCT.Head,
        "trunk": codes.SCT.Trunk,
        "arms": codes.SCT.UpperLimb,
        "legs": codes.SCT.LowerLimb,
    }
)
CATEGORY: Final[Code] = codes.SCT.AnatomicalStructure
"""Segmented Property Category of PS3.16 CID 7150; also the type of a label that has no code of its own."""


def code_of(name: str, own: Mapping[str, Code] = MappingProxyType({})) -> Code:
    """The concept of a district by its name: a configured one, ours, or 'anatomical structure'."""
    return own.get(name) or DISTRICT_CODES.get(name) or CATEGORY
