"""Whether two names are one person's."""

import pytest

from twin_record.names import names_agree
from twin_record.resources.dicom_values import human_names

pytestmark = pytest.mark.unit


def agree(first: str, second: str, patient_id: str = "4711") -> bool | None:
    return names_agree(human_names(first), human_names(second), [patient_id])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Müller^Jürgen^Karl^Dr.", "MUELLER^JUERGEN"),
        ("Müller^Jürgen", "Muller^Jurgen^Karl"),
        ("O'Brien^Mary-Ann", "OBRIEN^MARYANN"),
        ("De La Cruz^Maria", "Delacruz^Maria"),
        ("Doe^J", "Doe^Jane"),
        ("Jane^Doe", "Doe^Jane"),
        ("Søndergård^Åse", "SONDERGARD^ASE"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "=山田^太郎"),
        ("Straße^Ida", "STRASSE^IDA"),
    ],
)
def test_spelling_order_and_completeness_make_no_other_name(first: str, second: str) -> None:
    assert agree(first, second) is True
    assert agree(second, first) is True


@pytest.mark.parametrize(
    ("first", "second"),
    [("Doe^John", "Doe^Jane"), ("Smith^Anna", "Jones^Anna"), ("Doe^J", "Doe^Karl"), ("Müller^Jürgen", "Miller^Jürgen")],
)
def test_another_word_is_another_name(first: str, second: str) -> None:
    assert agree(first, second) is False


@pytest.mark.parametrize(
    ("first", "second"),
    [("", "Doe^John"), ("4711", "Doe^John"), ("Anonymous^Patient", "Doe^John"), ("Yamada^Tarou", "=山田^太郎")],
)
def test_no_name_a_removed_one_and_another_script_cannot_be_compared(first: str, second: str) -> None:
    assert agree(first, second) is None


def test_one_name_of_several_is_enough_and_a_text_is_a_name() -> None:
    theirs = [{"family": "Smith", "given": ["Anna"]}, {"text": "Anna Jones"}]
    assert names_agree(human_names("Jones^Anna"), theirs, ["4711"]) is True
