"""A model's errors on the gate's studies, translated as in service."""

from collections.abc import Mapping, Sequence

from training.data.pairs import Pair
from training.data.training_store import Entry
from training.evaluation.score import EVERY_LABEL, score
from training.fit.validation import translated_case
from training.retraining.gate import OVERALL, StudyScore
from twin_scanner.imaging.district_labels import DISTRICT_NAMES
from twin_scanner.models.package import ModelPackage
from twin_scanner.models.partition import Partition
from twin_scanner.progress import Progress


def gate_scores(
    package: ModelPackage,
    pairs: Sequence[Pair],
    regions: Mapping[str, tuple[int, ...]],
    progress: Progress | None = None,
    check_stop: Progress | None = None,
) -> list[StudyScore]:
    """Mean absolute errors in SUV of a model on each pair, translated as in service, on each region that is in view.

    ``regions`` names labels; the whole body is added. ``progress`` receives (studies done, studies in all).
    """
    scores = []
    for done, pair in enumerate(pairs):
        if progress is not None:
            progress(done, len(pairs))
        case = translated_case(pair, package, check_stop)
        rows = score(case, package.name, metrics="mae_suv", regions={OVERALL: EVERY_LABEL, **regions})
        scores.append(StudyScore(pair.name, pair.patient, {row.region: row.value for row in rows}))
    if progress is not None:
        progress(len(pairs), len(pairs))
    return scores


def gate_regions(partition: Partition) -> dict[str, tuple[int, ...]]:
    """The districts that a partition is scored on, one after the other: the body's four, or its own finer ones."""
    if partition.labels <= DISTRICT_NAMES.keys():
        return {
            name: (label,) for label, name in DISTRICT_NAMES.items() if label in (partition.labels or DISTRICT_NAMES)
        }
    return dict(partition.networks)


def required_regions(partition: Partition) -> tuple[str, ...]:
    """The districts that must be seen in the gate, whether or not one of its studies shows them."""
    return () if partition.whole_volume else tuple(gate_regions(partition))


def gate_patients(entries: Sequence[Entry], gate: Sequence[str], partition: Partition) -> dict[str, int]:
    """How many patients of the gate's studies show each region that the gate asks for, by the store's own counts."""
    found: dict[str, set[str]] = {name: set() for name in (OVERALL, *required_regions(partition))}
    for entry in entries:
        if entry.name not in gate:
            continue
        for name, covered in {OVERALL: EVERY_LABEL, **gate_regions(partition)}.items():
            if any(entry.voxels.get(label) for label in covered):
                found.setdefault(name, set()).add(entry.patient)
    return {name: len(patients) for name, patients in found.items()}
