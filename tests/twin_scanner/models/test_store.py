"""The store of model packages: what it finds by alias, name and hash, and how a champion changes."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.fakes.full_disk import files_end_at
from tests.samples.saved_packages import saved_package
from twin_scanner.errors import Rejected, Transient
from twin_scanner.files.durable_file import write_durably
from twin_scanner.models import store as models
from twin_scanner.models.package import load_package
from twin_scanner.models.promotions import Promotion, write_promotion
from twin_scanner.models.store import DEMONSTRATION_FOLDER, ModelStore

pytestmark = pytest.mark.unit


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return saved_package(tmp_path / "package")


@pytest.fixture
def without_demonstration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(models, "DEMONSTRATION_FOLDER", tmp_path / "no-demonstration")


def in_service(store: ModelStore, package: Path) -> Path:
    """The package as the champion of a store that has no demonstration to fall back on."""
    added = store.add(package)
    (store.folder / "aliases.json").write_text(json.dumps({"champion": added.name}), "utf-8")
    write_promotion(store.folder, Promotion(1, "2026-01-01T00:00:00+00:00", added.name, "", "force", "The first."))
    return added


@pytest.mark.usefixtures("without_demonstration")
def test_a_store_finds_a_package_by_name_hash_and_path(package: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    assert store.list() == ()
    added = store.add(package)
    loaded = load_package(package)
    assert added == tmp_path / "store" / loaded.model_hash == store.add(package)
    assert store.resolve("small") == store.resolve(loaded.model_hash) == store.resolve(loaded.model_hash[:8]) == added
    assert store.resolve(str(package)) == package
    assert load_package(added).model_hash == loaded.model_hash
    for reference in ("nothing", loaded.model_hash[:7], "0" * 64):
        with pytest.raises(Rejected, match="There is no model"):
            store.resolve(reference)


@pytest.mark.usefixtures("without_demonstration")
def test_two_models_of_one_name_are_told_apart_by_hash_alone(package: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    first, second = store.add(package), store.add(saved_package(tmp_path / "other", seed=1))
    with pytest.raises(Rejected, match="Several models are called 'small'"):
        store.resolve("small")
    assert (store.resolve(first.name), store.resolve(second.name)) == (first, second)


def test_a_damaged_package_does_not_enter_the_store(package: Path, tmp_path: Path) -> None:
    (package / "legs.safetensors").write_bytes(b"")
    with pytest.raises(Rejected, match="damaged"):
        ModelStore(tmp_path / "store").add(package)
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("without_demonstration")
def test_aliases_follow_what_they_are_pointed_at(package: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    first, second = in_service(store, package), store.add(saved_package(tmp_path / "other", "large", seed=1))
    assert store.challenge(second.name[:10]) == second.name
    assert (store.resolve("champion"), store.resolve("challenger")) == (first, second)
    store.promote("challenger", by="gate", reason="Better.", decision="d1", instead_of=first.name)
    assert (store.resolve("champion"), store.resolve("previous")) == (second, first)
    assert {row.name: row.aliases for row in store.list()} == {"small": ("previous",), "large": ("champion",)}
    assert json.loads((tmp_path / "store" / "aliases.json").read_text()) == store.aliases()
    assert not [path for path in (tmp_path / "store").iterdir() if path.name.startswith(".")]


def test_every_change_of_champion_is_told_with_its_reason(package: Path, tmp_path: Path) -> None:
    store, moment = ModelStore(tmp_path / "store"), datetime(2026, 3, 1, 12, tzinfo=UTC)
    demonstration = store.resolve("champion")
    store.promote(str(package), by="force", reason=" It is ours. ", at=moment)
    store.rollback("Legs too hot.", at=moment + timedelta(hours=1))
    ours, first = load_package(package).model_hash, load_package(demonstration).model_hash
    assert store.history() == (
        Promotion(1, "2026-03-01T12:00:00+00:00", ours, first, "force", "It is ours."),
        Promotion(2, "2026-03-01T13:00:00+00:00", first, ours, "rollback", "Legs too hot."),
    )
    assert store.resolve("champion") == tmp_path / "store" / first, "put back from the store's own copy"
    assert store.aliases() == {"champion": first, "previous": ours}


@pytest.mark.usefixtures("without_demonstration")
def test_a_promotion_that_says_nothing_or_changes_nothing_is_refused(package: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    first, second = in_service(store, package), store.add(saved_package(tmp_path / "other", seed=1))
    before = store.history(), store.aliases()
    for reference, reason, instead_of, sentence in (
        (first.name, "Again.", None, "is the champion already"),
        (second.name, "  ", None, "needs a reason"),
        (second.name, "Better.", second.name, "The champion is model .* by now"),
    ):
        with pytest.raises(Rejected, match=sentence):
            store.promote(reference, by="force", reason=reason, instead_of=instead_of)
    with pytest.raises(Rejected, match="No model is the previous"):
        store.rollback("No reason will do.")
    assert (store.history(), store.aliases()) == before


@pytest.mark.usefixtures("without_demonstration")
def test_a_crash_between_record_and_alias_leaves_the_old_champion_and_no_trace(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: the disk refuses the alias file, as a power cut would keep it from being renamed."""
    store = ModelStore(tmp_path / "store")
    first, second = in_service(store, package), store.add(saved_package(tmp_path / "other", seed=1))

    def refused(path: Path, content: bytes) -> None:
        if path.name == "aliases.json":
            raise OSError(28, "No space left on device")
        write_durably(path, content)

    with monkeypatch.context() as fault:
        fault.setattr(models, "write_durably", refused)
        with pytest.raises(Transient, match="cannot be written"):
            store.promote(second.name, by="force", reason="Cut off.")
    assert store.resolve("champion") == first and len(store.history()) == 1
    store.promote(second.name, by="force", reason="Complete.")
    assert store.resolve("champion") == second
    assert [record.reason for record in store.history()] == ["The first.", "Complete."]


@pytest.mark.usefixtures("without_demonstration")
def test_champions_changed_by_many_threads_at_once_leave_an_unbroken_chain(package: Path, tmp_path: Path) -> None:
    """Property: each change begins where the one before it ended, and every change is there."""
    store = ModelStore(tmp_path / "store")
    in_service(store, package)
    hashes = [store.add(saved_package(tmp_path / str(seed), seed=seed)).name for seed in (1, 2, 3, 4)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda name: ModelStore(store.folder).promote(name, by="force", reason="Race."), hashes))
    chain = store.history()
    assert sorted(record.champion for record in chain[1:]) == sorted(hashes)
    assert [record.previous for record in chain[1:]] == [record.champion for record in chain[:-1]]
    assert [record.number for record in chain] == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("without_demonstration")
def test_aliases_without_a_model_are_refused(package: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    with pytest.raises(Rejected, match="No model is the challenger"):
        store.resolve("challenger")
    shutil.rmtree(in_service(store, package))
    with pytest.raises(Rejected, match="which is not in the store"):
        store.resolve("champion")
    (tmp_path / "store" / "aliases.json").write_text("{")
    with pytest.raises(Rejected, match="is not JSON"):
        store.resolve("champion")


@pytest.mark.usefixtures("without_demonstration")
def test_a_broken_neighbour_does_not_keep_the_champion_from_work(package: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    champion = in_service(store, package)
    other = store.add(saved_package(tmp_path / "other", seed=1))
    (other / "card.json").write_text("{")
    assert store.resolve("champion") == champion
    with pytest.raises(Rejected, match=f"'{other.name}' has a card.json that is not JSON"):
        store.list()


@pytest.mark.usefixtures("without_demonstration")
def test_a_folder_that_holds_another_model_than_its_name_is_not_the_champion(package: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    champion = in_service(store, package)
    shutil.rmtree(champion)
    saved_package(champion, seed=1)
    with pytest.raises(Rejected, match="which is not in the store"):
        store.resolve("champion")


def test_the_demonstration_is_the_champion_where_nothing_was_trained(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    rows = store.list()
    assert [(row.name, row.aliases, row.partition) for row in rows] == [("demonstration", ("champion",), "districts")]
    assert store.resolve("champion") == store.resolve("demonstration") == DEMONSTRATION_FOLDER
    assert not (tmp_path / "store").exists(), "looking must not write"


def test_a_package_that_does_not_fit_on_the_disk_leaves_the_store_as_it_was(package: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    with files_end_at(2000), pytest.raises(Transient, match="The change of models cannot be written to"):
        store.challenge(str(package))
    assert store.aliases() == {} and [path.name for path in store.folder.iterdir()] == ["lock"]
