"""The phantoms that a configuration names, as pairs in memory: what a run without a training store is trained on."""

from collections.abc import Iterator
from functools import lru_cache

from training.data.pairs import Pair, landmarks, make_pair, phantom_truth
from training.data.study import TrainingStudy
from training.fit.config import DataConfig
from training.phantom.options import sample_options
from training.phantom.phantom import make_phantom
from twin_scanner.models.plan import Plan
from twin_scanner.progress import Progress


def make_pairs(config: DataConfig, plan: Plan, *, keep_air: bool, progress: Progress | None = None) -> list[Pair]:
    """A configuration's phantoms as pairs, the held-out ones last; ``progress`` receives (pairs made, pairs in all)."""
    segment = phantom_truth if config.segmenter == "truth" else landmarks
    pairs: list[Pair] = []
    for name, diagnosis, study in _phantoms(config, plan):
        pairs.append(make_pair(study, segment, plan, name=name, patient=name, diagnosis=diagnosis, keep_air=keep_air))
        if progress is not None:
            progress(len(pairs), config.count)
    return pairs


@lru_cache(maxsize=1)
def kept_pairs(config: DataConfig, plan: Plan, *, keep_air: bool) -> list[Pair]:
    """As ``make_pairs``, once for all networks of a grid that one process trains."""
    return make_pairs(config, plan, keep_air=keep_air)


def _phantoms(config: DataConfig, plan: Plan) -> Iterator[tuple[str, str, TrainingStudy]]:
    """Patients of all sizes, poses, fields of view and diagnoses, generated on the Plan's own spacing."""
    for seed in range(config.seed, config.seed + config.count):
        phantom = make_phantom(seed, sample_options(seed, world=config.world, spacing_mm=plan.spacing_mm))
        study = TrainingStudy(phantom.ct, phantom.pet, "phantom", phantom.lesions, phantom.districts)
        yield f"phantom-{seed}", phantom.diagnosis, study
