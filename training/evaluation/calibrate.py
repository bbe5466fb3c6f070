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
    fit_calibration,
    patient_digest,
    sample_voxels,
)
from training.evaluation.case import BODY
from training.evaluation.evaluate import MEASURED, EvaluatedModel, EvaluationRequest, measured_file
from training.evaluation.evaluated_study import paired_case
from training.evaluation.score import EVERY_LABEL, score
from training.evaluation.tables import RESEARCH_ONLY
from twin_scanner.errors import Rejected, Transient
from twin_scanner.files.durable_file import write_durably, write_whole
from twin_scanner.files.writable import disk_fault
from twin_scanner.models.package import ModelPackage
from twin_scanner.progress import Progress
from twin_scanner.synthesis.calibration import FLIPS, Calibration, calibration_file, write_calibration
from twin_scanner.synthesis.pipeline import translate_ct
from twin_scanner.synthesis.uncertainty import raw_deviation

PAGE: Final = "calibration.md"
ARRAYS: Final = ("predicted", "real", "raw", "weight")
ERROR: Final = "body_error_suv"


def calibrate(request: EvaluationRequest, store: Path, progress: Progress | None = None) -> Calibration:
    """Calibrate the request's first model: its file in the model store ``store``, and a page of the coverage.

    Patients are halved by a hash of their pseudonym: one half calibrates, the other says how often the intervals hold.
    Each study is sampled once; a run that was interrupted goes on. A study that cannot be evaluated is passed over.
    ``progress`` receives (studies done, in all). Raises Rejected where too few patients are left, Transient where the
    disk fails.
    """
    model, samples = request.models[0], []
    try:
        (request.out / MEASURED).mkdir(parents=True, exist_ok=True)
        for done, reference in enumerate(request.studies, start=1):
            try:
                samples.append(_sample(request, model, reference))
            except Rejected:
                continue
            finally:
                if progress is not None:
                    progress(done, len(request.studies))
        fitted, checked = halves(samples, model.package)
        calibration = fit_calibration(fitted, model.package, FLIPS)
        coverage = check_coverage(calibration, checked)
        write_durably(request.out / PAGE, _page(model.name, checked, coverage_table(coverage)).encode())
        calibration = replace(calibration, coverage=coverage)
        write_calibration(calibration_file(store, model.package.model_hash), calibration)
    except OSError as error:
        raise disk_fault(request.out, error) from error
    except KeyboardInterrupt as stop:
        raise Transient(
            f"The calibration was stopped: {request.out} keeps the samples of {len(samples)} of {len(request.studies)} "
            "studies; run it again to go on."
        ) from stop
    return calibration


def halves(samples: Sequence[Sample], package: ModelPackage) -> tuple[list[Sample], list[Sample]]:
    """The samples of two halves of the patients, always the same ones; the first half may hold one patient more."""
    patients = sorted({sample.patient for sample in samples}, key=lambda name: patient_digest(package.model_hash, name))
    first = set(patients[::2])
    return [one for one in samples if one.patient in first], [one for one in samples if one.patient not in first]


def _page(model: str, checked: Sequence[Sample], table: str) -> str:
    errors = [one.body_error_suv for one in checked if one.body_error_suv is not None]
    error = f"Mean absolute error in the body, on the model's own grid: SUV {np.mean(errors):.3f}."
    title = f"# Coverage of {model}'s intervals, on {len(checked)} studies"
    return "\n\n".join([title, RESEARCH_ONLY, error, table])


def _sample(request: EvaluationRequest, model: EvaluatedModel, reference: StudyReference) -> Sample:
    """A study's sample, from its file where it was sampled before; on the model's grid, where intervals are stated."""
    file = measured_file(request, reference, model, FLIPS.name).with_suffix(".npz")
    if file.is_file():
        with np.load(file, allow_pickle=False) as kept:
            arrays, error = {name: kept[name] for name in ARRAYS}, float(kept[ERROR])
        names = (reference.name, reference.patient, reference.diagnosis)
        return Sample(*names, suv_max=model.package.plan.suv_max, **arrays, body_error_suv=error)
    loaded = request.load(reference)
    # Intervals are stated for the package's own stitching, whatever else is evaluated.
    options = replace(request.options, stitching="package")
    synthetic = translate_ct(loaded.study.ct, model.package, loaded.segmenter, options)
    raw = raw_deviation(synthetic.ct, synthetic.districts, synthetic.suv, model.package, stitching=synthetic.stitching)
    case = paired_case(loaded, synthetic, model.package, synthetic.suv.geometry)
    (body,) = score(case, model.name, metrics="mae_suv", regions={BODY: EVERY_LABEL})
    sample = replace(sample_voxels(case, raw, model.package), body_error_suv=body.value)
    content = {**{name: getattr(sample, name) for name in ARRAYS}, ERROR: np.float64(body.value)}
    write_whole(file, lambda stream: np.savez(stream, **content))  # type: ignore[arg-type]
    return sample
