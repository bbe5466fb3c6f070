"""A training configuration: the paper's numbers by default, and every fault of a file named at once."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from training.fit.config import AugmentationConfig, OptimiserConfig, SamplingConfig, ScheduleConfig, read_config
from training.fit.grid import is_grid, read_grid
from twin_scanner.errors import Rejected
from twin_scanner.models.partition import PARTITIONS, partition
from twin_scanner.models.plan import Plan

pytestmark = pytest.mark.loop

LEAST = 'name = "tiny"\nout = "runs/tiny"\n[package]\nintended_use = "Tests."\nlicence = "CC0-1.0"\n'

ORGANS = "[partition]\nname = 'organs'\n[partition.networks]\nliver = [5]\nothers = [1, 2, 9]\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, "utf-8")
    return path


def test_the_defaults_are_the_papers_numbers(tmp_path: Path) -> None:
    """Paper section IV-B."""
    config = read_config(written(tmp_path, LEAST))
    assert config.optimiser == OptimiserConfig(2e-4, 0.5, 0.999, 5.0, 100.0, 1)
    assert (config.schedule.constant_epochs, config.schedule.decay_epochs) == (100, 50)
    assert config.augmentation.flip_axes == ("D", "H", "W")
    assert (config.augmentation.rotation_deg, config.augmentation.noise_sigma) == (10.0, 0.01)
    assert config.partition == "districts" and config.network.discriminator_layers == 2
    assert config.sampling == SamplingConfig(32, 0.0, False, 0.0) and config.method == "pix2pix"
    assert config.optimiser.l1_over == "window"


@pytest.mark.parametrize(("studies", "batch", "steps"), [(10, 1, 320), (10, 8, 40), (3, 64, 2)])
def test_an_epoch_is_32_patches_a_study(tmp_path: Path, studies: int, batch: int, steps: int) -> None:
    config = read_config(written(tmp_path, LEAST + f"[optimiser]\nbatch_size = {batch}\n"))
    assert config.steps_per_epoch(studies) == steps


@pytest.mark.parametrize("method", ["pix2pix", "cyclegan"])
@pytest.mark.parametrize("name", sorted(PARTITIONS))
def test_the_configurations_for_autopet_hold_the_papers_numbers(project: Path, method: str, name: str) -> None:
    """Paper section IV-B: Adam 2e-4, 0.5 and 0.999; batch 1; norm 5; 100 + 50 epochs; lambda 100; 10 degrees; 0.01."""
    config = read_config(project / "training" / "configs" / f"autopet-{method}-{name}.toml")
    assert (config.method, config.partition, config.data.kind) == (method, name, "store")
    assert config.optimiser == OptimiserConfig(2e-4, 0.5, 0.999, 5.0, 100.0, 1, 10.0, 5.0, 50, "window")
    assert config.schedule == ScheduleConfig(100, 50, None) and config.sampling == SamplingConfig(32, 0.0, False, 0.0)
    assert config.augmentation == AugmentationConfig(("D", "H", "W"), 10.0, 0.01)
    assert config.plan == Plan()


@pytest.mark.parametrize("name", ["districts", "whole-body"])
def test_the_configurations_with_context_differ_from_the_papers_in_what_they_say(project: Path, name: str) -> None:
    """The five keys of their first lines, and no other."""
    folder = project / "training" / "configs"
    paper = read_config(folder / f"autopet-pix2pix-{name}.toml")
    ours = read_config(folder / f"autopet-context-pix2pix-{name}.toml")
    changed = replace(
        paper,
        name=ours.name,
        out=ours.out,
        sampling=replace(paper.sampling, inside=True, hot_share=0.33),
        optimiser=replace(paper.optimiser, l1_over="mask"),
        network=replace(paper.network, soft_tissue=True, context=True),
    )
    assert ours == changed


def test_a_run_is_the_same_wherever_it_is_written_and_however_it_is_watched(tmp_path: Path) -> None:
    here = read_config(written(tmp_path, LEAST))
    there = LEAST.replace("runs/tiny", "elsewhere") + "[validation]\nevery_epochs = 1\n[compute]\nworkers = 3\n"
    assert read_config(written(tmp_path, "tensorboard = true\n" + there)).as_json() == here.as_json()
    assert json.loads(json.dumps(here.as_json())) == here.as_json()


def test_a_file_may_change_every_section(tmp_path: Path) -> None:
    text = LEAST + (
        "[plan]\nspacing_mm = [4.0, 3.0, 3.0]\nhu_high = 2000.0\n[data]\ncount = 5\n[network]\nfeatures = 8\n"
        '[augmentation]\nflip_axes = ["W"]\n[schedule]\nconstant_epochs = 2\ndecay_epochs = 1\nsteps_per_epoch = 7\n'
    )
    config = read_config(written(tmp_path, text))
    assert config.plan.spacing_mm == (4.0, 3.0, 3.0) and config.plan.hu_high == 2000.0
    assert (config.data.count, config.network.features, config.augmentation.flip_axes) == (5, 8, ("W",))
    assert config.schedule == ScheduleConfig(2, 1, 7) and config.schedule.epochs == 3
    assert config.steps_per_epoch(1000) == 7


def test_a_partition_of_ones_own_is_a_table(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, LEAST + ORGANS))
    assert config.covered == partition("organs", {"liver": [5], "others": [1, 2, 9]})


@pytest.mark.parametrize("name", sorted(PARTITIONS))
def test_a_ready_partition_is_a_name(tmp_path: Path, name: str) -> None:
    config = read_config(written(tmp_path, f"partition = '{name}'\n" + LEAST))
    assert (config.partition, config.covered) == (name, PARTITIONS[name])


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    text = LEAST + "[network]\nfeatures = 0\n[optimiser]\nlerning_rate = 1.0\n[schedule]\nconstant_epochs = 'many'\n"
    with pytest.raises(Rejected) as error:
        read_config(written(tmp_path, text))
    for where in ("network.features", "optimiser.lerning_rate", "schedule.constant_epochs"):
        assert where in str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name = ", "is not TOML"),
        ("", "package"),
        ("networks = ['tail']\n" + LEAST, "networks names tail, which the partition has not"),
        ("networks = ['head']\n" + LEAST, "name the package that they come from as warm_start"),
        (LEAST + "[data]\nkind = 'store'\nsplit = 'x'\n", "data.folder is given with kind 'store'"),
        (LEAST + "[data]\nkind = 'store'\nfolder = 'x'\n", "data.split is given with kind 'store'"),
        (LEAST + "[data]\nfolder = 'x'\n", "data.folder is given with kind 'store', and only then"),
        (LEAST + "[data]\nkind = 'store'\nfolder = 'x'\nsplit = 'x'\nsegmenter = 'truth'\n", "districts already"),
        (LEAST + "[compute]\ndevice = 'cpu'\nprecision = 'float16'\n", "float16 needs a GPU"),
        (LEAST + "[sampling]\nlesion_share = 1.5\n", "sampling.lesion_share"),
        (LEAST + "[network]\ngenerator = 'resnet9'\ncontext = true\n", "network.context joins a U-Net"),
        ("method = 'cyclegan'\n" + LEAST + "[network]\ncontext = true\n", "CycleGAN goes back from a PET"),
        ("method = 'cyclegan'\n" + LEAST + "[network]\nsoft_tissue = true\n", "leave network.soft_tissue"),
        (LEAST + "[sampling]\nlesion_share = 0.5\nhot_share = 0.6\n", "together are more than all patches"),
        ("method = 'diffusion'\n" + LEAST, "method: Input should be 'pix2pix' or 'cyclegan'"),
        (LEAST + "[data]\ncount = 2\nheld_out = 2\n", "leaves no pair"),
        (LEAST + "[plan]\nhu_low = 100.0\nhu_high = 0.0\n", "The Plan is impossible"),
        (LEAST.replace("tiny", "../tiny", 1), "name"),
        ("partition = 'organs'\n" + LEAST, "partition: Input should be 'districts', 'whole-body' or 'whole-volume'"),
        ("partition = 4\n" + LEAST, "partition: Input should be"),
        (LEAST + "[partition]\nname = 'organs'\n", "partition.networks: Field required"),
        (LEAST + ORGANS.replace("[5]", "[5.0]"), "partition.networks.liver.0: Input should be a valid integer"),
        (LEAST + ORGANS.replace("[5]", "[0]"), "network 'liver' covers 0, labels are whole numbers from 1 to 254"),
        (LEAST + ORGANS.replace("[5]", "[2]"), "one label to two networks"),
        (LEAST + ORGANS.replace("liver", "Liver"), "'Liver' names a file"),
        (LEAST + ORGANS.replace("'organs'", "'My organs'"), "partition.name"),
        (LEAST + ORGANS.replace("'organs'", "'districts'"), "'districts' is a ready partition"),
    ],
)
def test_an_impossible_configuration_is_rejected_with_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(Rejected, match=sentence) as error:
        read_config(written(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="does not exist"):
        read_config(tmp_path / "nothing.toml")


def test_every_committed_configuration_is_valid(project: Path) -> None:
    files = sorted((project / "training" / "configs").glob("*.toml"))
    assert files
    for file in files:
        for config in read_grid(file).runs() if is_grid(file) else [read_config(file)]:
            assert config.out.parts[0] == "runs"
