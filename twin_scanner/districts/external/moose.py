"""MOOSE's body districts (clin_ct_body) by nnU-Net's own predictor on a weights folder, in a process of its own."""

import hashlib
import importlib.util
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from twin_scanner.districts.completion import completed
from twin_scanner.districts.district_map import DistrictMap
from twin_scanner.districts.external.network_process import Weights, run_network
from twin_scanner.errors import Misconfigured, Rejected
from twin_scanner.imaging.district_labels import DISTRICT_LABELS
from twin_scanner.imaging.volume import AIR_HU, LabelArray, Triple, Volume, resample, resample_labels

ARCHIVE: Final = "clin_ct_body_27112023.zip"
RELEASE: Final = "https://github.com/ENHANCE-PET/MOOSE/releases/download/moosez-v.3.1.3/"
CONFIGURATION: Final = "3d_fullres"
CHECKPOINT: Final = "checkpoint_final.pth"
DISTRICT_OF_NAME: Final = {"head": "head", "body": "trunk", "arms": "arms", "legs": "legs"}
"""MOOSE's label names, in lower case, to ours: its numbers are 1 Legs, 2 Body, 3 Head, 4 Arms."""
VERSION: Final = "1"


@dataclass(frozen=True)
class MooseSegmenter:
    """Districts by MOOSE's network; ``weights`` is Dataset001_body, a folder around it, or its trainer's folder.

    ``sha256`` is what ``weights_sha256`` gives for trusted weights: nnU-Net unpickles its checkpoints, so they are
    code, and nothing of another hash is ever loaded.
    """

    weights: Path | None
    sha256: str
    device: str = "cpu"
    timeout_s: float = 1800.0
    name: str = "moose"

    @property
    def segmenter_hash(self) -> str:
        """SHA-256 of the weights' hash and of how they are used."""
        text = json.dumps({"name": self.name, "version": VERSION, "weights": self.sha256}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def segment(self, ct: Volume) -> DistrictMap:
        """The districts on ``ct.geometry``; raises Rejected with what is missing, Transient where the process dies."""
        if (sentence := package_missing()) is not None:
            raise Misconfigured(sentence)
        weights = find_weights(self.weights)
        table = district_table(weights.folder)
        ras = ct.oriented("RAS")
        coarse = resample(ras, ras.geometry.with_spacing(_model_spacing_mm(weights.folder, ras)), AIR_HU)
        with weights.verified_copy(self.sha256) as trusted:
            request = {"segmenter": self.name, "weights": str(trusted), "device": self.device, "folds": _folds(weights)}
            found = run_network(
                "twin_scanner.districts.external.moose_process", coarse, request, ("labels",), self.timeout_s
            )
        on_ct = resample_labels(table[found["labels"]], coarse.geometry, ct.geometry)
        return DistrictMap(completed(on_ct, ct), ct.geometry, self.name, self.segmenter_hash)


def missing(weights: Path | None, sha256: str) -> str | None:
    """What keeps MOOSE from running, as one sentence that says what to do; None where it is ready."""
    if (sentence := package_missing()) is not None:
        return sentence
    try:
        found = find_weights(weights)
        district_table(found.folder)
        return found.fault(sha256)
    except Rejected as error:
        return str(error)


def package_missing() -> str | None:
    """The sentence for a missing nnU-Net; None where it is installed."""
    if importlib.util.find_spec("nnunetv2") is None:
        return "The segmenter 'moose' needs nnU-Net, which is not installed: pip install 'twin-scanner[moose]'."
    return None


def weights_sha256(weights: Path) -> str:
    """The SHA-256 that the configuration must hold: over dataset.json, plans.json and the checkpoint of every fold."""
    return find_weights(weights).sha256


def find_weights(weights: Path | None) -> Weights:
    """All files that are loaded, below the one folder with dataset.json and plans.json beside fold_*.

    Raises Rejected, with what to do, for none or several.
    """
    if weights is None:
        raise Misconfigured(f"The segmenter 'moose' needs its weights: {_where()}")
    candidates = [weights, *weights.glob("*__*__*"), *weights.glob("Dataset*/*__*__*")]
    found = [folder for folder in candidates if (folder / "plans.json").is_file()]
    if not found:
        raise Misconfigured(f"{weights} holds no nnU-Net model: {_where()}")
    if len(found) > 1:
        raise Misconfigured(f"{weights} holds {len(found)} nnU-Net models: set districts.moose_weights to one of them.")
    (folder,) = found
    checkpoints = sorted(folder.glob(f"fold_*/{CHECKPOINT}"))
    if not checkpoints:
        raise Misconfigured(f"{folder.name} holds no fold_*/{CHECKPOINT}: {_where()}")
    return Weights("moose", folder, (folder / "dataset.json", folder / "plans.json", *checkpoints))


def district_table(folder: Path) -> LabelArray:
    """Our label (256 entries) of each of the model's; read by name, so that no other model is taken for this one."""
    labels = _json(folder / "dataset.json").get("labels", {})
    named = {str(name).lower(): value for name, value in labels.items() if str(name).lower() != "background"}
    if set(named) != set(DISTRICT_OF_NAME):
        raise Misconfigured(
            f"The model in {folder.name} has the labels {', '.join(sorted(named)) or 'none'}, not Head, Body, Arms and "
            f"Legs, so it is not MOOSE's clin_ct_body: {_where()}"
        )
    table = np.zeros(256, np.uint8)
    for name, value in named.items():
        table[int(value)] = DISTRICT_LABELS[DISTRICT_OF_NAME[name]]
    return table


def _folds(weights: Weights) -> list[str]:
    return [file.parent.name.removeprefix("fold_") for file in weights.files if file.name == CHECKPOINT]


def _model_spacing_mm(folder: Path, ct: Volume) -> Triple:
    """The spacing (D, H, W) at which the network works, so that its logits are never resampled to a fine grid.

    A model that transposes its axes gets the CT as it is, and resamples by itself.
    """
    plans = _json(folder / "plans.json")
    try:
        spacing = [float(s) for s in plans["configurations"][CONFIGURATION]["spacing"]]
        straight = list(plans.get("transpose_forward", [0, 1, 2])) == [0, 1, 2]
    except (KeyError, TypeError, ValueError) as error:
        raise Misconfigured(f"plans.json of {folder.name} names no spacing for {CONFIGURATION}: {_where()}") from error
    if not straight or len(spacing) != 3 or not all(math.isfinite(s) and s > 0 for s in spacing):
        return ct.geometry.spacing_mm
    return spacing[0], spacing[1], spacing[2]


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{file.name} of the model cannot be read: {_where()}") from error
    return content if isinstance(content, dict) else {}


def _where() -> str:
    return (
        f"unpack {ARCHIVE} ({RELEASE}{ARCHIVE}, licence CC BY 4.0) into a folder, and set districts.moose_weights to "
        "that folder and districts.moose_sha256 to the hash that 'twin-scanner doctor' then prints."
    )
