"""The paper's tables I to III, the numbers beyond them, and the comparison with each baseline, as Markdown and CSV."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import pandas as pd

from training.evaluation import published
from training.evaluation.case import BODY, LESION
from training.evaluation.statistics import LEAST_PATIENTS, Comparison, Scores, Summary, compare, summary
from twin_scanner.errors import Transient
from twin_scanner.files.durable_file import write_durably
from twin_scanner.imaging.district_labels import DISTRICT_NAMES

RESEARCH_ONLY: Final = "Research only. The PET is synthetic and not for diagnosis."
"""Begins everything that is written to be read."""
REGIONS: Final = (*DISTRICT_NAMES.values(), BODY)
NAMES: Final = {
    "mae": "MAE ↓", "mae_suv": "MAE, SUV ↓", "psnr": "PSNR, dB ↑", "ssim": "SSIM ↑", "ms_ssim": "MS-SSIM ↑",
    "nrmse": "NRMSE ↓", "suv_mean_bias": "SUVmean bias", "suv_max_bias": "SUVmax bias",
    "suv_peak_bias": "SUVpeak bias", "tlg_bias": "TLG bias, g", "detection_recall": "lesion recall, SUV 4 ↑",
    "detection_recall_41": "lesion recall, 41 % of own SUVmax ↑",
    "false_positives": "false positives per study ↓", "false_uptake_ml": "false uptake in negatives, ml ↓",
    "lesions_above_suv20": "lesions above SUV 20, per study", "seam_excess": "seam, SUV (0 is none)",
    "hot_ratio": "synthesised / real mean above SUV 4 (1 is right)",
    "suv_mean_ratio": "synthesised / real mean (1 is right)", "window_edge": "step at window edges, SUV",
    "window_elsewhere": "step elsewhere, SUV", "window_edge_ratio": "window edges, step there / elsewhere (1 is none)",
    "spacing_d": "slice distance, mm", "spacing_h": "row distance, mm", "spacing_w": "column distance, mm",
    "volume_41_real": "41 % volume, real, ml", "volume_41_synthetic": "41 % volume, synthetic, ml",
}  # fmt: skip
LABELS: Final = {
    "body": "Whole body", "lesion": "Lesions", "LYMPHOMA": "Lymphoma", "LUNG_CANCER": "Lung cancer (NSCLC)",
    "MELANOMA": "Melanoma", "NEGATIVE": "Negative controls",
}  # fmt: skip
ABOVE: Final = "lesions_above_suv20"
DECIMALS: Final = {
    "mae": 4,
    "mae_suv": 3,
    "psnr": 2,
    "ssim": 3,
    "ms_ssim": 3,
    "nrmse": 3,
    "hot_ratio": 2,
    "suv_mean_ratio": 2,
    "window_edge_ratio": 2,
}
"""How many decimals are shown; other metrics have three digits that count. tables.csv has everything."""
BEYOND: Final = (
    *((region, "hot_ratio") for region in (*REGIONS, LESION)),
    *((region, "mae_suv") for region in (*REGIONS, LESION)), *((region, "nrmse") for region in REGIONS),
    (BODY, "ms_ssim"), *((LESION, metric) for metric in ("suv_mean_bias", "suv_max_bias", "suv_peak_bias", "tlg_bias")),
    (LESION, "volume_41_real"), (LESION, "volume_41_synthetic"), (LESION, "detection_recall"),
    (LESION, "detection_recall_41"), (LESION, ABOVE), (BODY, "false_positives"),
    (BODY, "false_uptake_ml"), (BODY, "seam_excess"), (BODY, "window_edge_ratio"),
)  # fmt: skip
COMPARED: Final = (
    *((region, metric) for region in (*REGIONS, LESION) for metric in published.METRICS), (BODY, "ms_ssim"),
    (LESION, "detection_recall"), (BODY, "false_positives"),
)  # fmt: skip
TOO_NARROW: Final = (
    "With few patients the intervals are too narrow: in simulations they held the truth in 81 % of cases at 5 "
    "patients, 88 % at 15 and 93 % at 50."
)


@dataclass(frozen=True)
class Table:
    """A table to show: cells are text; ``note`` says how it is to be read."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def paper_tables(scores: Scores, models: Sequence[str]) -> list[Table]:
    """Tables I (districts and body), II (lesions) and III (body by diagnosis) of some models, the published beside."""
    spread = (
        "Mean ± SD over studies (SE over patients), seeds averaged first; MAE, PSNR and SSIM in model space (1 is SUV "
        "20), inside the region. n: studies / patients / seeds. "
        f"{grid_sentence(scores)}"
    )
    found = [
        Table(title, header, tuple(rows), f"{spread} {published.NOTE}")
        for title, header, rows in (
            _paper_table("Table I: districts and whole body", "District", scores, models, published.DISTRICTS, {}),
            _paper_table("Table II: lesions", "Region", scores, models, published.LESIONS, {}),
            _paper_table(
                "Table III: whole body by diagnosis", "Diagnosis", scores, models, published.DIAGNOSES,
                dict.fromkeys(published.DIAGNOSES, BODY),
            ),
        )
    ]  # fmt: skip
    return [one for one in found if one.rows]


def grid_sentence(scores: Scores) -> str:
    """On what voxels the scores are, and what SSIM makes of that."""
    spacing = [scores.table[scores.table["metric"] == f"spacing_{axis}"] for axis in "dhw"]
    studies = pd.concat([one.groupby("study")["value"].first() for one in spacing], axis=1)
    found = Counter(" x ".join(f"{mm:.4g}" for mm in row) for row in studies.itertuples(index=False))
    grids = ", ".join(f"{grid} mm ({counted(n, 'study', 'studies')})" for grid, n in sorted(found.items()))
    return (
        f"Scored on the real PET's own grid{': ' if grids else ''}{grids}. SSIM's windows are 11 voxels wide, so one "
        "and the same PET has another SSIM on another grid, and a smooth one that lacks organs may have a high one: "
        "compare SSIM on one grid alone, and read it beside the mean above SUV 4 and the organs."
    )


def beyond_table(scores: Scores, models: Sequence[str]) -> Table:
    """What the paper does not report, with 95 % intervals by patient."""
    organs = sorted({region for region in scores.table["region"].unique() if region.startswith("organ:")})
    lines = [*BEYOND, *((organ, metric) for organ in organs for metric in ("suv_mean_ratio", "suv_mean_bias"))]
    rows = []
    for region, metric in lines:
        found = [summary(scores, model, region, metric) for model in models]
        if any(found):
            rows.append((label(region), NAMES.get(metric, metric), *(_with_bounds(one, metric) for one in found)))
        if metric == ABOVE and any(found):
            rows.append((label(region), "lesions above SUV 20, in all", *(_above(scores, model) for model in models)))
    note = (
        "Mean [95 % interval: bootstrap that draws patients with all their studies and lesions], n: lesions or studies "
        f"/ patients. No interval below {LEAST_PATIENTS} patients. {TOO_NARROW} Bias is synthetic minus real. "
        f"{grid_sentence(scores)}"
    )
    return Table("Beyond the paper", ("Region", "Metric", *models), tuple(rows), note)


def comparisons(scores: Scores, models: Sequence[str]) -> dict[str, list[Comparison]]:
    """The first model against each of the others, by the other's name."""
    return {baseline: compare(scores, models[0], baseline, COMPARED) for baseline in models[1:]}


def comparison_table(model: str, baseline: str, found: Sequence[Comparison]) -> Table:
    """One comparison as a table."""
    rows = tuple(_comparison_cells(one) for one in found)
    tested = (sum(one.t_p is not None for one in found), sum(one.wilcoxon_p is not None for one in found))
    note = (
        f"Difference: {model} less {baseline}, on the studies that both were scored on; the interval draws patients. "
        f"{TOO_NARROW} t: paired two-tailed t-test as in the paper, over patients; Wilcoxon: signed ranks over "
        "patients; Holm: adjusted for all tested lines of this table, all districts and metrics together "
        f"({tested[0]} by t, {tested[1]} by Wilcoxon). n: studies / patients; below {LEAST_PATIENTS} patients nothing "
        f"is tested. {_left_out(found)}"
    )
    header = (
        "Region", "Metric", model, baseline, "Difference", "95 % interval", "t: p", "t: Holm", "Wilcoxon: p",
        "Wilcoxon: Holm", "n",
    )  # fmt: skip
    return Table(f"{model} against {baseline}", header, rows, note)


def comparison_lines(model: str, compared: Mapping[str, Sequence[Comparison]]) -> pd.DataFrame:
    """Every comparison in full, a line each: ``model`` and the fields of Comparison, as a forest plot needs them."""
    columns = ["model", *(field.name for field in fields(Comparison))]
    return pd.DataFrame([{"model": model} | vars(one) for found in compared.values() for one in found], columns=columns)


def counted(number: int, one: str, several: str) -> str:
    """A number and what it counts."""
    return f"{number} {one if number == 1 else several}"


def write_tables(
    folder: Path,
    tables: Sequence[Table],
    scores: Scores,
    models: Sequence[str],
    compared: Mapping[str, Sequence[Comparison]] | None = None,
) -> None:
    """``tables.md`` for readers, ``tables.csv`` with every mean in full; ``comparisons.csv`` where some were compared.

    Raises Transient where the disk fails.
    """
    lines = {"tables.csv": _csv(scores, models)}
    if compared:
        lines["comparisons.csv"] = comparison_lines(models[0], compared)
    try:
        text = "\n\n".join([RESEARCH_ONLY, *map(_markdown, tables)])
        write_durably(folder / "tables.md", f"{text}\n".encode())
        for name, content in lines.items():
            write_durably(folder / name, content.to_csv(index=False).encode())
    except OSError as error:
        raise Transient(f"The tables cannot be written to {folder}: check free space and rights.") from error


def _left_out(found: Sequence[Comparison]) -> str:
    missing = [f"{label(one.region)}, {NAMES[one.metric]}: {one.left_out}" for one in found if one.left_out]
    if not missing:
        return "Both were scored on the same studies."
    return f"Studies left out because one model alone has a number there: {'; '.join(missing)}."


def _comparison_cells(one: Comparison) -> tuple[str, ...]:
    values = (_number(value, one.metric) for value in (one.model_mean, one.baseline_mean, one.difference))
    chances = (_p(value) for value in (one.t_p, one.t_holm, one.wilcoxon_p, one.wilcoxon_holm))
    bounds, n = _bounds(one.low, one.high, one.metric), f"{one.studies} / {one.patients}"
    return (label(one.region), NAMES[one.metric], *values, bounds, *chances, n)


def _paper_table(
    title: str,
    what: str,
    scores: Scores,
    models: Sequence[str],
    known: Mapping[str, tuple[tuple[str, ...], ...]],
    region_of: Mapping[str, str],
) -> tuple[str, tuple[str, ...], Iterable[tuple[str, ...]]]:
    header = (what, "Metric", *models, *(f"published: {column}" for column in published.COLUMNS))
    rows = []
    for name, theirs in known.items():
        for metric, printed in zip(published.METRICS, theirs, strict=True):
            diagnosis = name if name in region_of else None
            found = [summary(scores, model, region_of.get(name, name), metric, diagnosis) for model in models]
            if any(found):
                rows.append((label(name), NAMES[metric], *(_with_spread(one, metric) for one in found), *printed))
    return title, header, rows


def _csv(scores: Scores, models: Sequence[str]) -> pd.DataFrame:
    """Every (model, region, metric) with each field of its Summary, and by diagnosis for the body."""
    lines = []
    table = scores.table
    pairs = table[["region", "metric"]].drop_duplicates().sort_values(["region", "metric"])
    diagnoses = sorted(set(table["diagnosis"]) - {""})
    for model in models:
        for region, metric in pairs.itertuples(index=False):
            for diagnosis in (None, *(diagnoses if region == BODY else ())):
                found = summary(scores, model, region, metric, diagnosis)
                if found is not None:
                    lines.append(
                        {"model": model, "region": region, "metric": metric, "diagnosis": diagnosis or ""} | vars(found)
                    )
    return pd.DataFrame(lines)


def _markdown(table: Table) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    body: Iterator[str] = map(line, table.rows)
    rule = line("---" for _ in table.header)
    return "\n".join([f"## {table.title}", "", line(table.header), rule, *body, "", table.note]).rstrip()


def label(name: str) -> str:
    """What a region, an organ or a diagnosis is called in tables and sentences."""
    return LABELS.get(name, name.removeprefix("organ:").replace("_", " ").capitalize())


def _number(value: float | None, metric: str) -> str:
    if value is None:
        return "–"
    return f"{value:.{DECIMALS[metric]}f}" if metric in DECIMALS else f"{value:.3g}"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _bounds(low: float | None, high: float | None, metric: str) -> str:
    return "–" if low is None or high is None else f"{_number(low, metric)} to {_number(high, metric)}"


def _above(scores: Scores, model: str) -> str:
    """How many of all scored lesions, studies together: what the voxel metrics see clipped."""
    above, lesions = scores.averaged(model, LESION, ABOVE), scores.averaged(model, LESION, "suv_max_real")
    return "–" if above.empty else f"{round(above['value'].sum())} of {len(lesions)}"


def _with_spread(found: Summary | None, metric: str) -> str:
    if found is None:
        return "–"
    spread = "" if found.sd is None else f" ± {_number(found.sd, metric)}"
    error = "" if found.se is None else f" (SE {_number(found.se, metric)})"
    return f"{_number(found.mean, metric)}{spread}{error}, n {found.studies} / {found.patients} / {found.seeds}"


def _with_bounds(found: Summary | None, metric: str) -> str:
    if found is None:
        return "–"
    bounds = "" if found.low is None else f" [{_bounds(found.low, found.high, metric)}]"
    return f"{_number(found.mean, metric)}{bounds}, n {found.items} / {found.patients}"
