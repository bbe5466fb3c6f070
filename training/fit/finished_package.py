"""The model package that a finished run ends in, measured as it will serve."""

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from training.fit.config import TrainConfig
from training.fit.run_data import RunData
from training.fit.state import architecture
from training.fit.validation import held_out_error
from twin_scanner.models.package import build_network, load_package, save_package
from twin_scanner.progress import Progress

log = logging.getLogger(__name__)

PACKAGE: Final = "package"
Weights = Mapping[str, Mapping[str, Tensor]]


def write_package(config: TrainConfig, weights: Weights, data: RunData, on_windows: Progress | None = None) -> Path:
    """The package twice: once to measure it as it will serve (half precision included), once with its metrics."""
    with tempfile.TemporaryDirectory(dir=config.out, prefix=".measured-") as scratch:
        _save(config, Path(scratch) / PACKAGE, weights, data, {})
        metrics = held_out_error(load_package(Path(scratch) / PACKAGE), data.validated, on_windows)
    folder = config.out / PACKAGE
    _save(config, folder, weights, data, metrics)
    log.info("held-out mean absolute error in SUV: %s", metrics)
    return folder


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
        about={
            "intended_use": config.package.intended_use,
            "licence": config.package.licence,
            "segmenter_hash": data.segmenter_hash,
            "training_data": data.as_json(),
            "training": config.as_json(),
            "metrics": {"held_out_mean_absolute_error_suv": metrics},
        },
    )
