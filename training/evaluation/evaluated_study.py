"""A study as it is judged: loaded, registered, translated from its full CT as in service, real beside synthetic."""

from dataclasses import dataclass

import numpy as np

from training.data.prepare import check_uptake, registered_study
from training.data.study import Study, StudyReference
from training.evaluation.case import Case, Native
from training.evaluation.organs import OrganMaps
from twin_scanner.districts.district_map import DistrictMap, Segmenter
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import FloatArray, Geometry, LabelArray, Volume, resample, resample_labels
from twin_scanner.models.package import ModelPackage
from twin_scanner.synthesis.pipeline import PipelineOptions, SyntheticPet, translate_ct


class Once:
    """A segmenter that draws one CT once, however many models are then judged on it."""

    def __init__(self, segmenter: Segmenter, ct: Volume) -> None:
        self.name = segmenter.name
        self.segmenter_hash = segmenter.segmenter_hash
        self._segmenter, self._ct = segmenter, ct
        self._drawn: DistrictMap | None = None

    def segment(self, ct: Volume) -> DistrictMap:
        """The districts of the CT that was given at the start, drawn at the first call."""
        if ct is not self._ct:
            raise ValueError("this segmenter is for one CT")
        if self._drawn is None:
            self._drawn = self._segmenter.segment(ct)
        return self._drawn


@dataclass(frozen=True, eq=False)
class Loaded:
    """A study ready to be judged by several models: the PET lies where the CT shows the same tissue."""

    reference: StudyReference
    study: Study
    segmenter: Once
    organs: tuple[LabelArray, Geometry] | None = None
    organ_names: tuple[tuple[int, str], ...] = ()


def load(
    reference: StudyReference, segmenter: Segmenter, *, registered: bool = True, organs: OrganMaps | None = None
) -> Loaded:
    """Load a study and take back how the patient moved between CT and PET; raises Rejected with the study's fault.

    ``organs`` are label maps that lie on the CT.
    """
    study = reference.load()
    if registered and not study.drawn:
        study, _ = registered_study(study)
    once = Once(segmenter, study.ct)
    if organs is None:
        return Loaded(reference, study, once)
    return Loaded(reference, study, once, organs.of(reference.name), organs.names)


def judge(loaded: Loaded, package: ModelPackage, options: PipelineOptions) -> Case:
    """Translate the CT with a model, as in service, and put the result beside the real PET.

    Raises Rejected as ``translate_ct`` does, and where the PET shows nothing of the body or is not in SUV.
    """
    return beside(loaded, translate_ct(loaded.study.ct, package, loaded.segmenter, options), package)


def beside(loaded: Loaded, made: SyntheticPet, package: ModelPackage) -> Case:
    """A translation of the study beside its real PET; Rejected where that shows no body, or not in SUV."""
    study = loaded.study
    real, labels = _real(made, study.pet)
    lesions = None
    if study.lesions is not None:
        lesions = resample_labels(study.lesions, study.pet.geometry, made.suv.geometry)
    return Case(
        study=loaded.reference.name,
        patient=loaded.reference.patient,
        diagnosis=loaded.reference.diagnosis,
        real=real,
        synthetic=made.suv.array,
        labels=labels,
        lesions=lesions,
        geometry=made.suv.geometry,
        plan=package.plan,
        native=_native(made.suv, study),
        organs=None if loaded.organs is None else _measured(resample_labels(*loaded.organs, made.suv.geometry), labels),
        organ_names=loaded.organ_names,
    )


def _measured(organs: LabelArray, labels: LabelArray) -> LabelArray:
    """Organs where the real PET has a value and the CT shows a body."""
    return np.where(labels > 0, organs, np.uint8(0))


def _real(made: SyntheticPet, pet: Volume) -> tuple[FloatArray, LabelArray]:
    """The real PET on the synthetic one's grid, and the districts where it has a value."""
    real = resample(pet, made.suv.geometry, outside=float("nan")).array
    measured = np.isfinite(real)
    labels = np.where(measured, made.districts, np.uint8(0))
    if not labels.any():
        raise Rejected("The PET shows nothing of the body that the CT shows: check that both are of one examination.")
    check_uptake(real[labels > 0])
    return np.where(measured, real, np.float32(0.0)), labels


def _native(made: Volume, study: Study) -> Native:
    synthetic = resample(made, study.pet.geometry, outside=0.0).array
    return Native(study.pet.array, synthetic, study.lesions, study.pet.geometry)
