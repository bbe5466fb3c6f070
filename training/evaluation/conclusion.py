"""What an evaluation ends in: metrics.parquet, tables.md, tables.csv and, from the same numbers, report.html."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Final

from training.evaluation.evaluate import Judged, Outcome, Question
from training.evaluation.figures import Picture, bland_altman, draw_joint_histograms, forest, png
from training.evaluation.measure import DEFINITIONS
from training.evaluation.pictures import Pictures
from training.evaluation.report import ReportContent, write_report
from training.evaluation.rows_table import FILE, table_of, write_table
from training.evaluation.statistics import Comparison, Scores, family
from training.evaluation.tables import (
    Table,
    beyond_table,
    comparison_table,
    comparisons,
    paper_tables,
    summary_sentences,
    write_tables,
)

REPORT: Final = "report.html"
PHANTOMS: Final = "phantoms"


def conclude(question: Question, outcome: Outcome, dataset: str) -> None:
    """Write everything into the question's folder; ``dataset`` is its name. Raises Transient where the disk fails."""
    table = table_of(outcome.rows)
    write_table(table, question.out / FILE)
    scores, models = Scores(table), models_of(question)
    compared = comparisons(scores, models)
    tables: list[Table] = [
        *paper_tables(scores, models),
        beyond_table(scores, models),
        *(comparison_table(models[0], baseline, found) for baseline, found in compared.items()),
    ]
    write_tables(question.out, tables, scores, models, compared)
    pictures = Pictures(question)
    content = ReportContent(
        title=f"Evaluation of {models[0]} on {dataset}",
        facts=_facts(question, outcome, dataset),
        summary=summary_sentences(models[0], compared) or ["The model was not compared with another one."],
        tables=tables,
        figures=list(_figures(scores, models[0], compared, pictures)),
        studies=pictures.drawn(),
        refused=[(one.study, one.reason) for one in outcome.refused],
        definitions=DEFINITIONS,
        phantoms_only=any(_knows(model).startswith(PHANTOMS) for model in question.models),
    )
    write_report(content, question.out / REPORT)


def models_of(question: Question) -> Sequence[str]:
    """The models by name, seeds of one taken together, in the order in which they were given."""
    return list(dict.fromkeys(family(model.name) for model in question.models))


def _facts(question: Question, outcome: Outcome, dataset: str) -> list[tuple[str, str]]:
    plan = question.models[0].package.plan
    d, h, w = plan.spacing_mm
    return [
        *((f"Model {model.name}", _described(model)) for model in question.models),
        ("Dataset", dataset),
        ("Studies judged", str(outcome.studies)),
        ("Patients", str(outcome.patients)),
        ("Studies left out", str(len(outcome.refused))),
        ("Plan", f"{d:g} x {h:g} x {w:g} mm, SUV 0 to {plan.suv_max:g}, {plan.plan_hash[:12]}"),
        ("Districts by", f"{question.segmenter.name} {question.segmenter.segmenter_hash[:12]}"),
        ("Registration", "PET moved onto its CT" if question.registered else "none, as the images lie"),
        ("Software", f"twin-scanner {version('twin-scanner')}"),
    ]


def _described(model: Judged) -> str:
    card = model.package.card
    return f"{model.package.model_hash[:12]}; learnt from: {_knows(model)}. {card.get('intended_use', '')}".strip()


def _knows(model: Judged) -> str:
    """What a model's card says that it learnt from."""
    data = model.package.card.get("training_data") or {}
    return f"{data.get('kind', 'not stated')}, {data.get('pairs', '?')} pairs" if data else "not stated"


def _figures(
    scores: Scores, model: str, compared: Mapping[str, Sequence[Comparison]], pictures: Pictures
) -> Iterator[Picture]:
    """Those of all studies together; each only where there is something to draw."""
    differences = forest(compared, model)
    if differences is not None:
        yield Picture(
            "Differences of the mean absolute error from each baseline, with 95 % intervals over patients.",
            f"A line a region: mean difference of {model} from its baselines, and its interval.",
            png(differences),
        )
    lesions = bland_altman(scores.table, model)
    if lesions is not None:
        yield Picture(
            f"SUVmax of lesions, {model} less real, against the mean of both; a patient has one marker.",
            "Scatter plot with bias and limits of agreement.",
            png(lesions),
        )
    for name in pictures.models:
        total, studies = pictures.histograms(name)
        if studies:
            yield Picture(
                f"How often a real SUV meets a synthetic one of {name}, by region; studies: {studies}.",
                "Joint histograms with the line of equality, counts in a logarithmic scale.",
                png(draw_joint_histograms(total, name, studies)),
            )
