"""Model packages: what is saved comes back, and whatever was changed is refused with one sentence."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.samples.saved_packages import saved_package
from twin_scanner.errors import Rejected
from twin_scanner.models.card import Architecture, model_hash_of
from twin_scanner.models.networks import UNetGenerator
from twin_scanner.models.package import build_network, load_package, save_package
from twin_scanner.models.partition import DISTRICTS, PARTITIONS
from twin_scanner.models.plan import Plan
from twin_scanner.models.store import DEMONSTRATION_FOLDER

pytestmark = pytest.mark.unit

Card = dict[str, Any]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return saved_package(tmp_path / "package")


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


def test_a_package_from_before_the_options_keeps_its_card_and_its_hash(package: Path) -> None:
    """The formula and the card's entry of the first release, written out."""
    card = json.loads((package / "card.json").read_text())
    assert card["architecture"] == {"kind": "unet", "features": 2}
    content = {
        "weights": card["weights_sha256"],
        "plan": Plan().plan_hash,
        "partition": DISTRICTS.as_json(),
        "architecture": {"kind": "unet", "features": 2},
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert load_package(package).model_hash == digest == card["model_hash"]


def test_a_stitching_other_than_the_papers_is_part_of_card_and_name(tmp_path: Path) -> None:
    folders = {stitching: tmp_path / stitching for stitching in ("uniform", "gaussian")}
    for stitching, folder in folders.items():
        torch.manual_seed(0)
        save_package(
            folder,
            name="one",
            plan=Plan(),
            partition=PARTITIONS["whole-body"],
            architecture=Architecture("unet", 2),
            networks={"body": UNetGenerator(2)},
            segmenter="landmarks",
            stitching=stitching,
            about={},
        )
    uniform, gaussian = (load_package(folder) for folder in folders.values())
    assert (uniform.card.stitching, gaussian.card.stitching) == ("uniform", "gaussian")
    assert "stitching" not in uniform.card.as_json() and gaussian.card.as_json()["stitching"] == "gaussian"
    assert uniform.card.weights_sha256 == gaussian.card.weights_sha256 and uniform.model_hash != gaussian.model_hash
    assert gaussian.card.stitching_for("package") == "gaussian" and gaussian.card.stitching_for("uniform") == "uniform"
    change_card(folders["gaussian"], lambda card: card.pop("stitching"))
    with pytest.raises(Rejected, match="its card was changed"):
        load_package(folders["gaussian"])
    change_card(folders["uniform"], lambda card: card.update(stitching="mosaic"))
    with pytest.raises(Rejected, match="made for a stitching that this version does not know"):
        load_package(folders["uniform"])


@pytest.mark.parametrize("options", [{"soft_tissue": True}, {"context": True}, {"soft_tissue": True, "context": True}])
def test_the_options_of_the_input_are_part_of_card_and_name(options: dict[str, bool], tmp_path: Path) -> None:
    architecture = Architecture("unet", 2, **options)
    save_package(
        tmp_path / "package",
        name="seeing",
        plan=Plan(),
        partition=PARTITIONS["whole-body"],
        architecture=architecture,
        networks={"body": build_network(architecture)},
        segmenter="landmarks",
        about={},
    )
    loaded = load_package(tmp_path / "package")
    assert loaded.architecture == architecture
    assert json.loads((tmp_path / "package" / "card.json").read_text())["architecture"] == {
        "kind": "unet",
        "features": 2,
        **options,
    }
    plain = model_hash_of(loaded.card.weights_sha256, Plan(), loaded.partition, Architecture("unet", 2))
    assert loaded.model_hash != plain


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"soft_tissue": 1}, "neither true nor false"),
        ({"kind": "resnet9", "context": True}, "joins a U-Net at its bottleneck"),
        ({"depth": True}, "cannot build"),
    ],
)
def test_an_impossible_option_of_the_input_is_refused(changed: dict[str, Any], sentence: str, package: Path) -> None:
    change_card(package, lambda card: card["architecture"].update(changed))
    with pytest.raises(Rejected, match=sentence):
        load_package(package)


def test_the_name_depends_on_weights_and_plan_and_not_on_dates_metrics_or_names(tmp_path: Path) -> None:
    first = load_package(saved_package(tmp_path / "a", "a", about={"metrics": {"mae": 1}, "trained_at": "2026-01-01"}))
    again = load_package(saved_package(tmp_path / "b", "b", about={"metrics": {"mae": 2}, "trained_at": "2026-02-02"}))
    weights = load_package(saved_package(tmp_path / "c", seed=1))
    plan = load_package(saved_package(tmp_path / "d", plan=Plan(hu_high=2000.0)))
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
    right = model_hash_of(card["weights_sha256"], Plan(), DISTRICTS, Architecture("unet", 2))
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
        saved_package(package)

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        saved_package(package.parent / "second")
    assert sorted(package.parent.iterdir()) == before


def test_a_package_of_a_version_that_knew_no_training_grid_loads_under_its_name(tmp_path: Path) -> None:
    """The hash was recorded with that version, and its card had these five keys."""
    digests = dict.fromkeys(DISTRICTS.networks, "0" * 64)
    laid_on_ct, architecture = Plan(training_grid="ct"), Architecture("unet", 2)
    recorded = "dae8f9ffa1beb9a6a9cfe59de8f51956b41d1de7bcfe53573ab1b8261f4d707d"
    assert model_hash_of(digests, laid_on_ct, DISTRICTS, architecture) == recorded
    assert model_hash_of(digests, Plan(), DISTRICTS, architecture) != recorded
    folder = saved_package(tmp_path / "old", plan=laid_on_ct)
    card = json.loads((folder / "card.json").read_text("utf-8"))
    assert set(card["plan"]) == {"spacing_mm", "ct_scaling", "hu_low", "hu_high", "suv_max"}
    loaded = load_package(folder)
    assert (loaded.plan, loaded.model_hash) == (laid_on_ct, card["model_hash"])


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


def test_the_demonstration_package_is_whole_small_and_says_what_it_is() -> None:
    package = load_package(DEMONSTRATION_FOLDER)
    assert package.partition == DISTRICTS and package.card.stitching == "gaussian"
    assert package.architecture == Architecture("unet", 8, soft_tissue=True, context=True)
    assert package.plan.spacing_mm == (4.0, 4.08, 4.08)
    assert package.card.precision == "float16" and package.card.segmenter == "landmarks"
    assert "phantom" in package.card.intended_use and "not for clinical use" in package.card.intended_use
    weights = sum(path.stat().st_size for path in DEMONSTRATION_FOLDER.glob("*.safetensors"))
    assert weights < 16e6
