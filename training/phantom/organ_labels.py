"""The phantom's organs as a label map of their own, as somebody would outline them for an evaluation."""

from types import MappingProxyType
from typing import Final

import numpy as np

from training.phantom.tissues import Tissue
from twin_scanner.imaging.volume import LabelArray

ORGANS: Final = MappingProxyType({
    "brain": (Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.CEREBELLUM),
    "salivary glands": (Tissue.SALIVARY_GLAND,),
    "lungs": (Tissue.LUNG, Tissue.LUNG_VESSEL),
    "heart": (Tissue.MYOCARDIUM,),
    "liver": (Tissue.LIVER,),
    "spleen": (Tissue.SPLEEN,),
    "kidneys": (Tissue.KIDNEY, Tissue.RENAL_PELVIS),
    "bowel": (Tissue.SMALL_BOWEL, Tissue.COLON_WALL, Tissue.STOOL),
    "bladder": (Tissue.BLADDER,),
})  # fmt: skip
"""Tissues of each organ; of the heart the myocardium alone, for its blood has the uptake of every vessel."""
ORGAN_NAMES: Final = tuple(enumerate(ORGANS, start=1))
"""Label and name of each organ."""


def organ_labels(tissues: LabelArray) -> LabelArray:
    """The label of each voxel's organ in ORGAN_NAMES, 0 elsewhere and in lesions, on the grid of the tissues."""
    label_of = np.zeros(256, np.uint8)
    for label, name in ORGAN_NAMES:
        label_of[list(ORGANS[name])] = label
    return label_of[tissues]
