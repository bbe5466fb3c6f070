"""All measured rows as one table, and the parquet file that holds it."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa

from training.evaluation.case import Row
from twin_scanner.errors import Rejected, Transient
from twin_scanner.files.durable_file import write_whole

FILE: Final = "metrics.parquet"
COLUMNS: Final = {
    "model": "str", "study": "str", "patient": "str", "diagnosis": "str", "region": "str", "item": "int32",
    "metric": "str", "unit": "str", "value": "float64", "n": "int64",
}  # fmt: skip
KEY: Final = ["model", "study", "region", "item", "metric"]
"""What one number is of: there is one row for each."""


def table_of(rows: Sequence[Row]) -> pd.DataFrame:
    """One line a row, the columns and types of Row; sorted, so that the same rows give the same table.

    Raises Rejected where a value is no finite number, a number is there twice (two organs of one name), or a study is
    of two patients: means over such rows would be wrong without a word.
    """
    table = pd.DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(Row)]).astype(COLUMNS)
    fault = _fault(table)
    if fault is not None:
        raise Rejected(f"The measurements cannot be put into a table: {fault}.")
    return table.sort_values(KEY, ignore_index=True)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as parquet, whole or not at all; raises Transient where the disk fails."""
    try:
        write_whole(path, lambda stream: table.to_parquet(stream, engine="pyarrow", index=False))
    except OSError as error:
        raise Transient(f"{path} cannot be written: check its folder's free space and rights.") from error


def read_table(path: Path) -> pd.DataFrame:
    """A table that ``write_table`` wrote; raises Rejected where the file is none."""
    none = f"{path} is no table of measurements: give the metrics.parquet of an evaluation."
    if not path.is_file():
        raise Rejected(none)
    try:
        table = pd.read_parquet(path, engine="pyarrow")
    except (OSError, pa.ArrowException) as error:
        raise Rejected(none) from error
    if list(table.columns) != list(COLUMNS):
        raise Rejected(f"{path} has other columns than measurements have: give the metrics.parquet of an evaluation.")
    if [str(kind) for kind in table.dtypes] != list(COLUMNS.values()):
        raise Rejected(f"{path} has columns of other types than measurements: give the metrics.parquet it was made as.")
    fault = _fault(table)
    if fault is not None:
        raise Rejected(f"{path} holds no usable measurements, for {fault}: evaluate again.")
    return table


def _fault(table: pd.DataFrame) -> str | None:
    """What forbids statistics on a table of the right columns and types, as part of a sentence."""
    if table.drop(columns="value").isna().any(axis=None):
        return "a row lacks a name"
    for wrong, said in (
        (~np.isfinite(table["value"].to_numpy()), "is no finite number"),
        (table.duplicated(KEY).to_numpy(), "is there twice"),
    ):
        if wrong.any():
            first = table[wrong].iloc[0]
            return f"{first['metric']} in {first['region']} of study {first['study']} {said}"
    owners = table.groupby("study")["patient"].nunique()
    if (owners > 1).any():
        return f"study {owners.index[owners > 1][0]} is of two patients"
    return None
