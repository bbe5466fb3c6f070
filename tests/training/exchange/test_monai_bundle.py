"""Model packages out and in: MONAI's own command runs what is exported, and nothing that is imported is executed."""

import importlib.util
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle.config_parser import ConfigParser

from tests.conftest import missing
from tests.samples.cases import quick_and_long
from training.exchange.monai_bundle import LAYOUTS, Layout, export_package, import_package
from training.exchange.monai_config import MONAI_NEEDS, monai_bundle_key
from twin_scanner.errors import Rejected, Transient
from twin_scanner.imaging.volume import (
    Geometry,
    LabelArray,
    Volume,
    canonical_labels,
    read_nifti,
    resample_labels,
    write_nifti,
)
from twin_scanner.models import plan as preprocess
from twin_scanner.models.card import Architecture, Stitching
from twin_scanner.models.inputs import ct_channels
from twin_scanner.models.package import ModelPackage, build_network, load_package, save_package
from twin_scanner.models.partition import PARTITIONS
from twin_scanner.models.plan import Plan
from twin_scanner.models.store import ModelStore
from twin_scanner.synthesis.translate import translate

pytestmark = pytest.mark.unit

PLAN = Plan(spacing_mm=(6.0, 4.0, 4.0))
TOLERANCE_SUV = 1e-4 * PLAN.suv_max
DEADLINE_S = 120.0


def saved(
    folder: Path,
    partition: str = "districts",
    kind: str = "unet",
    plan: Plan = PLAN,
    seed: int = 0,
    stitching: Stitching = "uniform",
    **options: bool,
) -> Path:
    """A package of untrained networks with large weights, so that what they make varies over the whole SUV range."""
    torch.manual_seed(seed)
    architecture = Architecture(kind, 2, **options)  # type: ignore[arg-type]
    networks = {name: build_network(architecture) for name in PARTITIONS[partition].networks}
    for parameter in (parameter for network in networks.values() for parameter in network.parameters()):
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    save_package(
        folder,
        name="small",
        plan=plan,
        partition=PARTITIONS[partition],
        architecture=architecture,
        networks=networks,
        segmenter="landmarks",
        stitching=stitching,
        about={"intended_use": "Tests.", "licence": "CC0-1.0", "metrics": {"mae": 1.0}},
    )
    return folder


def rotated(degrees: float) -> Geometry:
    """A grid away from the Plan's, turned about the left-right axis, its slices stored feet last."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    axes = ((0.0, s, -c), (0.0, c, s), (1.0, 0.0, 0.0))
    return Geometry((61, 57, 52), (4.5, 3.7, 2.9), (10.0, -20.0, 30.0), axes)


ON_GRID = Geometry((34, 40, 30), PLAN.spacing_mm, (10.0, -20.0, 30.0))
"""One axis is shorter than a window."""


def body_ct(geometry: Geometry, seed: int = 0) -> tuple[Volume, LabelArray]:
    """An oblong body of noise with four districts, in air."""
    random = np.random.default_rng(seed)
    d, h, w = (
        np.linspace(-1, 1, n)[tuple(slice(None) if i == axis else None for i in range(3))]
        for axis, n in enumerate(geometry.shape)
    )
    body = np.broadcast_to(h**2 + w**2 < 0.8, geometry.shape)
    labels = np.where(d > 0.5, 1, np.where(d < -0.5, 4, np.where(w > 0.4, 3, 2))).astype(np.uint8) * body
    hu = np.where(body, np.rint(random.normal(40.0, 300.0, geometry.shape)), -1000.0).astype(np.float32)
    return Volume(hu, geometry), labels.astype(np.uint8)


def run_bundle(bundle: Path, ct: Path, districts: Path | None, out: Path) -> "subprocess.CompletedProcess[str]":
    """MONAI's own command, in a process that knows no code of ours."""
    if importlib.util.find_spec("fire") is None:
        missing("fire, which MONAI's bundle command needs,")
    command = [sys.executable, "-m", "monai.bundle", "run", "--bundle_root", str(bundle)]
    command += ["--meta_file", str(bundle / "configs/metadata.json")]
    command += ["--config_file", str(bundle / "configs/inference.json")]
    command += ["--ct", str(ct), "--output_dir", str(out)]
    command += [] if districts is None else ["--districts", str(districts)]
    return subprocess.run(command, cwd=bundle, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def our_pet(ct: Volume, labels: LabelArray, package: ModelPackage) -> Volume:
    """Steps 3 to 9 of ``pipeline.translate_ct``."""
    upright = ct.canonical()
    on_grid = preprocess.ct_on_grid(upright, package.plan)
    districts = resample_labels(canonical_labels(labels, ct.geometry), upright.geometry, on_grid.geometry)
    pet = translate(ct_channels(on_grid.array, package.plan, package.architecture), districts, package)
    return Volume(preprocess.model_to_suv(pet, package.plan), on_grid.geometry)


def compared(tmp_path: Path, package: Path, geometry: Geometry) -> tuple[Volume, Volume]:
    """What MONAI's command and our translation make of the same CT."""
    ct, labels = body_ct(geometry)
    write_nifti(tmp_path / "ct.nii.gz", ct.array, ct.geometry)
    write_nifti(tmp_path / "districts.nii.gz", labels, ct.geometry)
    loaded = load_package(package)
    bundle = export_package(package, tmp_path / "bundle", "monai")
    districts = None if loaded.partition.whole_volume else tmp_path / "districts.nii.gz"
    done = run_bundle(bundle, tmp_path / "ct.nii.gz", districts, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    return read_nifti(tmp_path / "out" / "ct_pet.nii.gz"), our_pet(read_nifti(tmp_path / "ct.nii.gz"), labels, loaded)


@pytest.mark.parametrize(
    ("partition", "kind", "plan", "geometry", "soft_tissue", "stitching"),
    quick_and_long(
        [("districts", "unet", PLAN, rotated(12.0), False, "uniform")],
        [("whole-volume", "resnet9", Plan(PLAN.spacing_mm, "per-volume"), ON_GRID, True, "gaussian")],
    ),
)
def test_monai_runs_the_bundle_and_makes_the_same_pet(
    partition: str,
    kind: str,
    plan: Plan,
    geometry: Geometry,
    soft_tissue: bool,
    stitching: Stitching,
    tmp_path: Path,
) -> None:
    """Oracle: our own steps in this process, on the same files."""
    package = saved(tmp_path / "package", partition, kind, plan, stitching=stitching, soft_tissue=soft_tissue)
    theirs, ours = compared(tmp_path, package, geometry)
    assert ours.array.std() > 100 * TOLERANCE_SUV, "there must be something to compare"
    assert theirs.canonical().geometry.same_grid(ours.geometry)
    np.testing.assert_allclose(theirs.canonical().array, ours.array, rtol=0, atol=TOLERANCE_SUV)


@pytest.fixture
def bundle_input(tmp_path: Path) -> Callable[[Volume, Volume], ConfigParser]:
    """A bundle's configuration as MONAI reads it, with a CT and a district map beside it."""

    def parser(ct: Volume, districts: Volume) -> ConfigParser:
        bundle = export_package(saved(tmp_path / "package"), tmp_path / "bundle", "monai")
        for name, volume in (("ct", ct), ("districts", districts)):
            write_nifti(tmp_path / f"{name}.nii.gz", volume.array, volume.geometry)
        read = ConfigParser()
        read.read_config(bundle / "configs/inference.json")
        read.read_meta(bundle / "configs/metadata.json")
        read.update(
            {"bundle_root": str(bundle)} | {name: str(tmp_path / f"{name}.nii.gz") for name in ("ct", "districts")}
        )
        return read

    return parser


# MONAI registers every reader it knows, and says of one that this machine has no GPU decoder.
@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")
@pytest.mark.parametrize("fault", ["none", "labels that no network", "not lie on the grid", "shows no body"])
def test_a_bundle_refuses_districts_that_it_could_only_make_silence_of(
    fault: str, bundle_input: Callable[[Volume, Volume], ConfigParser]
) -> None:
    ct, labels = body_ct(ON_GRID)
    values = labels.astype(np.float32)
    if fault == "labels that no network":
        values[0, 20, 15] = 7.0
    if fault == "shows no body":
        values[:] = 0.0
    shifted = replace(ON_GRID, origin_lps_mm=(11.0, -20.0, 30.0)) if fault == "not lie on the grid" else ON_GRID
    parser = bundle_input(ct, Volume(values, shifted))
    with torch.enable_grad():
        if fault == "none":
            parser.get_parsed_content("initialize")
            return
        with pytest.raises(RuntimeError) as raised:
            parser.get_parsed_content("initialize")
    assert fault in str(raised.value.__cause__)


def test_a_model_that_sees_a_context_is_exported_as_a_folder_only(tmp_path: Path) -> None:
    package = saved(tmp_path / "package", context=True, soft_tissue=True)
    with pytest.raises(Rejected, match=r"sees the body around each window.*export the folder layout") as refusal:
        export_package(package, tmp_path / "bundle", "monai")
    assert "\n" not in str(refusal.value) and not (tmp_path / "bundle").exists()
    folder = export_package(package, tmp_path / "folder")
    assert load_package(folder).model_hash == load_package(package).model_hash


def test_the_metadata_names_both_windows_of_a_model_with_a_soft_tissue_channel(tmp_path: Path) -> None:
    bundle = export_package(saved(tmp_path / "package", soft_tissue=True), tmp_path / "bundle", "monai")
    metadata = json.loads((bundle / "configs/metadata.json").read_text("utf-8"))
    ct = metadata["network_data_format"]["inputs"]["ct"]
    assert ct["num_channels"] == 2
    assert ct["channel_def"] == {"0": "CT, -1024 to 1024 HU", "1": "CT, -160 to 240 HU"}


def test_the_metadata_says_what_goes_in_and_what_must_be_known(tmp_path: Path) -> None:
    bundle = export_package(saved(tmp_path / "package"), tmp_path / "bundle", "monai")
    metadata = json.loads((bundle / "configs/metadata.json").read_text("utf-8"))
    assert "drawn by the segmenter of the training masks, 'landmarks'" in metadata["description"]
    assert "1 head, 2 trunk, 3 arms, 4 legs" in metadata["description"]
    assert metadata["model_hash"] == load_package(bundle / "models").model_hash
    assert metadata["intended_use"] == "Tests." and metadata["copyright"] == "CC0-1.0"
    assert {"schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version"} <= metadata.keys()
    assert set(metadata["required_packages_version"]) == {"nibabel", "safetensors", "fire"}


def test_the_versions_that_monai_needs_are_those_that_the_tests_ran(project: Path) -> None:
    """An export must not ask the environment for them: a hospital's has neither."""
    pins = dict(line.split("==") for line in (project / "constraints.txt").read_text("utf-8").split() if "==" in line)
    assert {name: pins[name] for name in MONAI_NEEDS} == MONAI_NEEDS


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_exported_and_imported_again_is_the_same_model(layout: Layout, tmp_path: Path) -> None:
    package = saved(tmp_path / "package")
    out = export_package(package, tmp_path / "out" / layout, layout)
    assert sorted(tmp_path.glob("out/.*")) == []
    imported = import_package(out, ModelStore(tmp_path / "store"))
    assert imported.name == load_package(package).model_hash
    for file in package.iterdir():
        assert (imported / file.name).read_bytes() == file.read_bytes()
    with pytest.raises(Rejected, match="already exists"):
        export_package(package, out, layout)


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = saved(tmp_path / "package")
    (package / "arms.safetensors").write_bytes(b"")
    with pytest.raises(Rejected, match="damaged or changed"):
        export_package(package, tmp_path / "out" / "bundle", "monai")
    with pytest.raises(Rejected, match="no layout"):
        export_package(package, tmp_path / "out" / "bundle", "onnx")  # type: ignore[arg-type]

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    package = saved(tmp_path / "whole")
    monkeypatch.setattr("os.fsync", full_disk)
    for layout in LAYOUTS:
        with pytest.raises(Transient, match="cannot be written"):
            export_package(package, tmp_path / "out" / "bundle", layout)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("names", ["ours", "bundle's"])
def test_a_network_trained_further_elsewhere_comes_back_as_a_new_model(names: str, tmp_path: Path) -> None:
    bundle = export_package(saved(tmp_path / "package"), tmp_path / "bundle", "monai")
    original, further = (load_package(path) for path in (bundle / "models", saved(tmp_path / "further", seed=1)))
    weights = further.networks["head"].state_dict()
    rename = monai_bundle_key if names == "bundle's" else str
    torch.save({rename(key): tensor for key, tensor in weights.items()}, bundle / "models" / "head.pt")
    imported = load_package(import_package(bundle, ModelStore(tmp_path / "store")))
    window = torch.rand(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    for name, expected in (("head", further), ("legs", original)):
        torch.testing.assert_close(imported.networks[name](window), expected.networks[name](window), rtol=0, atol=0)
    assert imported.model_hash != original.model_hash and "metrics" not in imported.card.about
    assert imported.card.about["trained_further_from"] == original.model_hash


class Bomb:
    """Unpickled without care, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("place", ["the whole file", "among the weights", "a bare pickle"])
def test_a_forged_pickle_is_refused_and_never_runs(place: str, tmp_path: Path) -> None:
    bundle = export_package(saved(tmp_path / "package"), tmp_path / "bundle", "monai")
    exploded, target = tmp_path / "exploded", bundle / "models" / "head.pt"
    if place == "a bare pickle":
        target.write_bytes(pickle.dumps(Bomb(exploded), protocol=2))
    else:
        torch.save(Bomb(exploded) if place == "the whole file" else {"weight": Bomb(exploded)}, target)
    with pytest.raises(Rejected, match="not a file of plain tensors and was not opened"):
        import_package(bundle, ModelStore(tmp_path / "store"))
    assert not exploded.exists() and not (tmp_path / "store").exists()
    if place == "a bare pickle":
        pickle.loads(target.read_bytes())
    else:
        torch.load(target, weights_only=False)
    assert exploded.exists(), "the forgery must be a real one"


def test_a_configuration_that_would_run_code_is_never_evaluated(tmp_path: Path) -> None:
    bundle = export_package(saved(tmp_path / "package"), tmp_path / "bundle", "monai")
    mark = tmp_path / "exploded"
    for name in ("inference.json", "metadata.json"):
        forged = {"imports": ["$import pathlib"], "run": [f"$pathlib.Path('{mark}').touch()"]}
        forged |= {"card": {"_target_": "pathlib.Path.touch", "self": str(mark)}}  # type: ignore[dict-item]
        (bundle / "configs" / name).write_text(json.dumps(forged), "utf-8")
    import_package(bundle, ModelStore(tmp_path / "store"))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"levels.layers.0.weight": torch.zeros(1)}, "another shape"),
        ({"stem.weight": torch.zeros(1)}, "'stem.weight', which no weight"),
        ({"levels.layers.0.weight": torch.zeros(1, dtype=torch.int64)}, "more than named tensors"),
        ([torch.zeros(1)], "more than named tensors"),
        ({1: torch.zeros(1)}, "more than named tensors"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_one_sentence(content: object, sentence: str, tmp_path: Path) -> None:
    bundle = export_package(saved(tmp_path / "package"), tmp_path / "bundle", "monai")
    torch.save(content, bundle / "models" / "head.pt")
    with pytest.raises(Rejected, match=sentence):
        import_package(bundle, ModelStore(tmp_path / "store"))


def test_what_is_no_package_or_names_no_network_is_refused(tmp_path: Path) -> None:
    bundle = export_package(saved(tmp_path / "package"), tmp_path / "bundle", "monai")
    torch.save({}, bundle / "models" / "tail.pt")
    with pytest.raises(Rejected, match=r"tail\.pt is no network of model 'small'"):
        import_package(bundle, ModelStore(tmp_path / "store"))
    (bundle / "models" / "tail.pt").write_bytes(b"nothing")
    with pytest.raises(Rejected, match=r"tail\.pt is no network"):
        import_package(bundle, ModelStore(tmp_path / "store"))
    with pytest.raises(Rejected, match="neither a model package nor a MONAI bundle"):
        import_package(bundle / "configs", ModelStore(tmp_path / "store"))
