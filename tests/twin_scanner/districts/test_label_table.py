"""Label tables: what a file says, all its faults at once, and the tables that are ready. The oracle is the file."""

from pathlib import Path

import pytest

from twin_scanner.districts.label_table import MOOSE_TABLE, READY_TABLES, LabelTable, label_table, read_label_table
from twin_scanner.errors import Rejected
from twin_scanner.imaging.district_labels import DISTRICT_NAMES

pytestmark = pytest.mark.unit

ORGANS = """
rest = "other"
ignore = [255, "Artefact"]

[labels.liver]
label = 5
from = [5]
segments = ["Liver"]
code = { scheme = "SCT", value = "10200004", meaning = "Liver" }

[labels.lungs]
label = 6
from = [10, 11, 12, 13, 14]
segments = ["Left lung", "Right lung"]

[labels.other]
label = 9
"""
"""Five lobes of TotalSegmentator's 'total' become one label."""


def written(folder: Path, text: str) -> Path:
    path = folder / "organs.toml"
    path.write_text(text, "utf-8")
    return path


def test_several_sources_become_one_label_and_the_rest_has_its_own(tmp_path: Path) -> None:
    table = read_label_table(written(tmp_path, ORGANS))
    assert dict(table.names) == {5: "liver", 6: "lungs", 9: "other"}
    assert [table.of_value(value) for value in (0, 5, 10, 14, 255, 7)] == [0, 5, 6, 6, 0, None]
    assert table.rest == 9
    code = table.codes["liver"]
    assert (code.value, code.scheme_designator, code.meaning) == ("10200004", "SCT", "Liver")


def test_segments_are_told_by_their_label_where_the_table_lists_any(tmp_path: Path) -> None:
    table = read_label_table(written(tmp_path, ORGANS))
    assert table.of_segment(1, " liver ") == 5
    assert table.of_segment(2, "RIGHT LUNG") == 6
    assert table.of_segment(3, "Artefact") == 0
    assert table.of_segment(5, "Spleen") is None
    by_number = read_label_table(written(tmp_path, "[labels.liver]\nlabel = 1\nfrom = [5]\n"))
    assert (by_number.of_segment(5, "Spleen"), by_number.of_segment(1, "liver")) == (1, None)


def test_what_is_not_listed_can_be_left_unlabelled(tmp_path: Path) -> None:
    table = read_label_table(written(tmp_path, "ignore_unlisted = true\n" + ORGANS))
    assert (table.of_value(77), table.of_segment(77, "Spleen")) == (0, 0)


def test_what_decides_the_labels_decides_the_hash(tmp_path: Path) -> None:
    plain = read_label_table(written(tmp_path, ORGANS)).as_json()
    assert plain == read_label_table(written(tmp_path, ORGANS + "\n# a remark\n")).as_json()
    for before, after in (
        ("[5]", "[4]"),
        ("label = 5", "label = 7"),
        ('"other"', '"liver"'),
        ("255", "254"),
        ("102", "103"),
    ):
        assert read_label_table(written(tmp_path, ORGANS.replace(before, after, 1))).as_json() != plain
    assert read_label_table(written(tmp_path, "ignore_unlisted = true\n" + ORGANS)).as_json() != plain


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    text = """
rest = "remainder"
restt = "other"
ignore = [0]
ignore_unlisted = "yes"
[labels]
trunk = 2
"bad\\\\name" = { label = 3, from = [3] }
[labels.liver]
label = 0
from = [5, 70000]
segments = [""]
code = { scheme = "SCT" }
colour = "red"
[labels.spleen]
label = 7
from = [1]
[labels.kidney]
label = 7
from = [1]
"""
    with pytest.raises(Rejected) as error:
        read_label_table(written(tmp_path, text))
    for fault in (
        "rest is 'remainder'",
        "restt is unknown",
        "ignore is a list",
        "ignore_unlisted is true or false",
        "labels.trunk is no table",
        "no plain text",
        "labels.liver.label is a whole number from 1 to 254",
        "labels.liver.from is a list of whole numbers from 1 to 65535",
        "labels.liver.segments is a list",
        "labels.liver.code is a table",
        "labels.liver.colour is unknown",
        "label 7 stands 2 times",
        "source 1 stands 2 times",
    ):
        assert fault in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("labels = ", "is not TOML"),
        ("", r"\[labels\] is missing or empty"),
        ("labels = 3", r"\[labels\] is missing or empty"),
        ("[labels.a]\nlabel = 1\n", "no label has a source"),
        ("[labels.a]\nlabel = true\nfrom = [1]\n", "labels.a.label is a whole number"),
        ("[labels.a]\nlabel = 1\nfrom = [1.0]\n", "labels.a.from is a list"),
        ("[labels.a]\nlabel = 1\nfrom = 1\n", "labels.a.from is a list"),
        ('[labels.a]\nlabel = 1\nsegments = ["Liver", "liver "]\n', "source 'liver' stands 2 times"),
        ("ignore = [1]\n[labels.a]\nlabel = 1\nfrom = [1]\n", "source 1 stands 2 times"),
        ("rest = ['a']\n[labels.a]\nlabel = 1\nfrom = [1]\n", "none of the labels"),
        (f"[labels.{'a' * 65}]\nlabel = 1\nfrom = [1]\n", "longer than 64"),
    ],
)
def test_a_faulty_file_is_rejected_with_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(Rejected, match=sentence) as error:
        read_label_table(written(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_text_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Rejected, match="cannot be read"):
        read_label_table(tmp_path / "t.toml")


def test_ready_tables_are_found_by_name_and_others_by_path(tmp_path: Path) -> None:
    """MOOSE's clin_ct_body: 1 legs, 2 body, 3 head, 4 arms."""
    assert [label_table("districts").of_value(value) for value in range(6)] == [0, 1, 2, 3, 4, None]
    assert label_table("moose") is MOOSE_TABLE
    assert [DISTRICT_NAMES[MOOSE_TABLE.of_value(v) or 0] for v in (1, 2, 3, 4)] == ["legs", "trunk", "head", "arms"]
    assert label_table(str(written(tmp_path, ORGANS))).rest == 9
    with pytest.raises(Rejected, match="There is no label table mouse: give a TOML file, or 'districts' or 'moose'"):
        label_table("mouse")


def test_our_own_segments_are_the_districts_whatever_their_numbers() -> None:
    table = READY_TABLES["districts"]
    assert [table.of_segment(number, name) for number, name in enumerate(("head", "arms", "legs"), 1)] == [1, 3, 4]


def test_a_table_made_in_code_must_fit_together_too() -> None:
    with pytest.raises(Rejected) as error:
        LabelTable({255: "a"}, {1: 7}, rest=3)
    for fault in ("label 255 (a) is not from 1 to 254", "source 1 leads to label 7", "rest is label 3"):
        assert fault in str(error.value)
    with pytest.raises(Rejected, match="no source leads to a label"):
        LabelTable({1: "a"}, {5: 0})
