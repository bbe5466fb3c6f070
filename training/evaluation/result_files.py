"""What an evaluation ends in: metrics.parquet, tables, figures and, from the same numbers, report.html."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from training.evaluation.evaluate import EvaluatedModel, EvaluationRequest, EvaluationResult
from training.evaluation.figures import Picture, bland_altman, forest, plot_joint_histograms, svg
from training.evaluation.pictures import Pictures
from training.evaluation.report import ReportContent, write_report
from training.evaluation.rows_table import FILE, table_of, write_table
from training.evaluation.score import DEFINITIONS, GRID
from training.evaluation.sentences import number_sentences, organ_sentences, summary_sentences
from training.evaluation.statistics import Comparison, Scores, family
from training.evaluation.tables import (
    Table,
    beyond_table,
    comparison_table,
    comparisons,
    paper_tables,
    write_tables,
)
from twin_scanner.errors import Transient
from twin_scanner.files.durable_file import write_durably
from twin_scanner.progress import Progress

REPORT: Final = "report.html"
FIGURES: Final = "figures"
SVG: Final = "image/svg+xml"
PARTS: Final = 4


def write_results(
    request: EvaluationRequest, result: EvaluationResult, dataset: str, progress: Progress | None = None
) -> list[str]:
    """Write everything into the request's folder, and return the summary: sentences that begin with the numbers.

    ``dataset`` is the data set's name, ``progress`` receives (parts done, parts in all): the table of measurements, the
    tables, the figures and the report. Raises Transient where the disk fails.
    """
    report = progress or (lambda done, total: None)
    table = table_of(result.rows)
    write_table(table, request.out / FILE)
    report(1, PARTS)
    scores, models = Scores(table), models_of(request)
    compared = comparisons(scores, models)
    tables: list[Table] = [
        *paper_tables(scores, models),
        beyond_table(scores, models),
        *(comparison_table(models[0], baseline, found) for baseline, found in compared.items()),
    ]
    write_tables(request.out, tables, scores, models, compared)
    report(2, PARTS)
    pictures = Pictures(request)
    compared_in_words = summary_sentences(models[0], compared) or ["The model was not compared with another one."]
    summary = [*number_sentences(scores, models), *organ_sentences(scores, models), *compared_in_words]
    figures = dict(_figures(scores, models[0], compared, pictures))
    _write_figures(request.out / FIGURES, figures)
    report(3, PARTS)
    content = ReportContent(
        title=f"Evaluation of {models[0]} on {dataset}",
        facts=_facts(request, result, dataset),
        summary=summary,
        tables=tables,
        figures=list(figures.values()),
        studies=pictures.plotted(),
        refused=[(one.study, one.reason) for one in result.refused],
        definitions={"grid": GRID, **DEFINITIONS},
        phantoms_only=any(model.package.card.phantom_only for model in request.models),
    )
    write_report(content, request.out / REPORT)
    report(4, PARTS)
    return summary


def models_of(request: EvaluationRequest) -> Sequence[str]:
    """The models by name, seeds of one taken together, in the order in which they were given."""
    return list(dict.fromkeys(family(model.name) for model in request.models))


def _facts(request: EvaluationRequest, result: EvaluationResult, dataset: str) -> list[tuple[str, str]]:
    plan = request.models[0].package.plan
    d, h, w = plan.spacing_mm
    return [
        *((f"Model {model.name}", _described(model)) for model in request.models),
        ("Dataset", dataset),
        ("Studies evaluated", str(result.studies)),
        ("Patients", str(result.patients)),
        ("Studies left out", str(len(result.refused))),
        ("Scored on", "the real PET's own grid, the same voxels for every model"),
        (
            f"Plan of {request.models[0].name}",
            f"{d:g} x {h:g} x {w:g} mm, SUV 0 to {plan.suv_max:g}, {plan.plan_hash[:12]}",
        ),
        ("Districts by", f"{request.segmenter.name} {request.segmenter.segmenter_hash[:12]}"),
        ("Registration", "PET moved onto its CT" if request.registered else "none, as the images lie"),
        ("Software", f"twin-scanner {version('twin-scanner')}"),
    ]


def _described(model: EvaluatedModel) -> str:
    card = model.package.card
    return f"{model.package.model_hash[:12]}; trained on: {_training_data(model)}. {card.intended_use}".strip()


def _training_data(model: EvaluatedModel) -> str:
    """What a model's card says that it was trained on."""
    data = model.package.card.training_data
    if not data:
        return "not stated"
    some = f", {data['phantoms']} of them phantoms" if data.get("phantoms") else ""
    phantoms = ", phantoms only" if model.package.card.phantom_only else some
    return f"{data.get('kind', 'not stated')}, {data.get('pairs', '?')} pairs{phantoms}"


def _figures(
    scores: Scores, model: str, compared: Mapping[str, Sequence[Comparison]], pictures: Pictures
) -> Iterator[tuple[str, Picture]]:
    """Those of all studies together, by the file's name; each only where there is something to plot."""
    differences = forest(compared, model)
    if differences is not None:
        yield (
            "differences.svg",
            Picture(
                "Differences of the mean absolute error from each baseline, with 95 % intervals over patients.",
                f"A line a region: mean difference of {model} from its baselines, and its interval.",
                svg(differences),
                SVG,
            ),
        )
    lesions = bland_altman(scores.table, model)
    if lesions is not None:
        yield (
            "lesion-suvmax.svg",
            Picture(
                f"SUVmax of lesions, {model} less real, against the mean of both; a patient has one marker.",
                "Scatter plot with bias and limits of agreement.",
                svg(lesions),
                SVG,
            ),
        )
    for number, name in enumerate(pictures.models, 1):
        total, studies = pictures.histograms(name)
        if studies:
            yield (
                f"joint-histogram-{number}.svg",
                Picture(
                    f"How often a real SUV meets a synthetic one of {name}, by region; studies: {studies}.",
                    "Joint histograms with the line of equality, counts in a logarithmic scale.",
                    svg(plot_joint_histograms(total, name, studies)),
                    SVG,
                ),
            )


def _write_figures(folder: Path, figures: Mapping[str, Picture]) -> None:
    """Each as a file; those of an earlier run that are no longer plotted go."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in figures.items():
            write_durably(folder / name, picture.image)
        for old in folder.glob("*.svg"):
            if old.name not in figures:
                old.unlink()
    except OSError as error:
        raise Transient(f"The figures cannot be written to {folder}: check free space and rights.") from error
