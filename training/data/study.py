"""A training study: one examination's CT and PET with what is known of the patient, and the promise to load it."""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from twin_scanner.imaging.volume import LabelArray, Volume

CtOrigin: TypeAlias = Literal["CT", "CTres", "DICOM", "phantom"]
"""Where the CT comes from: the native CT, one resampled with a spline by others, a DICOM series, or a phantom."""


@dataclass(frozen=True, eq=False)
class TrainingStudy:
    """CT in HU and PET in SUV by body weight (g/ml, unclipped), each on its own grid, in one frame of reference.

    ``lesions`` is 1 in every annotated lesion and 0 elsewhere, uint8 on the PET's grid; None where nobody annotated.
    ``truth`` are the districts on the CT's grid that a phantom was made with, ``organs`` its organs there, labelled as
    in organ_labels.ORGAN_NAMES; None for patients. ``is_phantom`` is True where the source says that a program drew the
    images, so that they are no patient's.
    """

    ct: Volume
    pet: Volume
    ct_origin: CtOrigin
    lesions: LabelArray | None = None
    truth: LabelArray | None = None
    is_phantom: bool = False
    organs: LabelArray | None = None
    age_years: float | None = None


class Examined(Protocol):
    """What is known of a study without its images: of a reference to it, and of its entry in a training store.

    ``name`` is unique in its source and fit for a file name; ``patient`` is the same for all studies of a person and
    neither a name nor a hospital's number; ``diagnosis`` is the source's own word, empty where it is unknown.
    """

    @property
    def name(self) -> str: ...

    @property
    def patient(self) -> str: ...

    @property
    def diagnosis(self) -> str: ...


class StudyReference(Examined, Protocol):
    """A study that can be loaded, in this process or another one: it must survive pickling."""

    def load(self) -> TrainingStudy:
        """Read the volumes; raises Rejected, naming what is wrong, where the study must not be trained on."""
        ...
