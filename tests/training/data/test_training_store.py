"""The training store as it is read: memory maps that give the pair that was made, and files that were tampered with."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.samples.block_studies import Block, some
from training.data.pairs import Pair, make_pair, phantom_truth
from training.data.prepare import prepare as prepare_registered
from training.data.training_store import Entry, TrainingStore, open_store
from twin_scanner.errors import Rejected
from twin_scanner.models.plan import Plan

pytestmark = pytest.mark.loop

PLAN = Plan(spacing_mm=(6.0, 4.0, 5.0))
prepare = partial(prepare_registered, registered=False)


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> TrainingStore:
    """Three studies of three patients, cut to the body; the last one has no annotated lesions."""
    return prepare(studies(), tmp_path_factory.mktemp("bodies"), PLAN, None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TrainingStore:
    """The same with the whole field of view."""
    return prepare(studies(), tmp_path_factory.mktemp("whole"), PLAN, None, keep_air=True)


@pytest.fixture
def copy(bodies: TrainingStore, tmp_path: Path) -> Path:
    """A store to spoil."""
    return Path(shutil.copytree(bodies.folder, tmp_path / "store"))


def studies() -> list[Block]:
    return [*some(2), Block("study-2", "patient-2", "MELANOMA", 2, annotated=False)]


def assert_same(pair: Pair, expected: Pair) -> None:
    """Every field, every voxel, every type."""
    assert {k: v for k, v in vars(pair).items() if not isinstance(v, np.ndarray)} == {
        k: v for k, v in vars(expected).items() if not isinstance(v, np.ndarray)
    }
    for name in ("ct", "pet", "labels", "lesions"):
        found, made = getattr(pair, name), getattr(expected, name)
        assert (found is None) == (made is None)
        if made is not None:
            assert found.dtype == made.dtype
            np.testing.assert_array_equal(found, made)


@pytest.mark.parametrize("keep_air", [False, True])
def test_a_pair_of_the_store_is_the_pair_that_is_made_in_memory(whole: TrainingStore, *, keep_air: bool) -> None:
    """Oracle: make_pair. A store with air serves both ways of training."""
    pairs = whole.pairs([study.name for study in studies()], keep_air=keep_air)
    for pair, study in zip(pairs, studies(), strict=True):
        made = make_pair(
            study.load(), phantom_truth, PLAN, name=study.name, patient=study.patient, diagnosis=study.diagnosis,
            keep_air=keep_air,
        )  # fmt: skip
        assert_same(pair, made)


def test_bodies_alone_give_the_same_pairs_as_the_whole_field_of_view(
    bodies: TrainingStore, whole: TrainingStore
) -> None:
    names = [entry.name for entry in bodies.entries]
    for cut, full in zip(bodies.pairs(names), whole.pairs(names), strict=True):
        assert_same(cut, full)
    sizes = [sum(f.stat().st_size for f in store.folder.rglob("*.npy")) for store in (bodies, whole)]
    assert sizes[0] < 0.6 * sizes[1]


def test_pairs_come_in_the_order_of_their_names_and_cannot_be_changed(bodies: TrainingStore) -> None:
    pairs = bodies.pairs(["study-2", "study-0"])
    assert [pair.name for pair in pairs] == ["study-2", "study-0"]
    with pytest.raises(ValueError, match="read-only"):
        pairs[0].ct[0, 0, 0] = 1
    assert pairs[0].lesions is None and pairs[1].lesions is not None


def test_a_thousand_maps_hold_no_file_open(bodies: TrainingStore) -> None:
    """A process may have 1,024 files; 1,014 studies are 4,056 maps."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    pairs = bodies.pairs(["study-0", "study-1"] * 150)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert sum(int(pair.labels[0, 0, 0] >= 0) for pair in pairs) == 300


def test_an_entry_counts_its_voxels(bodies: TrainingStore) -> None:
    """Oracle: the body that was drawn, 20 x 20 x 16 voxels in two districts, on the Plan's own grid."""
    first, _, last = bodies.entries
    assert first.voxels == {1: 10 * 20 * 16, 2: 10 * 20 * 16}
    assert [slice(a, b) for a, b in first.box] == [slice(2, 22), slice(5, 25), slice(4, 20)]
    study = studies()[0].load()
    assert study.lesions is not None
    assert first.lesion_voxels == int(study.lesions.sum()) and last.lesion_voxels is None
    assert first.covered == 1.0
    assert first.body_suv_mean == pytest.approx(1.35, abs=0.05)
    assert (last.patient, last.diagnosis, last.ct_origin) == ("patient-2", "MELANOMA", "phantom")


def test_the_fingerprint_of_some_studies_does_not_change_when_others_join(
    bodies: TrainingStore, tmp_path: Path
) -> None:
    first = prepare(some(1), tmp_path / "store", PLAN, None)
    grown = prepare(some(2), tmp_path / "store", PLAN, None)
    assert grown.fingerprint != first.fingerprint
    assert grown.fingerprint_of(["study-0"]) == first.fingerprint == bodies.fingerprint_of(["study-0"])
    assert bodies.fingerprint_of(["study-1", "study-0"]) == grown.fingerprint
    assert bodies.fingerprint_of([e.name for e in bodies.entries]) == bodies.fingerprint


def test_a_store_says_who_drew_the_districts_and_on_which_plan(bodies: TrainingStore) -> None:
    again = open_store(bodies.folder)
    assert (again.plan, again.segmenter, again.segmenter_hash) == (PLAN, "phantom-truth", "")
    assert again.entries == bodies.entries
    assert again.fingerprint == bodies.fingerprint


def test_a_whole_volume_is_not_asked_of_bodies_alone(bodies: TrainingStore) -> None:
    with pytest.raises(Rejected, match="holds bodies without the air around them"):
        bodies.pairs(["study-0"], keep_air=True)


def test_a_study_that_is_not_there_is_named(bodies: TrainingStore) -> None:
    with pytest.raises(Rejected, match="holds no study 'a', 'b', 'c', 'd', 'e' and 1 more"):
        bodies.pairs(["study-0", *"abcdef"])


def test_a_folder_that_is_no_store_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="is no training store"):
        open_store(tmp_path)


def test_a_damaged_file_is_found(copy: Path) -> None:
    """One bit of one voxel: its size is right, its hash is not."""
    store = open_store(copy)
    calls: list[tuple[int, int]] = []
    store.check(lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    path = copy / "studies" / "study-1" / "pet.npy"
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(Rejected, match=r"pet\.npy of study 'study-1' in store is damaged"):
        store.check()


@pytest.mark.parametrize("spoilt", ["shorter", "another type", "no array", "missing", "another order"])
def test_a_file_that_is_not_what_was_written_is_not_mapped(copy: Path, spoilt: str) -> None:
    path = copy / "studies" / "study-1" / "ct.npy"
    array = np.load(path)
    if spoilt == "shorter":
        path.write_bytes(path.read_bytes()[:-2])
    elif spoilt == "another type":
        np.save(path, array.astype(np.int32))
    elif spoilt == "another order":
        np.save(path, np.asfortranarray(array))
    elif spoilt == "no array":
        path.write_bytes(b"not an array, and too short")
    else:
        path.unlink()
    with pytest.raises(Rejected, match=r"ct\.npy of study 'study-1' cannot be read"):
        open_store(copy).pairs(["study-1"])


def test_a_study_of_another_store_is_not_mixed_in(copy: Path, tmp_path: Path) -> None:
    """Somebody copied folders together."""
    other = prepare([Block("other", "patient-9")], tmp_path / "other", Plan(spacing_mm=(6.0, 5.0, 5.0)), None)
    shutil.copytree(other.folder / "studies" / "other", copy / "studies" / "other")
    with pytest.raises(Rejected, match="study 'other' was made for another store"):
        open_store(copy)


def test_a_study_under_another_name_is_rejected(copy: Path) -> None:
    (copy / "studies" / "study-1").rename(copy / "studies" / "renamed")
    with pytest.raises(Rejected, match="study 'renamed' was made for another store"):
        open_store(copy)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("schema", 2, "has schema 2, this version reads 1"),
        ("plan_hash", "0" * 64, "names another Plan than it holds"),
        ("plan", {"spacing_mm": [1, 2]}, "is not the file of a training store"),
        ("plan", {"spacing_mm": [1, 2, 3], "colour": 1}, "is not the file of a training store"),
    ],
)
def test_a_store_file_that_was_changed_is_rejected(copy: Path, key: str, value: object, reason: str) -> None:
    path = copy / "store.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(Rejected, match=reason):
        open_store(copy)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"plan_hash": 1, "segmenter": 2, "segmenter_hash": 3}'])
def test_a_study_file_that_describes_nothing_is_rejected(copy: Path, content: str) -> None:
    (copy / "studies" / "study-1" / "study.json").write_text(content)
    with pytest.raises(Rejected, match=r"study\.json"):
        open_store(copy)


def test_an_entry_holds_no_more_of_a_patient_than_pseudonym_and_age(bodies: TrainingStore) -> None:
    """Oracle: the fields of the file, written out."""
    content = json.loads((bodies.folder / "studies" / "study-0" / "study.json").read_text())
    assert {"is_phantom" if key == "drawn" else key for key in content} == set(Entry.__dataclass_fields__)
    assert set(content) == {
        "name", "patient", "diagnosis", "ct_origin", "source_sha256", "plan_hash", "segmenter", "segmenter_hash",
        "version", "shape", "box", "hu_range", "voxels", "lesion_voxels", "covered", "body_suv_mean", "motion",
        "arrays_sha256", "drawn", "source_stamp", "ct_facts",
    }  # fmt: skip
