"""A study that is evaluated: loaded, registered, translated from its full CT as in service, real beside synthetic."""

from dataclasses import dataclass, replace

import numpy as np

from training.data.prepare import check_uptake, registered_study
from training.data.study import StudyReference, TrainingStudy
from training.evaluation.case import Case, Translated
from training.evaluation.organs import OrganMaps
from training.phantom.organ_labels import ORGAN_NAMES
from twin_scanner.districts.district_map import DistrictMap, Segmenter
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import (
    FloatArray,
    Geometry,
    LabelArray,
    Volume,
    canonical_labels,
    resample,
    resample_labels,
)
from twin_scanner.models.package import ModelPackage
from twin_scanner.synthesis.pipeline import PipelineOptions, SyntheticPet, translate_ct


class SegmentedOnce:
    """A segmenter that segments one CT once, however many models are then evaluated on it."""

    def __init__(self, segmenter: Segmenter, ct: Volume) -> None:
        self.name = segmenter.name
        self.segmenter_hash = segmenter.segmenter_hash
        self._segmenter, self._ct = segmenter, ct
        self._districts: DistrictMap | None = None

    def segment(self, ct: Volume) -> DistrictMap:
        """The districts of the CT that was given at the start, segmented at the first call."""
        if ct is not self._ct:
            raise ValueError("this segmenter is for one CT")
        if self._districts is None:
            self._districts = self._segmenter.segment(ct)
        return self._districts


@dataclass(frozen=True, eq=False)
class Loaded:
    """A study ready for several models: the PET lies upright where the CT shows the same tissue."""

    reference: StudyReference
    study: TrainingStudy
    segmenter: SegmentedOnce
    organs: tuple[LabelArray, Geometry] | None = None
    organ_names: tuple[tuple[int, str], ...] = ()


def load(
    reference: StudyReference, segmenter: Segmenter, *, registered: bool = True, organs: OrganMaps | None = None
) -> Loaded:
    """Load a study and take back how the patient moved between CT and PET; raises Rejected with the study's fault.

    ``organs`` are label maps that lie on the CT; without them a phantom brings its own.
    """
    study = reference.load()
    if registered and not study.is_phantom:
        study, _ = registered_study(study)
    study = _upright(study)
    once = SegmentedOnce(segmenter, study.ct)
    if organs is None and study.organs is not None:
        return Loaded(reference, study, once, (study.organs, study.ct.geometry), ORGAN_NAMES)
    if organs is None:
        return Loaded(reference, study, once)
    return Loaded(reference, study, once, organs.of(reference.name), organs.names)


def evaluated_case(loaded: Loaded, package: ModelPackage, options: PipelineOptions) -> Case:
    """The study translated as in service, real beside synthetic on the real PET's own grid.

    Raises Rejected as ``translate_ct`` does, and where the PET shows nothing of the body or is not in SUV.
    """
    synthesised = translate_ct(loaded.study.ct, package, loaded.segmenter, options)
    return paired_case(loaded, synthesised, package, loaded.study.pet.geometry)


def paired_case(loaded: Loaded, synthesised: SyntheticPet, package: ModelPackage, grid: Geometry) -> Case:
    """A translation of the study beside its real PET, both on one grid.

    PETs are resampled linearly, as concentrations; districts, lesions and organs to the nearest neighbour, each from
    the grid that it was made on. Raises Rejected where the PET shows nothing of the body, or is not in SUV.
    """
    study, districts = loaded.study, synthesised.district_map
    real, synthetic = resample(study.pet, grid, outside=float("nan")).array, _synthetic_on(synthesised.suv, grid)
    labels, measured = resample_labels(districts.labels, districts.geometry, grid), np.isfinite(real)
    if not measured.all():
        labels = np.where(measured, labels, np.uint8(0))
        real, synthetic = (np.where(measured, image, np.float32(0.0)) for image in (real, synthetic))
    if not labels.any():
        raise Rejected("The PET shows nothing of the body that the CT shows: check that both are of one examination.")
    check_uptake(real[labels > 0])
    return Case(
        study=loaded.reference.name,
        patient=loaded.reference.patient,
        diagnosis=loaded.reference.diagnosis,
        real=real,
        synthetic=synthetic,
        labels=labels,
        lesions=None if study.lesions is None else resample_labels(study.lesions, study.pet.geometry, grid),
        geometry=grid,
        plan=package.plan,
        translated=study.ct.geometry,
        organs=_organs_on(loaded, labels, grid),
        organ_names=loaded.organ_names,
        as_translated=Translated(synthesised.suv.array, synthesised.districts),
    )


def _upright(study: TrainingStudy) -> TrainingStudy:
    """The same PET and lesions with D to the head, H to the back and W to the left; no resampling."""
    lesions = None if study.lesions is None else canonical_labels(study.lesions, study.pet.geometry)
    return replace(study, pet=study.pet.canonical(), lesions=lesions)


def _synthetic_on(synthesised: Volume, grid: Geometry) -> FloatArray:
    """The synthetic PET on a grid, 0 beyond the CT.

    A Plan's grid ends up to a quarter of a voxel before the CT does; its outermost voxels stand for that rim.
    """
    if synthesised.geometry.same_grid(grid):
        return synthesised.array
    size, geometry = [n + 2 for n in synthesised.geometry.shape], synthesised.geometry
    rimmed = replace(geometry, shape=(size[0], size[1], size[2]), origin_lps_mm=geometry.position_lps_mm((-1, -1, -1)))
    return resample(Volume(np.pad(synthesised.array, 1, mode="edge"), rimmed), grid, outside=0.0).array


def _organs_on(loaded: Loaded, labels: LabelArray, grid: Geometry) -> LabelArray | None:
    """Organs where the real PET has a value and the CT shows a body."""
    if loaded.organs is None:
        return None
    return np.where(labels > 0, resample_labels(*loaded.organs, grid), np.uint8(0))
