"""The gate on the code's shape passes on this tree and fails on each fault that it is there for."""

from pathlib import Path

import pytest

from tests.measures import measure

pytestmark = pytest.mark.unit


def test_this_tree_holds_the_measures(project: Path) -> None:
    assert measure(project) == []


@pytest.mark.parametrize(
    ("name", "code", "fault"),
    [
        ("a.py", "def f(x: int) -> None:\n" + "    x += 1\n" * 81, "82 lines"),
        ("a.py", "def f(x) -> None: ...", "no annotation for x"),
        ("a.py", "def f(x: int): ...", "no annotation for return"),
        (
            "a.py",
            "def f() -> None:\n" + "    try:\n        pass\n    except Exception:\n        pass\n" * 2,
            "2 broad excepts",
        ),
        ("utils.py", "def f() -> None: ...", "the file's name says nothing"),
        ("a.py", "def f() -> None: ...  # " + "TO" + "DO later", "left behind"),
    ],
)
def test_each_fault_is_found(tmp_path: Path, name: str, code: str, fault: str) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / name).write_text(code)
    assert any(fault in sentence for sentence in measure(tmp_path))
