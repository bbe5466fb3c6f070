"""A real, small nnU-Net model folder with MOOSE's label names, trained on phantoms within a minute on a processor."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import SimpleITK as sitk
import torch
from torch import nn

from training.phantom.phantom import Phantom, PhantomOptions, make_phantom
from twin_scanner.imaging.volume import Volume, to_sitk

MODEL_SPACING_MM: Final = 16.0
PATCH: Final = (120, 24, 40)
"""The whole phantom at the model's spacing; divisible by 8."""
STEPS: Final = 220
LABELS: Final = {"background": 0, "Legs": 1, "Body": 2, "Head": 3, "Arms": 4}
MOOSE_OF_OURS: Final = np.array([0, 3, 2, 4, 1], np.int8)
"""Our district numbers in MOOSE's."""


def phantom(seed: int, **options: Any) -> Phantom:
    """A whole body on a coarse grid."""
    return make_phantom(seed, PhantomOptions(spacing_mm=(6.0, 5.0, 5.0), table=False, **options))


def make_folder(where: Path, labels: dict[str, int] = LABELS) -> Path:
    """Train, and write Dataset001_body with its trainer's folder; returns Dataset001_body."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    torch.manual_seed(0)
    plans, dataset = _plans(), {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 4, "file_ending": ".nii"}
    manager = PlansManager(plans)
    configuration = manager.get_configuration("3d_fullres")
    images, truths = zip(*(_preprocessed(seed, manager, configuration, dataset) for seed in range(4)), strict=True)
    network = nnUNetTrainer.build_network_architecture(
        manager, configuration, 1, len(LABELS), enable_deep_supervision=False
    )
    _train(network, torch.stack(images), torch.stack(truths))
    folder = where / "Dataset001_body" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (folder / "fold_all").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(checkpoint, folder / "fold_all" / "checkpoint_final.pth")
    return where / "Dataset001_body"


def in_ras(volume: Volume) -> np.ndarray:  # type: ignore[type-arg]
    """The array (z, y, x) as nnU-Net's training images have it."""
    return sitk.GetArrayFromImage(sitk.DICOMOrient(to_sitk(volume.array, volume.geometry), "RAS"))


def _preprocessed(seed: int, manager: Any, configuration: Any, dataset: dict[str, Any]) -> tuple[Any, Any]:
    one = phantom(seed, arms="up" if seed % 2 else "down")
    ct = in_ras(one.ct)
    truth = in_ras(Volume(one.districts.astype(np.float32), one.geometry)).astype(np.int8)
    preprocessor = configuration.preprocessor_class(verbose=False)
    data, seg, _ = preprocessor.run_case_npy(
        ct[None],
        MOOSE_OF_OURS[truth][None],
        {"spacing": list(one.geometry.spacing_mm)},
        manager,
        configuration,
        dataset,
    )
    return _fitted(torch.as_tensor(data).float()), _fitted(torch.as_tensor(seg).clamp(min=0).long())


def _fitted(tensor: Any) -> Any:
    """Cropped or padded at the far ends to the patch."""
    channels, *shape = tensor.shape
    result = torch.zeros((channels, *PATCH), dtype=tensor.dtype)
    if tensor.dtype.is_floating_point:
        result += tensor.min()
    d, h, w = (min(n, p) for n, p in zip(shape, PATCH, strict=True))
    result[:, :d, :h, :w] = tensor[:, :d, :h, :w]
    return result


def _train(network: nn.Module, images: Any, truths: Any) -> None:
    """Cross entropy and soft Dice, shifts by a few voxels, no flips: front and back stay what they are."""
    optimiser = torch.optim.AdamW(network.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=STEPS)
    weight = torch.tensor([0.3, 1.0, 1.0, 3.0, 3.0])
    rng = np.random.default_rng(0)
    network.train()
    for _ in range(STEPS):
        index = rng.choice(len(images), 2, replace=False)
        shift = [int(s) for s in rng.integers(-3, 4, 3)]
        image = torch.roll(images[index], shift, (2, 3, 4))
        truth = torch.roll(truths[index], shift, (2, 3, 4))[:, 0]
        logits = network(image)
        chances = logits.softmax(1)
        wanted = nn.functional.one_hot(truth, len(LABELS)).permute(0, 4, 1, 2, 3)
        overlap = (chances * wanted).sum((0, 2, 3, 4))
        dice = (2 * overlap + 1) / (chances.sum((0, 2, 3, 4)) + wanted.sum((0, 2, 3, 4)) + 1)
        loss = nn.functional.cross_entropy(logits, truth, weight) + 1 - dice[1:].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.eval()


def _plans() -> dict[str, Any]:
    spacing = [MODEL_SPACING_MM] * 3
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(PATCH),
        "median_image_size_in_voxels": list(PATCH),
        "spacing": spacing,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 4,
                "features_per_stage": [8, 16, 32, 64],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * 4,
                "strides": [[1, 1, 1], *[[2, 2, 2]] * 3],
                "n_conv_per_stage": [1, 1, 1, 1],
                "n_conv_per_stage_decoder": [1, 1, 1],
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    intensities = {
        "max": 1500.0,
        "mean": 0.0,
        "median": 20.0,
        "min": -1024.0,
        "percentile_00_5": -1000.0,
        "percentile_99_5": 1000.0,
        "std": 350.0,
    }
    return {
        "dataset_name": "Dataset001_body",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": list(PATCH),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensities},
    }
