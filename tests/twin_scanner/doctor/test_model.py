"""A package that is whole, damaged, absent, and trained on other districts."""

from pathlib import Path

import pytest
import torch

from tests.samples.examined import examined_settings, found
from twin_scanner.doctor import Finding, findings_of
from twin_scanner.doctor.model import check_model
from twin_scanner.models.card import Architecture
from twin_scanner.models.package import build_network, save_package
from twin_scanner.models.partition import DISTRICTS
from twin_scanner.models.plan import Plan
from twin_scanner.models.store import ModelStore
from twin_scanner.settings import Settings

pytestmark = pytest.mark.node


def look(settings: Settings) -> list[Finding]:
    return list(findings_of("model", check_model, settings))


def own_package(folder: Path, segmenter: str = "landmarks") -> str:
    """A small package of our own in a store; its hash."""
    torch.manual_seed(0)
    architecture = Architecture("unet", 1)
    model_hash = save_package(
        folder / "package",
        name="ours",
        plan=Plan(),
        partition=DISTRICTS,
        architecture=architecture,
        networks={name: build_network(architecture) for name in DISTRICTS.networks},
        segmenter=segmenter,
        about={},
    )
    ModelStore(folder / "models").add(folder / "package")
    return model_hash


def test_the_model_is_loaded_and_its_segmenter_compared(tmp_path: Path, closed_port: int) -> None:
    model_hash = own_package(tmp_path, segmenter="moose")
    model = {"name": "ours", "store": tmp_path / "models"}
    findings = look(examined_settings(tmp_path, closed_port, model=model))
    assert found(findings, "model") == Finding("model", "ok", f"Model 'ours' ({model_hash[:12]}) is whole.")
    assert found(findings, "model's segmenter").state == "fault"
    assert "set districts.segmenter to 'moose'" in found(findings, "model's segmenter").sentence
    allowed = look(examined_settings(tmp_path, closed_port, model={**model, "allow_other_segmenter": True}))
    assert found(allowed, "model's segmenter").state == "warning"
    weights = tmp_path / "models" / model_hash / "head.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    damaged = found(look(examined_settings(tmp_path, closed_port, model=model)), "model")
    assert damaged.state == "fault"
    assert "damaged or changed head.safetensors" in damaged.sentence
    absent = found(look(examined_settings(tmp_path, closed_port, model={"name": "nobody"})), "model")
    assert (absent.state, "There is no model 'nobody'" in absent.sentence) == ("fault", True)
