"""The model package that a finished run ends in, measured as it will serve."""

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from training.fit.config import TrainConfig
from training.fit.run_data import RunData
from training.fit.state import architecture, warm_start
from training.fit.validation import held_out_error
from twin_scanner.files.writable import disk_fault
from twin_scanner.models.card import read_card
from twin_scanner.models.package import build_network, load_package, save_package
from twin_scanner.progress import Progress

log = logging.getLogger(__name__)

PACKAGE: Final = "package"
HELD_OUT: Final = "held_out_mean_absolute_error_suv"
Weights = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class FinishedPackage:
    """A package that a run ended in, its score, and what its maker may do next.

    ``held_out_error_suv`` is the mean absolute error over the held-out voxels by district and body; empty where nothing
    was held out.
    """

    folder: Path
    name: str
    held_out_error_suv: Mapping[str, float]

    @property
    def sentences(self) -> list[str]:
        """The score, and the commands that evaluate the package and put it in service."""
        errors = ", ".join(f"{region} {error:.4f}" for region, error in self.held_out_error_suv.items())
        score = f"Held-out mean absolute error in SUV: {errors}." if errors else "Nothing was held out to score it on."
        return [
            score,
            f"Evaluate it: twin-scanner evaluate --model {self.folder} --dataset STUDIES --out EVALUATION",
            f"Put it in service: twin-scanner models import {self.folder}, then "
            f"twin-scanner models promote {self.name} --force REASON",
        ]


def read_finished(folder: Path) -> FinishedPackage:
    """What a package's card says of its run; raises Rejected where there is no package."""
    card = read_card(folder)
    metrics = card.about.get("metrics") or {}
    return FinishedPackage(folder, card.name, dict(metrics.get(HELD_OUT) or {}))


def write_package(config: TrainConfig, trained: Weights, data: RunData, on_windows: Progress | None = None) -> Path:
    """The package twice: once to measure it as it will serve (half precision included), once with its metrics.

    Networks that the run does not train are the warm start's. Raises Transient where the disk fails.
    """
    weights = {**trained, **{network: warm_start(config, network) for network in config.kept_networks}}
    folder = config.out / PACKAGE
    try:
        with tempfile.TemporaryDirectory(dir=config.out, prefix=".measured-") as scratch:
            _save(config, Path(scratch) / PACKAGE, weights, data, {})
            metrics = held_out_error(load_package(Path(scratch) / PACKAGE), data.validated, on_windows, _log_scored)
        _save(config, folder, weights, data, metrics)
    except OSError as error:
        raise disk_fault(folder, error) from error
    log.info("held-out mean absolute error in SUV: %s", metrics)
    return folder


def _log_scored(done: int, total: int) -> None:
    log.info("held-out study %d of %d is scored", done, total)


def _save(config: TrainConfig, folder: Path, weights: Weights, data: RunData, metrics: dict[str, float]) -> None:
    networks: dict[str, nn.Module] = {}
    for network, state in weights.items():
        networks[network] = build_network(architecture(config))
        networks[network].load_state_dict(state)
    save_package(
        folder,
        name=config.name,
        plan=config.plan,
        partition=config.covered,
        architecture=architecture(config),
        networks=networks,
        segmenter=data.segmenter,
        precision=config.package.precision,
        stitching=config.package.stitching,
        about={
            "intended_use": config.package.intended_use,
            "licence": config.package.licence,
            "segmenter_hash": data.segmenter_hash,
            "training_data": data.as_json(),
            "training": config.as_json() | _begun_with(config),
            "metrics": {HELD_OUT: metrics},
        },
    )


def _begun_with(config: TrainConfig) -> dict[str, str]:
    """The warm start by its model hash: its folder is one of this machine and may hold another package tomorrow."""
    return {} if config.warm_start is None else {"warm_start": read_card(config.warm_start).model_hash}
