"""All measured rows as one table, and the parquet file that holds it."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa

from training.evaluation.case import Row
from twin_scanner.durable_file import write_whole
from twin_scanner.errors import Rejected, Transient

FILE: Final = "metrics.parquet"
COLUMNS: Final = {
    "model": "str", "study": "str", "patient": "str", "diagnosis": "str", "region": "str", "item": "int32",
    "metric": "str", "unit": "str", "value": "float64", "n": "int64",
}  # fmt: skip


def table_of(rows: Sequence[Row]) -> pd.DataFrame:
    """One line a row, the columns and types of Row; sorted, so that the same rows give the same table."""
    table = pd.DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(Row)]).astype(COLUMNS)
    return table.sort_values(["model", "study", "region", "item", "metric"], ignore_index=True)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as parquet, whole or not at all; raises Transient where the disk fails."""
    try:
        write_whole(path, lambda stream: table.to_parquet(stream, engine="pyarrow", index=False))
    except OSError as error:
        raise Transient(f"{path} cannot be written: check its folder's free space and rights.") from error


def read_table(path: Path) -> pd.DataFrame:
    """A table that ``write_table`` wrote; raises Rejected where the file is none."""
    try:
        table = pd.read_parquet(path, engine="pyarrow")
    except (OSError, pa.ArrowInvalid) as error:
        raise Rejected(f"{path} is no table of measurements: give the metrics.parquet of an evaluation.") from error
    if list(table.columns) != list(COLUMNS):
        raise Rejected(f"{path} has other columns than measurements have: give the metrics.parquet of an evaluation.")
    return table.astype(COLUMNS)
