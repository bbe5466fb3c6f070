"""Splits by patient: nobody in two parts, every part its share of every diagnosis, the same file for the same seed."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.splits import SHARES, Split, make_split, make_split_file, read_split, write_split
from twin_scanner.errors import Rejected, Transient

pytestmark = pytest.mark.loop

DIAGNOSES = ("NEGATIVE", "MELANOMA", "LYMPHOMA", "LUNG_CANCER")
PARTS = tuple(SHARES)


@dataclass(frozen=True)
class Examination:
    name: str
    patient: str
    diagnosis: str


def examinations(diagnoses: list[int], visits: list[int] | None = None) -> list[Examination]:
    """One patient a diagnosis, each with one to three examinations."""
    found = []
    for patient, diagnosis in enumerate(diagnoses):
        for visit in range(1 if visits is None else visits[patient]):
            found.append(Examination(f"study-{patient}-{visit}", f"patient-{patient}", DIAGNOSES[diagnosis]))
    return found


def patients_in(studies: list[Examination], names: tuple[str, ...]) -> set[str]:
    return {study.patient for study in studies if study.name in names}


@st.composite
def populations(draw: st.DrawFn, least: int = 10, most: int = 120) -> list[Examination]:
    """Diagnoses of any mixture, from one group to four, and up to three examinations a patient."""
    diagnoses = draw(st.lists(st.integers(0, 3), min_size=least, max_size=most))
    visits = draw(st.lists(st.integers(1, 3), min_size=len(diagnoses), max_size=len(diagnoses)))
    return examinations(diagnoses, visits)


@given(populations(), st.integers(0, 2**32))
def test_every_study_is_in_one_part_and_no_patient_in_two(studies: list[Examination], seed: int) -> None:
    split = make_split(studies, seed)
    assert sorted(name for names in split.parts.values() for name in names) == sorted(s.name for s in studies)
    patients = [patient for names in split.parts.values() for patient in patients_in(studies, names)]
    assert len(patients) == len(set(patients)) == len({study.patient for study in studies})
    assert all(split.parts.values())


@given(populations(), st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_the_order_of_the_studies_changes_nothing(studies: list[Examination], seed: int, random: Any) -> None:
    shuffled = list(studies)
    random.shuffle(shuffled)
    assert make_split(shuffled, seed) == make_split(studies, seed)


@given(populations(least=40), st.integers(0, 2**32))
def test_every_part_has_its_share_of_every_diagnosis_to_within_one_patient(
    studies: list[Examination], seed: int
) -> None:
    """Oracle: 70, 5, 5 and 20 % of the patients with that diagnosis."""
    split = make_split(studies, seed)
    diagnosis = {study.patient: study.diagnosis for study in studies}
    group_sizes = Counter(diagnosis.values())
    for part, names in split.parts.items():
        found = Counter(diagnosis[patient] for patient in patients_in(studies, names))
        for group, size in group_sizes.items():
            assert abs(found[group] - size * SHARES[part] / 20) < 1, (part, group)
        assert abs(sum(found.values()) - len(diagnosis) * SHARES[part] / 20) <= 1.5, part


@given(populations(most=60), st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(0, 99))
def test_a_store_that_grew_leaves_everybody_where_they_were(
    studies: list[Examination], more: list[int], seed: int
) -> None:
    """And the new patients fill up what is short: the whole still has nearly its shares."""
    before = make_split(studies, seed)
    grown = studies + [replace(s, name=f"new-{s.name}", patient=f"new-{s.patient}") for s in examinations(more)]
    again = make_split(grown, seed, kept=before)
    for part in PARTS:
        assert patients_in(studies, again.parts[part]) == patients_in(studies, before.parts[part])
    assert sorted(name for names in again.parts.values() for name in names) == sorted(s.name for s in grown)
    assert make_split(grown, seed, kept=again) == again


def test_a_new_examination_of_a_known_patient_joins_the_others() -> None:
    studies = examinations([0] * 20)
    before = make_split(studies, 3)
    patient = next(iter(patients_in(studies, before.gate)))
    later = [*studies, Examination("later", patient, "MELANOMA")]
    assert "later" in make_split(later, 3, kept=before).gate


def test_the_paper_s_numbers_come_out_for_the_paper_s_patients() -> None:
    """autoPET: 900 patients; 630, 45, 45 and 180 are the shares."""
    studies = examinations([0] * 469 + [1] * 169 + [2] * 132 + [3] * 130)
    split = make_split(studies, 0)
    assert {part: len(names) for part, names in split.parts.items()} == pytest.approx(
        {"train": 630, "validation": 45, "gate": 45, "test": 180}, abs=1
    )


def test_another_seed_gives_another_split() -> None:
    studies = examinations([0] * 50)
    assert make_split(studies, 1) != make_split(studies, 2)
    assert make_split(studies, 1) == make_split(studies, 1)


def test_ten_patients_fill_every_part_and_nine_are_too_few() -> None:
    split = make_split(examinations([0] * 10), 0)
    assert [len(names) for names in split.parts.values()] == [6, 1, 1, 2]
    with pytest.raises(Rejected, match="9 patients are too few to make a split of, 10 are needed"):
        make_split(examinations([0] * 9, [3] * 9), 0)


def test_a_split_that_is_drawn_again_into_its_file_moves_nobody(tmp_path: Path) -> None:
    """The store grew by half: drawn from nothing with the same seed, patients that were tested would be learnt from."""
    grown = examinations([0] * 60)
    before = make_split_file(tmp_path / "split.json", grown[:40], 0)
    assert before == make_split(grown[:40], 0)
    assert set(before.test) & set(make_split(grown, 0).train)
    after = make_split_file(tmp_path / "split.json", grown, 0, store="f" * 64)
    assert read_split(tmp_path / "split.json", grown) == after
    assert after.store == "f" * 64
    for part in PARTS:
        assert set(before.parts[part]) < set(after.parts[part])


def test_a_file_that_is_no_split_of_these_studies_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    make_split_file(path, examinations([0] * 12), 0)
    for content in (path.read_text(), "notes"):
        path.write_text(content)
        with pytest.raises(Rejected, match=r"study-11-0|cannot be read"):
            make_split_file(path, examinations([0] * 11), 0)
        assert path.read_text() == content


def test_a_split_comes_back_from_its_file(tmp_path: Path) -> None:
    studies = examinations([0, 1, 2, 3] * 6)
    split = make_split(studies, 7, store="f" * 64)
    write_split(tmp_path / "new" / "split.json", split)
    assert read_split(tmp_path / "new" / "split.json", studies) == split
    content = json.loads((tmp_path / "new" / "split.json").read_text())
    assert (content["schema"], content["seed"], content["store"]) == (1, 7, "f" * 64)


def test_a_split_made_by_hand_may_leave_studies_out(tmp_path: Path) -> None:
    """Three patients are enough where somebody says what they are for."""
    path = tmp_path / "split.json"
    path.write_text('{"schema": 1, "train": ["study-0-0"], "validation": ["study-1-0"], "gate": [], "test": []}')
    assert read_split(path, examinations([0, 0, 0])) == Split(("study-0-0",), ("study-1-0",), (), ())


EMPTY: dict[str, Any] = {"schema": 1, "train": [], "validation": [], "gate": [], "test": []}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({**EMPTY, "train": ["nobody"]}, r"split\.json names 1 studies that are not here, 'nobody' first"),
        ({**EMPTY, "train": ["study-0-0"], "test": ["study-0-1"]}, "study 'study-0-0' or its patient into two places"),
        ({**EMPTY, "train": ["study-0-0"], "gate": ["study-0-0"]}, "study 'study-0-0' or its patient into two places"),
        ({**EMPTY, "train": ["study-0-0", "study-0-0"]}, "study 'study-0-0' or its patient into two places"),
        ({**EMPTY, "schema": 2}, "no split of schema 1"),
        ({**EMPTY, "train": "study-0-0"}, "no split of schema 1"),
        ({**EMPTY, "train": [1]}, "no split of schema 1"),
        ({**EMPTY, "patients": []}, "no split of schema 1"),
        ({**EMPTY, "seed": "x"}, "no split of schema 1"),
        ({"schema": 1, "train": []}, "no split of schema 1"),
        ([], "no split of schema 1"),
    ],
)
def test_a_file_that_is_no_split_of_these_studies_is_rejected(tmp_path: Path, content: object, reason: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps(content))
    with pytest.raises(Rejected, match=reason):
        read_split(path, examinations([0, 0], [2, 1]))


def test_a_file_that_cannot_be_read_or_written_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="cannot be read"):
        read_split(tmp_path / "none.json", [])
    (tmp_path / "file").write_text("{")
    with pytest.raises(Rejected, match="cannot be read"):
        read_split(tmp_path / "file", [])
    with pytest.raises(Transient, match="cannot be written"):
        write_split(tmp_path / "file" / "split.json", make_split(examinations([0] * 10), 0))
