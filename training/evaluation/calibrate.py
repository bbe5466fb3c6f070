"""A model's uncertainty calibrated on half of an evaluation's patients and checked on the other half."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from training.data.study import StudyReference
from training.evaluation.calibration import (
    Sample,
    check_coverage,
    coverage_table,
    draw_sample,
    fit_calibration,
    patient_digest,
)
from training.evaluation.evaluate import MEASURED, Judged, Question, measured_file
from training.evaluation.evaluated_study import beside
from training.evaluation.tables import RESEARCH_ONLY
from twin_scanner.errors import Rejected, Transient
from twin_scanner.files.durable_file import write_durably, write_whole
from twin_scanner.models.package import ModelPackage
from twin_scanner.progress import Progress
from twin_scanner.synthesis.pipeline import translate_ct
from twin_scanner.synthesis.uncertainty import FLIPS, Calibration, calibration_file, raw_deviation, write_calibration

PAGE: Final = "calibration.md"
ARRAYS: Final = ("predicted", "real", "raw", "weight")


def calibrate(question: Question, store: Path, progress: Progress | None = None) -> Calibration:
    """Calibrate the question's first model: its file in the model store ``store``, and a page of the coverage.

    Patients are halved by a hash of their pseudonym: one half calibrates, the other says how often the intervals hold.
    Each study is sampled once; a run that was interrupted goes on. A study that cannot be judged is passed over.
    ``progress`` receives (studies done, in all). Raises Rejected where too few patients are left, Transient where the
    disk fails.
    """
    model, samples = question.models[0], []
    try:
        (question.out / MEASURED).mkdir(parents=True, exist_ok=True)
        for done, reference in enumerate(question.studies, start=1):
            try:
                samples.append(_sample(question, model, reference))
            except Rejected:
                continue
            finally:
                if progress is not None:
                    progress(done, len(question.studies))
        fitted, checked = halves(samples, model.package)
        calibration = fit_calibration(fitted, model.package, FLIPS)
        coverage = check_coverage(calibration, checked)
        title = f"# Coverage of {model.name}'s intervals, on {len(checked)} studies"
        page = f"{title}\n\n{RESEARCH_ONLY}\n\n{coverage_table(coverage)}"
        write_durably(question.out / PAGE, page.encode())
        calibration = replace(calibration, coverage=coverage)
        write_calibration(calibration_file(store, model.package.model_hash), calibration)
    except OSError as error:
        raise Transient(f"The calibration cannot be written to {question.out}: check free space and rights.") from error
    return calibration


def halves(samples: Sequence[Sample], package: ModelPackage) -> tuple[list[Sample], list[Sample]]:
    """The samples of two halves of the patients, always the same ones; the first half may hold one patient more."""
    patients = sorted({sample.patient for sample in samples}, key=lambda name: patient_digest(package.model_hash, name))
    first = set(patients[::2])
    return [one for one in samples if one.patient in first], [one for one in samples if one.patient not in first]


def _sample(question: Question, model: Judged, reference: StudyReference) -> Sample:
    """A study's sample, from its file where it was drawn before."""
    file = measured_file(question, reference, model, FLIPS.name).with_suffix(".npz")
    if file.is_file():
        with np.load(file, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in ARRAYS}
        names = (reference.name, reference.patient, reference.diagnosis)
        return Sample(*names, suv_max=model.package.plan.suv_max, **arrays)
    loaded = question.load(reference)
    made = translate_ct(loaded.study.ct, model.package, loaded.segmenter, question.options)
    raw = raw_deviation(made.ct, made.districts, made.suv, model.package)
    sample = draw_sample(beside(loaded, made, model.package), raw, model.package)
    write_whole(file, lambda stream: np.savez(stream, **{name: getattr(sample, name) for name in ARRAYS}))
    return sample
