"""What an evaluation found, in words: the numbers first, then which organs are found and which model is better."""

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from training.evaluation.case import BODY, LESION
from training.evaluation.statistics import LEAST_PATIENTS, Comparison, Scores, summary
from training.evaluation.tables import DECIMALS, REGIONS, counted, label
from twin_scanner.imaging.district_labels import DISTRICT_NAMES

IN_WORDS: Final = {
    "mae": "mean absolute error", "psnr": "PSNR", "ssim": "SSIM", "ms_ssim": "MS-SSIM",
    "detection_recall": "lesion recall", "false_positives": "number of false positives",
}  # fmt: skip
HEADLINE: Final = (
    (BODY, "psnr", "PSNR", " dB"), (BODY, "ssim", "SSIM", ""), (LESION, "detection_recall", "lesion recall", ""),
)  # fmt: skip
"""What follows the error in the sentence that begins a summary."""
LOWER_IS_BETTER: Final = frozenset({"mae", "false_positives"})
KEY_ORGANS: Final[Mapping[str, frozenset[str]]] = MappingProxyType({
    "brain": frozenset({"brain"}), "heart": frozenset({"heart", "myocardium"}), "liver": frozenset({"liver"}),
    "kidneys": frozenset({"kidneys", "kidney"}), "bladder": frozenset({"bladder"}),
})  # fmt: skip
"""What every FDG-PET shows, and the words that name a mask of it."""
FOUND_FROM: Final = 0.5
"""Synthesised over real mean of an organ that counts as found."""


def number_sentences(scores: Scores, models: Sequence[str]) -> list[str]:
    """Each model's figures in one sentence: the error in SUV by region, PSNR, SSIM and lesion recall, and their n."""
    return [sentence for model in models if (sentence := _numbers(scores, model))]


def organ_sentences(scores: Scores, models: Sequence[str]) -> list[str]:
    """For each model the mean above SUV 4 by region, and which of KEY_ORGANS are found; that it cannot be said without
    organ masks."""
    return [
        sentence for model in models for sentence in (_hot_in_words(scores, model), _organs_in_words(scores, model))
    ]


def summary_sentences(model: str, found: Mapping[str, Sequence[Comparison]], level: float = 0.05) -> list[str]:
    """In words where which model is better, where that is not shown and where there are too few patients to test.

    A difference is shown where both adjusted p-values are below ``level`` and the interval lies on its side of 0; there
    is no clinical claim in it, and the last sentence says so. Empty where nothing was compared.
    """
    said = [
        sentence for baseline, lines in found.items() for sentence in _compared_in_words(model, baseline, lines, level)
    ]
    return [*said, "These are differences of measured numbers; nothing clinical follows from them."] if said else []


def _numbers(scores: Scores, model: str) -> str:
    body = summary(scores, model, BODY, "mae_suv")
    if body is None:
        return ""
    means = {region: summary(scores, model, region, "mae_suv") for region in (*DISTRICT_NAMES.values(), LESION)}
    regions = ", ".join(f"{label(region).lower()} {one.mean:.3f}" for region, one in means.items() if one is not None)
    others = [
        f"{what} {one.mean:.{DECIMALS.get(metric, 2)}f}{unit}"
        for region, metric, what, unit in HEADLINE
        if (one := summary(scores, model, region, metric)) is not None
    ]
    studies = f"{counted(body.studies, 'study', 'studies')} of {counted(body.patients, 'patient', 'patients')}"
    error = f"mean absolute error SUV {body.mean:.3f} in the whole body"
    return f"{model}: {error} ({regions}), {', '.join(others)}; {studies}."


def _hot_in_words(scores: Scores, model: str) -> str:
    found = {region: summary(scores, model, region, "hot_ratio") for region in REGIONS}
    shown = ", ".join(f"{label(region).lower()} {one.mean:.2f}" for region, one in found.items() if one is not None)
    return f"{model}: synthesised / real mean above SUV 4 (1 is right): {shown or 'no real voxel is above SUV 4'}."


def _organs_in_words(scores: Scores, model: str) -> str:
    regions = {region for region in scores.table["region"].unique() if region.startswith("organ:")}
    if not regions:
        return (
            f"{model}: without organ masks it cannot be said whether {_listed(tuple(KEY_ORGANS))} are found: give them "
            "with --organs."
        )
    ratios = {organ: _ratio(scores, model, [r for r in regions if _is_of(r, organ)]) for organ in KEY_ORGANS}
    known = {organ: ratio for organ, ratio in ratios.items() if ratio is not None}
    groups = (
        ("found", [f"{organ} {ratio:.2f}" for organ, ratio in known.items() if ratio >= FOUND_FROM]),
        ("not found", [f"{organ} {ratio:.2f}" for organ, ratio in known.items() if ratio < FOUND_FROM]),
        ("without a mask", [organ for organ in KEY_ORGANS if organ not in known]),
    )
    said = "; ".join(f"{what}: {', '.join(organs)}" for what, organs in groups if organs)
    return f"{model}: an organ is found where its synthesised mean is at least half of the real one; {said}."


def _ratio(scores: Scores, model: str, regions: Sequence[str]) -> float | None:
    """The mean over the parts of an organ, such as both kidneys."""
    found = [one.mean for region in regions if (one := summary(scores, model, region, "suv_mean_ratio")) is not None]
    return sum(found) / len(found) if found else None


def _is_of(region: str, organ: str) -> bool:
    """Whether the name of a mask (kidney_left, urinary bladder) is that of an organ or of a part of it."""
    words = set(re.split(r"[^a-z]+", region.removeprefix("organ:").lower()))
    return bool(words & KEY_ORGANS[organ]) and "gall" not in words


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _compared_in_words(model: str, baseline: str, lines: Sequence[Comparison], level: float) -> Iterator[str]:
    most = max((one.patients for one in lines), default=0)
    if 0 < most < LEAST_PATIENTS:
        few = counted(most, "patient is", "patients are")
        yield f"{few} too few to compare {model} with {baseline}: {LEAST_PATIENTS} are needed."
        return
    for metric in IN_WORDS:
        yield from _metric_in_words(model, baseline, metric, [one for one in lines if one.metric == metric], level)


def _metric_in_words(
    model: str, baseline: str, metric: str, lines: Sequence[Comparison], level: float
) -> Iterator[str]:
    what = IN_WORDS[metric]
    shown = [one for one in lines if _shown(one, level)]
    for verb, chosen in (
        ("lower", [one for one in shown if one.difference < 0]),
        ("higher", [one for one in shown if one.difference > 0]),
    ):
        judgement = "better" if (verb == "lower") == (metric in LOWER_IS_BETTER) else "worse"
        if chosen:
            yield f"{model} has a {verb} ({judgement}) {what} than {baseline} in: {_places(chosen)}."
    rest = [one for one in lines if one.patients >= LEAST_PATIENTS and not _shown(one, level)]
    if rest:
        yield f"No difference of {model} from {baseline} in {what} is shown in: {_places(rest)}."
    few = [one for one in lines if one.patients < LEAST_PATIENTS]
    if few:
        yield f"Too few patients to compare {model} with {baseline} in {what}: {_places(few)}."


def _places(lines: Sequence[Comparison]) -> str:
    return ", ".join(f"{label(one.region).lower()} (n {one.patients})" for one in lines)


def _shown(one: Comparison, level: float) -> bool:
    """The tests weigh patients equally, mean and interval weigh studies: both must say the same."""
    if one.t_holm is None or one.wilcoxon_holm is None or one.low is None or one.high is None:
        return False
    return max(one.t_holm, one.wilcoxon_holm) < level and (one.low > 0 or one.high < 0)
