"""Export and import of model packages: our own folder, and a MONAI Bundle around it; nothing foreign is executed."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor, nn

from training.exchange.monai_config import inference, metadata, monai_bundle_key
from twin_scanner.errors import Rejected, Transient
from twin_scanner.files.durable_file import whole_folder, write_durably
from twin_scanner.models.card import CARD
from twin_scanner.models.package import ModelPackage, build_network, load_package, save_package
from twin_scanner.models.store import ModelStore, copy_package

Layout: TypeAlias = Literal["folder", "monai"]
LAYOUTS: Final = ("folder", "monai")
MODELS: Final = "models"
"""The folder of a MONAI bundle that is our package, byte for byte."""
METADATA: Final = "configs/metadata.json"
INFERENCE: Final = "configs/inference.json"


def export_package(package: Path, out: Path, layout: Layout = "folder") -> Path:
    """Write a package as a new folder ``out``: our own layout, or a MONAI Bundle.

    The bundle's ``models`` are our package itself, so ``import_package`` gives back the same model. MONAI runs it
    without this program::

        python -m monai.bundle run --bundle_root OUT --meta_file OUT/configs/metadata.json
            --config_file OUT/configs/inference.json --ct CT.nii.gz --districts DISTRICTS.nii.gz --output_dir DIR

    Raises Rejected where ``out`` exists, the layout is unknown or the package is not what its hash says; Transient
    where the disk fails.
    """
    if layout not in LAYOUTS:
        raise Rejected(f"'{layout}' is no layout of a model package: choose one of {', '.join(LAYOUTS)}.")
    if out.exists():
        raise Rejected(f"{out} already exists: give a new folder, nothing is overwritten.")
    try:
        if layout == "folder":
            copy_package(package, out)
        else:
            _write_monai_bundle(package, out)
    except OSError as error:
        raise Transient(f"{out} cannot be written: check free space and rights.") from error
    return out


def import_package(source: Path, store: ModelStore) -> Path:
    """Copy a package folder, or the one in a MONAI bundle that ``export_package`` wrote, into the store; where it lies.

    Only weights and card are read, never the bundle's configuration. A network that was trained further elsewhere lies
    as ``models/NETWORK.pt`` beside the safetensors file that it replaces: a PyTorch state dictionary of plain tensors,
    under our names or the bundle's. The model then has a new hash, and its metrics are not carried over.

    Raises Rejected, naming the file and the fault, where anything but plain tensors of the right shape is found;
    Transient where the disk fails.
    """
    folder = source if (source / CARD).is_file() else source / MODELS
    if not (folder / CARD).is_file():
        raise Rejected(f"{source} is neither a model package nor a MONAI bundle exported from one: it has no {CARD}.")
    changed = sorted(folder.glob("*.pt"))
    try:
        if not changed:
            load_package(folder)
            return store.add(folder)
        with tempfile.TemporaryDirectory(prefix="import-") as scratch:
            package = Path(scratch) / "package"
            _package_of(folder, changed, package)
            return store.add(package)
    except OSError as error:
        raise Transient(f"{source} cannot be imported: check that it can be read and that disks have room.") from error


def _write_monai_bundle(package: Path, out: Path) -> None:
    """The whole MONAI bundle, or no folder."""
    loaded = load_package(package)
    with whole_folder(out) as scratch:
        copy_package(package, scratch / MODELS)
        (scratch / METADATA).parent.mkdir()
        for name, content in ((METADATA, metadata(loaded)), (INFERENCE, inference(loaded))):
            write_durably(scratch / name, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def _package_of(folder: Path, changed: list[Path], target: Path) -> None:
    """A new package: the networks of a MONAI bundle, some of them with weights from elsewhere."""
    original = load_package(folder)
    networks: dict[str, nn.Module] = dict(original.networks)
    for path in changed:
        if path.stem not in networks:
            raise Rejected(f"{path.name} is no network of model '{original.name}': {', '.join(networks)} are.")
        networks[path.stem] = _network(original, path)
    card = original.card
    about = {key: value for key, value in card.about.items() if key != "metrics"}
    save_package(
        target,
        name=original.name,
        plan=original.plan,
        partition=original.partition,
        architecture=original.architecture,
        networks=networks,
        segmenter=card.segmenter,
        precision=card.precision,
        stitching=card.stitching,
        about={**about, "trained_further_from": original.model_hash},
    )


def _network(original: ModelPackage, path: Path) -> nn.Module:
    """A generator of the package's architecture with the weights of a PyTorch file, under our names or the bundle's."""
    network, weights = build_network(original.architecture), _tensors(path)
    own_names = {name: key for key in network.state_dict() for name in (key, monai_bundle_key(key))}
    unknown = sorted(weights.keys() - own_names.keys())
    if unknown:
        raise Rejected(f"{path.name} holds '{unknown[0]}', which no weight of this architecture is called.")
    try:
        network.load_state_dict({own_names[name]: tensor.float() for name, tensor in weights.items()})
    except RuntimeError as error:
        raise Rejected(f"{path.name} holds weights of another shape than its architecture: export it again.") from error
    return network


def _tensors(path: Path) -> dict[str, Tensor]:
    """The state dictionary of a PyTorch file; what is in it is unpickled as tensors and plain containers or not at all.

    PyTorch's restricted unpickler refuses every other type before it is built (``weights_only``).
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, ValueError, EOFError, LookupError, AttributeError) as error:
        raise Rejected(
            f"{path.name} is not a file of plain tensors and was not opened: save the network's state_dict() alone."
        ) from error
    if not isinstance(content, Mapping) or not all(_is_weight(name, value) for name, value in content.items()):
        raise Rejected(f"{path.name} holds more than named tensors: save the network's state_dict() alone.")
    return dict(content)


def _is_weight(name: object, value: object) -> bool:
    return isinstance(name, str) and type(value) is Tensor and value.is_floating_point() and not value.is_sparse
