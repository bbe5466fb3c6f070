"""Model packages and their store: what is saved comes back, and whatever was changed is refused with one sentence."""

import hashlib
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from twin_scanner.errors import Rejected, Transient
from twin_scanner.files.durable_file import write_durably
from twin_scanner.models import store as models
from twin_scanner.models.networks import UNetGenerator
from twin_scanner.models.partition import DISTRICTS, PARTITIONS
from twin_scanner.models.plan import Plan
from twin_scanner.models.promotions import Promotion, write_promotion
from twin_scanner.models.store import (
    DEMONSTRATION_FOLDER,
    Architecture,
    ModelStore,
    load_package,
    save_package,
)

pytestmark = pytest.mark.unit

Card = dict[str, Any]


def saved(
    folder: Path, name: str = "small", seed: int = 0, plan: Plan | None = None, about: Card | None = None
) -> Path:
    """A package of four untrained networks."""
    torch.manual_seed(seed)
    save_package(
        folder,
        name=name,
        plan=plan or Plan(),
        partition=DISTRICTS,
        architecture=Architecture("unet", 2),
        networks={network: UNetGenerator(2) for network in DISTRICTS.networks},
        segmenter="landmarks",
        precision="float32",
        about=about or {"intended_use": "Tests."},
    )
    return folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return saved(tmp_path / "package")


@pytest.fixture
def without_demonstration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(models, "DEMONSTRATION_FOLDER", tmp_path / "no-demonstration")


def in_service(store: ModelStore, package: Path) -> Path:
    """The package as the champion of a store that has no demonstration to fall back on."""
    added = store.add(package)
    (store.folder / "aliases.json").write_text(json.dumps({"champion": added.name}), "utf-8")
    write_promotion(store.folder, Promotion(1, "2026-01-01T00:00:00+00:00", added.name, "", "force", "The first."))
    return added


def change_card(folder: Path, change: Callable[[Card], object]) -> None:
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))


def test_what_was_saved_comes_back_and_computes_the_same(package: Path) -> None:
    torch.manual_seed(0)
    originals = {network: UNetGenerator(2).eval() for network in DISTRICTS.networks}
    loaded = load_package(package)
    assert (loaded.name, loaded.plan, loaded.partition) == ("small", Plan(), DISTRICTS)
    window = torch.rand(1, 1, 32, 32, 32)
    for network, original in originals.items():
        with torch.no_grad():
            torch.testing.assert_close(loaded.networks[network](window), original(window), rtol=0, atol=1e-5)


def test_half_precision_halves_the_files_and_loads_as_float32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    networks = {"volume": UNetGenerator(8)}
    for precision in ("float16", "float32"):
        save_package(
            tmp_path / precision,
            name="one",
            plan=Plan(),
            partition=PARTITIONS["whole-volume"],
            architecture=Architecture("unet", 8),
            networks=networks,
            segmenter="none",
            precision=precision,
            about={},
        )
    half, full = (tmp_path / p / "volume.safetensors" for p in ("float16", "float32"))
    assert 1.95 < full.stat().st_size / half.stat().st_size < 2.0
    loaded = load_package(tmp_path / "float16").networks["volume"]
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    for parameter, original in zip(loaded.parameters(), networks["volume"].parameters(), strict=True):
        np.testing.assert_allclose(parameter.numpy(), original.detach().numpy(), rtol=1e-3, atol=1e-7)


def test_the_name_depends_on_weights_and_plan_and_not_on_dates_metrics_or_names(tmp_path: Path) -> None:
    first = load_package(saved(tmp_path / "a", "a", about={"metrics": {"mae": 1}, "trained_at": "2026-01-01"}))
    again = load_package(saved(tmp_path / "b", "b", about={"metrics": {"mae": 2}, "trained_at": "2026-02-02"}))
    weights = load_package(saved(tmp_path / "c", seed=1))
    plan = load_package(saved(tmp_path / "d", plan=Plan(hu_high=2000.0)))
    assert first.model_hash == again.model_hash
    assert len({first.model_hash, weights.model_hash, plan.model_hash}) == 3


CARD_CHANGES: list[tuple[Callable[[Card], object], str]] = [
    (lambda card: card.update(schema=2), "unknown schema"),
    (lambda card: card.pop("schema"), "unknown schema"),
    (lambda card: card.pop("name"), "without name"),
    (lambda card: card["plan"].update(suv_max=10.0), "Plan that was changed"),
    (lambda card: card["plan"].update(colour="red"), "Plan that this version does not understand"),
    (lambda card: card.pop("plan"), "Plan that this version does not understand"),
    (lambda card: card["plan"].update(spacing_mm=[1.0]), "Plan that this version does not understand"),
    (lambda card: card["architecture"].update(kind="resnet"), "architecture that this version cannot build"),
    (lambda card: card["architecture"].update(features=10**6), "asks for networks of 1000000 features"),
    (lambda card: card["architecture"].update(features=4), "is not the model that its hash names"),
    (lambda card: card["partition"]["networks"].update(head=[5]), "is not the model that its hash names"),
    (lambda card: card["partition"]["networks"].update(head=[300]), "impossible labels"),
    (lambda card: card["partition"]["networks"].update({"../head": [9]}), "impossible labels or names"),
    (lambda card: card["partition"]["networks"].pop("head"), "one network for each"),
    (lambda card: card.update(partition=None), "partition that this version does not understand"),
    (lambda card: card["weights_sha256"].update(head="0" * 64), "damaged or changed head.safetensors"),
    (lambda card: card.update(weights_sha256={}), "one network for each"),
    (lambda card: card.update(model_hash="0" * 64), "is not the model that its hash names"),
]


@pytest.mark.parametrize(("change", "sentence"), CARD_CHANGES)
def test_a_changed_card_is_refused(package: Path, change: Callable[[Card], object], sentence: str) -> None:
    change_card(package, change)
    with pytest.raises(Rejected, match=sentence) as error:
        load_package(package)
    assert "\n" not in str(error.value)


def test_changed_missing_and_foreign_weights_are_refused(package: Path) -> None:
    path = package / "trunk.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Rejected, match=r"damaged or changed trunk\.safetensors"):
        load_package(package)
    path.unlink()
    with pytest.raises(Rejected, match=r"lacks trunk\.safetensors"):
        load_package(package)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"not safetensors at all", "weights of another shape"),
        (safetensors.torch.save({"w": torch.zeros(3)}), "weights of another shape"),
        (
            safetensors.torch.save({k: v * float("nan") for k, v in UNetGenerator(2).state_dict().items()}),
            "weights that are not finite",
        ),
    ],
)
def test_weights_that_fit_the_card_but_not_the_network_are_refused(package: Path, data: bytes, sentence: str) -> None:
    """A package whose hashes are right can still be made by a faulty exporter."""
    digest = hashlib.sha256(data).hexdigest()
    (package / "head.safetensors").write_bytes(data)
    change_card(package, lambda card: card["weights_sha256"].update(head=digest))
    card = json.loads((package / "card.json").read_text())
    right = models._model_hash(card["weights_sha256"], Plan(), DISTRICTS, Architecture("unet", 2))
    change_card(package, lambda card: card.update(model_hash=right))
    with pytest.raises(Rejected, match=sentence):
        load_package(package)


def test_a_pickle_in_a_package_is_never_opened(package: Path, tmp_path: Path) -> None:
    """The classic attack: weights that run code when they are loaded."""

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"w": Bomb()}, package / "head.safetensors")
    torch.save({"w": Bomb()}, package / "extra.pt")
    with pytest.raises(Rejected):
        load_package(package)
    assert not (tmp_path / "exploded").exists()


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"no card\.json"):
        load_package(tmp_path)
    (tmp_path / "card.json").write_bytes(b"\xff\x00")
    with pytest.raises(Rejected, match="not JSON"):
        load_package(tmp_path)


def test_a_package_is_never_overwritten_nor_left_half_written(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(package.parent.iterdir())
    with pytest.raises(Rejected, match="already exists"):
        saved(package)

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        saved(package.parent / "second")
    assert sorted(package.parent.iterdir()) == before


def test_networks_must_be_those_of_the_partition(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="are not those of partition 'districts'"):
        save_package(
            tmp_path / "package",
            name="odd",
            plan=Plan(),
            partition=DISTRICTS,
            architecture=Architecture("unet", 2),
            networks={"head": UNetGenerator(2)},
            segmenter="landmarks",
            about={},
        )


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
    first, second = store.add(package), store.add(saved(tmp_path / "other", seed=1))
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
    first, second = in_service(store, package), store.add(saved(tmp_path / "other", "large", seed=1))
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
    first, second = in_service(store, package), store.add(saved(tmp_path / "other", seed=1))
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
    first, second = in_service(store, package), store.add(saved(tmp_path / "other", seed=1))

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
    hashes = [store.add(saved(tmp_path / str(seed), seed=seed)).name for seed in (1, 2, 3, 4)]
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
    other = store.add(saved(tmp_path / "other", seed=1))
    (other / "card.json").write_text("{")
    assert store.resolve("champion") == champion
    with pytest.raises(Rejected, match=f"'{other.name}' has a card.json that is not JSON"):
        store.list()


@pytest.mark.usefixtures("without_demonstration")
def test_a_folder_that_holds_another_model_than_its_name_is_not_the_champion(package: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    champion = in_service(store, package)
    shutil.rmtree(champion)
    saved(champion, seed=1)
    with pytest.raises(Rejected, match="which is not in the store"):
        store.resolve("champion")


def test_the_demonstration_is_the_champion_where_nothing_was_trained(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    rows = store.list()
    assert [(row.name, row.aliases, row.partition) for row in rows] == [("demonstration", ("champion",), "districts")]
    assert store.resolve("champion") == store.resolve("demonstration") == DEMONSTRATION_FOLDER
    assert not (tmp_path / "store").exists(), "looking must not write"


def test_the_demonstration_package_is_whole_small_and_says_what_it_is() -> None:
    package = load_package(DEMONSTRATION_FOLDER)
    assert package.partition == DISTRICTS and package.architecture == Architecture("unet", 8)
    assert package.plan == Plan(spacing_mm=(4.0, 4.08, 4.08))
    assert package.card["precision"] == "float16" and package.card["segmenter"] == "landmarks"
    assert "phantom" in package.card["intended_use"] and "not for clinical use" in package.card["intended_use"]
    weights = sum(path.stat().st_size for path in DEMONSTRATION_FOLDER.glob("*.safetensors"))
    assert weights < 8.5e6
