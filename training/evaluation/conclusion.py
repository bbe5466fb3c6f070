"""What an evaluation ends in: metrics.parquet, tables.md, tables.csv and, from the same numbers, the report."""

from collections.abc import Sequence

from training.evaluation.evaluate import Outcome, Question
from training.evaluation.rows_table import FILE, table_of, write_table
from training.evaluation.statistics import Scores, family
from training.evaluation.tables import (
    Table,
    beyond_table,
    comparison_table,
    comparisons,
    paper_tables,
    write_tables,
)


def conclude(question: Question, outcome: Outcome, dataset: str) -> None:
    """Write everything into the question's folder; raises Transient where the disk fails."""
    table = table_of(outcome.rows)
    write_table(table, question.out / FILE)
    scores, models = Scores(table), models_of(question)
    compared = comparisons(scores, models)
    tables: list[Table] = [
        *paper_tables(scores, models),
        beyond_table(scores, models),
        *(comparison_table(models[0], baseline, found) for baseline, found in compared.items()),
    ]
    write_tables(question.out, tables, scores, models)


def models_of(question: Question) -> Sequence[str]:
    """The models by name, seeds of one taken together, in the order in which they were given."""
    return list(dict.fromkeys(family(model.name) for model in question.models))
