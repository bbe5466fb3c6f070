"""The table of all rows: what comes back from its file, and what is no table of measurements."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from training.evaluation.case import Row
from training.evaluation.rows_table import COLUMNS, read_table, table_of, write_table
from twin_scanner.errors import Rejected, Transient

pytestmark = pytest.mark.unit

ROW = Row("m#1", "s1", "p1", "LYMPHOMA", "body", 0, "mae", "", 0.1 + 0.2, 2**40)


def test_a_table_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    other = dataclasses.replace(ROW, study="s0", diagnosis="", value=5e-324)
    table = table_of([ROW, other])
    write_table(table, tmp_path / "metrics.parquet")
    back = read_table(tmp_path / "metrics.parquet")
    pd.testing.assert_frame_equal(back, table, check_exact=True)
    assert list(table["study"]) == ["s0", "s1"] and {str(kind) for kind in back.dtypes} == set(COLUMNS.values())
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.parquet"]


def test_the_same_rows_in_another_order_are_the_same_bytes(tmp_path: Path) -> None:
    rows = [dataclasses.replace(ROW, study=f"s{number}", patient=f"p{number}") for number in range(5)]
    for name, ordered in (("one", rows), ("two", rows[::-1])):
        write_table(table_of(ordered), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_table_without_rows_has_its_columns_and_types(tmp_path: Path) -> None:
    write_table(table_of([]), tmp_path / "metrics.parquet")
    assert read_table(tmp_path / "metrics.parquet").dtypes.astype(str).to_dict() == COLUMNS


def test_a_write_that_fails_leaves_the_older_table_whole(tmp_path: Path) -> None:
    write_table(table_of([ROW]), tmp_path / "metrics.parquet")
    before = (tmp_path / "metrics.parquet").read_bytes()
    with pytest.raises(Transient, match="cannot be written"):
        write_table(table_of([ROW]), tmp_path / "metrics.parquet" / "below.parquet")
    assert (tmp_path / "metrics.parquet").read_bytes() == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_number_is_refused_by_name(value: float) -> None:
    with pytest.raises(Rejected, match="mae in body of study s1 is no finite number"):
        table_of([ROW, dataclasses.replace(ROW, model="other", value=value)])


def test_a_number_that_is_there_twice_is_refused_for_its_study_would_vanish_from_the_means() -> None:
    """As by two labels of an organ map that have one name."""
    organ = dataclasses.replace(ROW, region="organ:kidney", metric="suv_mean_bias")
    with pytest.raises(Rejected, match="suv_mean_bias in organ:kidney of study s1 is there twice"):
        table_of([organ, dataclasses.replace(organ, value=1.0)])
    assert len(table_of([organ, dataclasses.replace(organ, item=1), dataclasses.replace(organ, model="m#2")])) == 3


def test_a_study_of_two_patients_is_refused() -> None:
    with pytest.raises(Rejected, match="study s1 is of two patients"):
        table_of([ROW, dataclasses.replace(ROW, model="other", patient="p2")])


def test_what_is_no_table_of_measurements_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "metrics.parquet"
    with pytest.raises(Rejected, match="is no table of measurements"):
        read_table(path)
    with pytest.raises(Rejected, match="is no table of measurements"):
        read_table(tmp_path)
    table = table_of([ROW])
    write_table(table, path)
    whole = path.read_bytes()
    for content in (b"", b"PAR1 no", whole[: len(whole) // 2], whole[:4] + bytes(40) + whole[44:]):
        path.write_bytes(content)
        with pytest.raises(Rejected, match="is no table of measurements"):
            read_table(path)


def test_a_parquet_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path, table = tmp_path / "metrics.parquet", table_of([ROW])
    for wrong, said in (
        (table.drop(columns="unit"), "other columns"),
        (table.astype({"value": "str"}), "columns of other types"),
        (table.astype({"item": "float64"}), "columns of other types"),
        (table.assign(study=pd.Series([None], dtype="str")), "a row lacks a name"),
        (table.assign(value=float("nan")), "is no finite number"),
        (pd.concat([table, table]), "is there twice"),
    ):
        wrong.to_parquet(path, index=False)
        with pytest.raises(Rejected, match=said):
            read_table(path)
