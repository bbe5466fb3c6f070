"""MOOSE's body districts (clin_ct_body) by nnU-Net's own predictor on a weights folder, in a process of its own."""

import hashlib
import importlib.util
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import SimpleITK as sitk

from twin_scanner.districts.completion import completed
from twin_scanner.districts.district_map import DistrictMap
from twin_scanner.districts.network_process import private_copy, run_network, sha256_of, wrong_hash
from twin_scanner.errors import Rejected
from twin_scanner.partition import DISTRICT_LABELS
from twin_scanner.volume import (
    AIR_HU,
    LabelArray,
    Volume,
    geometry_of,
    resample,
    resample_labels,
    to_sitk,
)

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

    weights: Path
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
        sentence = package_missing()
        if sentence is not None:
            raise Rejected(sentence)
        folder = trainer_folder(self.weights)
        table = district_table(folder)
        upright = Volume(*_reoriented(ct))
        coarse = resample(upright, upright.geometry.with_spacing(_model_spacing_mm(folder, upright)), AIR_HU)
        with private_copy(folder, weight_files(folder), self.sha256, "districts.moose_sha256") as trusted:
            request = {"segmenter": self.name, "weights": str(trusted), "device": self.device, "folds": _folds(folder)}
            found = run_network("twin_scanner.districts.moose_process", coarse, request, ("labels",), self.timeout_s)[
                "labels"
            ]
        districts = table[found]
        on_ct = resample_labels(districts, coarse.geometry, ct.geometry)
        return DistrictMap(completed(on_ct, ct), ct.geometry, self.name, self.segmenter_hash)


def missing(weights: Path | None, sha256: str) -> str | None:
    """What keeps MOOSE from running, as one sentence that says what to do; None where it is ready."""
    if (sentence := package_missing()) is not None:
        return sentence
    if weights is None:
        return f"The segmenter 'moose' needs its weights: {_where()}"
    try:
        folder = trainer_folder(weights)
        district_table(folder)
    except Rejected as error:
        return str(error)
    found = weights_sha256(folder)
    if not sha256:
        return (
            f"The weights of 'moose' are not vouched for: set districts.moose_sha256 to {found}, once you have made "
            "sure where they come from."
        )
    return None if found == sha256 else wrong_hash(found, sha256, "districts.moose_sha256")


def package_missing() -> str | None:
    """The sentence for a missing nnU-Net; None where it is installed."""
    if importlib.util.find_spec("nnunetv2") is None:
        return "The segmenter 'moose' needs nnU-Net, which is not installed: pip install 'twin-scanner[moose]'."
    return None


def weights_sha256(weights: Path) -> str:
    """The SHA-256 that the configuration must hold: over dataset.json, plans.json and the checkpoint of every fold."""
    folder = trainer_folder(weights)
    return sha256_of(folder, weight_files(folder))


def trainer_folder(weights: Path) -> Path:
    """The one folder nnU-Net reads: dataset.json and plans.json beside fold_*; raises Rejected for none or several."""
    candidates = [weights, *weights.glob("*__*__*"), *weights.glob("Dataset*/*__*__*")]
    found = [folder for folder in candidates if (folder / "plans.json").is_file()]
    if not found:
        raise Rejected(f"{weights} holds no nnU-Net model: {_where()}")
    if len(found) > 1:
        raise Rejected(f"{weights} holds {len(found)} nnU-Net models: set districts.moose_weights to one of them.")
    if not weight_files(found[0])[2:]:
        raise Rejected(f"{found[0].name} holds no fold_*/{CHECKPOINT}: {_where()}")
    return found[0]


def weight_files(folder: Path) -> list[Path]:
    """All files that are loaded."""
    return [folder / "dataset.json", folder / "plans.json", *sorted(folder.glob(f"fold_*/{CHECKPOINT}"))]


def district_table(folder: Path) -> LabelArray:
    """Our label (256 entries) of each of the model's; read by name, so that no other model is taken for this one."""
    import numpy as np

    labels = _json(folder / "dataset.json").get("labels", {})
    named = {str(name).lower(): value for name, value in labels.items() if str(name).lower() != "background"}
    if set(named) != set(DISTRICT_OF_NAME):
        raise Rejected(
            f"The model in {folder.name} has the labels {', '.join(sorted(named)) or 'none'}, not Head, Body, Arms and "
            f"Legs, so it is not MOOSE's clin_ct_body: {_where()}"
        )
    table = np.zeros(256, np.uint8)
    for name, value in named.items():
        table[int(value)] = DISTRICT_LABELS[DISTRICT_OF_NAME[name]]
    return table


def _folds(folder: Path) -> list[str]:
    return [file.parent.name.removeprefix("fold_") for file in weight_files(folder)[2:]]


def _model_spacing_mm(folder: Path, ct: Volume) -> tuple[float, float, float]:
    """The spacing (D, H, W) at which the network works, so that its logits are never resampled to a fine grid.

    A model that transposes its axes gets the CT as it is, and resamples by itself.
    """
    plans = _json(folder / "plans.json")
    try:
        spacing = [float(s) for s in plans["configurations"][CONFIGURATION]["spacing"]]
        straight = list(plans.get("transpose_forward", [0, 1, 2])) == [0, 1, 2]
    except (KeyError, TypeError, ValueError) as error:
        raise Rejected(f"plans.json of {folder.name} names no spacing for {CONFIGURATION}: {_where()}") from error
    if not straight or len(spacing) != 3 or not all(math.isfinite(s) and s > 0 for s in spacing):
        return ct.geometry.spacing_mm
    return spacing[0], spacing[1], spacing[2]


def _reoriented(ct: Volume) -> tuple[Any, Any]:
    """Array and geometry in RAS, the orientation of the training images; the same voxels."""
    image = sitk.DICOMOrient(to_sitk(ct.array, ct.geometry), "RAS")
    return sitk.GetArrayFromImage(image), geometry_of(image)


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Rejected(f"{file.name} of the model cannot be read: {_where()}") from error
    return content if isinstance(content, dict) else {}


def _where() -> str:
    return (
        f"unpack {ARCHIVE} ({RELEASE}{ARCHIVE}, licence CC BY 4.0) into a folder, and set districts.moose_weights to "
        "that folder and districts.moose_sha256 to the hash that 'twin-scanner doctor' then prints."
    )
