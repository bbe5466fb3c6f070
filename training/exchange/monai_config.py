"""A model package in MONAI's bundle language: metadata.json, and an inference.json that needs no code of ours."""

import json
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from twin_scanner.errors import Defect, Rejected
from twin_scanner.imaging.district_labels import DISTRICT_NAMES, label_name
from twin_scanner.models.card import Stitching
from twin_scanner.models.networks import WINDOW
from twin_scanner.models.package import ModelPackage, build_network
from twin_scanner.models.plan import SOFT_TISSUE_WINDOW_HU, Plan
from twin_scanner.synthesis.translate import BATCH_WINDOWS, STRIDE

METADATA_SCHEMA: Final = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
BUNDLE_VERSION: Final = "1.0.0"
"""The version of our layout of the bundle; raised when its inputs or outputs change their meaning."""
KEYS: Final = ("levels.", "layers.")
"""What our generators' weight names begin with; in a plain Sequential they begin with a number."""
MONAI_NEEDS: Final = {"nibabel": "5.4.2", "fire": "0.7.1"}
"""MONAI's reader and command line need them; this program does not, so their versions are constants."""
SKIPS: Final = {"_Level": "cat", "_ResidualBlock": "add"}
"""How our own layers join what they compute to their input, as MONAI's SkipConnection calls it."""
BLENDING: Final = MappingProxyType[Stitching, str]({"uniform": "constant", "gaussian": "gaussian"})
"""MONAI's names of the stitchings; its sigma_scale is ours unless it is told otherwise."""
AXES: Final = [["L", "R"], ["P", "A"], ["I", "S"]]

Config = dict[str, Any]


def monai_bundle_key(key: str) -> str:
    """The name that a weight of ours has in the network of inference.json, made of PyTorch's and MONAI's own layers."""
    for prefix in KEYS:
        key = key.removeprefix(prefix)
    return f"0.{key.replace('.layers.', '.submodule.')}"


def inference(package: ModelPackage) -> Config:
    """The content of inference.json: CT in HU (and districts) as NIfTI in, synthetic PET in SUV as NIfTI out.

    The steps are those of ``pipeline.translate_ct`` from the third one on. MONAI evaluates the values that begin with
    $; @ refers to another value. Raises Rejected for networks that see a context, which MONAI's inferer cannot give
    them, and Defect for a generator with layers that have no form in this language.
    """
    if package.architecture.context:
        raise Rejected(
            f"Model '{package.name}' sees the body around each window, which MONAI's inferer cannot give it: "
            "export the folder layout."
        )
    return {
        "imports": ["$import torch", "$import monai", "$from safetensors.torch import load_file"],
        "bundle_root": ".",
        "ct": "$@bundle_root + '/ct.nii.gz'",
        **({} if package.partition.whole_volume else {"districts": "$@bundle_root + '/districts.nii.gz'"}),
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        **_network(package),
        **_grid(package.plan),
        **_images(package),
        **_translation(package),
        "initialize": ["$torch.set_grad_enabled(False)", *_checks(package), "@loaded"],
        "run": ["$@save(@upright_suv)"],
    }


def metadata(package: ModelPackage) -> Config:
    """The content of metadata.json; what its numbers mean, and what must be known before they are believed."""
    card, plan = package.card, package.plan
    return {
        "schema": METADATA_SCHEMA,
        "version": BUNDLE_VERSION,
        "changelog": {BUNDLE_VERSION: f"Exported by twin-scanner {version('twin-scanner')}."},
        "monai_version": version("monai"),
        "pytorch_version": str(torch.__version__),
        "numpy_version": str(np.__version__),
        "required_packages_version": {"safetensors": version("safetensors"), **MONAI_NEEDS},
        "name": f"twin-scanner {package.name}",
        "task": "Synthetic FDG-PET from CT",
        "description": (
            "Translates a CT into a synthetic FDG-PET in SUV, each body district with its own generator. "
            + _inputs_sentence(package)
            + " Synthetic: not a measurement of this patient."
        ),
        "authors": "The site that trained the model",
        "copyright": str(card.about.get("licence", "")),
        "intended_use": card.intended_use,
        "data_source": json.dumps(card.training_data, sort_keys=True),
        "eval_metrics": card.about.get("metrics", {}),
        "model_hash": package.model_hash,
        "network_data_format": {
            "inputs": {"ct": _format("CT", _input_channels(package))},
            "outputs": {"pet": _format("PT", [f"PET, SUV 0 to {plan.suv_max:g}"])},
        },
    }


def _inputs_sentence(package: ModelPackage) -> str:
    if package.partition.whole_volume:
        return "Input: one CT in HU."
    labels = ", ".join(f"{label} {label_name(label, DISTRICT_NAMES)}" for label in sorted(package.partition.labels))
    return (
        f"Inputs: a CT in HU and, on the same grid, its district label map (0 outside the body, {labels}), drawn by "
        f"the segmenter of the training masks, '{package.card.segmenter}'; 'twin-scanner segment' writes it."
    )


def _input_channels(package: ModelPackage) -> list[str]:
    windows = [(package.plan.hu_low, package.plan.hu_high), SOFT_TISSUE_WINDOW_HU][: package.architecture.channels]
    return [f"CT, {low:g} to {high:g} HU" for low, high in windows]


def _format(modality: str, channels: list[str]) -> Config:
    return {
        "type": "image",
        "format": "magnitude",
        "modality": modality,
        "num_channels": len(channels),
        "spatial_shape": [WINDOW] * 3,
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": True,
        "channel_def": {str(number): channel for number, channel in enumerate(channels)},
    }


def _network(package: ModelPackage) -> Config:
    """One generator per network, its weights read without a pickle."""
    generator = build_network(package.architecture)
    rename = "".join(f".removeprefix('{prefix}')" for prefix in KEYS) + ".replace('.layers.', '.submodule.')"
    names = list(package.partition.networks)
    return {
        "generator": f"$lambda: torch.nn.Sequential({_expression(_body(generator))}, torch.nn.Sigmoid())",
        "network_def": f"$torch.nn.ModuleDict({{name: @generator() for name in {names}}})",
        "weights": (
            f"$lambda name: {{'0.' + key{rename}: tensor.float() for key, tensor in "
            "load_file(@bundle_root + '/models/' + name + '.safetensors').items()}"
        ),
        "loaded": [
            f"$[@network_def[name].load_state_dict(@weights(name)) for name in {names}]",
            "$@network_def.eval().to(@device)",
        ],
        "inferer": {
            "_target_": "monai.inferers.SlidingWindowInferer",
            "roi_size": [WINDOW] * 3,
            "sw_batch_size": BATCH_WINDOWS,
            "overlap": 1 - STRIDE / WINDOW,
            "mode": BLENDING[package.card.stitching],
            "sw_device": "@device",
            "device": "cpu",
        },
    }


def _grid(plan: Plan) -> Config:
    """The Plan's grid over the CT's field of view, as ``Geometry.with_spacing`` lays it."""
    return {
        "spacing_mm": [float(spacing) for spacing in plan.spacing_mm],
        "read": {
            "_target_": "monai.transforms.Compose",
            "transforms": [
                {
                    "_target_": "monai.transforms.LoadImage",
                    "reader": "NibabelReader",
                    "image_only": True,
                    "ensure_channel_first": True,
                },
                {"_target_": "monai.transforms.Orientation", "axcodes": "SPL", "labels": AXES},
            ],
        },
        "upright_ct": "$@read(@ct)",
        "ct_spacing_mm": "$[float(s) for s in monai.data.affine_to_spacing(@upright_ct.affine)]",
        "shape": (
            "$[max(1, round(n * old / new)) for n, old, new in zip(@upright_ct.shape[1:], @ct_spacing_mm, @spacing_mm)]"
        ),
        "first_voxel": (
            "$[(old * (n - 1) - new * (m - 1)) / (2 * old) for n, old, m, new in "
            "zip(@upright_ct.shape[1:], @ct_spacing_mm, @shape, @spacing_mm)]"
        ),
        "step_voxels": "$[new / old for old, new in zip(@ct_spacing_mm, @spacing_mm)]",
        "index": (
            "$torch.tensor([[@step_voxels[0], 0, 0, @first_voxel[0]], [0, @step_voxels[1], 0, @first_voxel[1]], "
            "[0, 0, @step_voxels[2], @first_voxel[2]], [0, 0, 0, 1]], dtype=torch.float64)"
        ),
        "affine": "$torch.matmul(@upright_ct.affine.double(), @index)",
        "resample": {"_target_": "monai.transforms.SpatialResample", "padding_mode": "border"},
        "hu": "$torch.round(@resample(@upright_ct, dst_affine=@affine, spatial_size=@shape, mode='bilinear'))",
    }


def _images(package: ModelPackage) -> Config:
    """The CT in model space, in the channels of the architecture, and each network's mask."""
    plan, networks = package.plan, package.partition.networks
    scaled: Config = {"lowest_hu": plan.hu_low, "highest_hu": plan.hu_high}
    if plan.ct_scaling == "per-volume":
        scaled = {"lowest_hu": "$float(@hu.min())", "highest_hu": "$float(@hu.max())"}
    scaled["ct_model_space"] = (
        "$torch.clip((@hu.as_tensor() - @lowest_hu) / max(@highest_hu - @lowest_hu, 1e-6), 0.0, 1.0).float()"
    )
    scaled["channels"] = "@ct_model_space"
    if package.architecture.soft_tissue:
        low, high = SOFT_TISSUE_WINDOW_HU
        scaled["soft_tissue"] = f"$torch.clip((@hu.as_tensor() - {low}) / {high - low}, 0.0, 1.0).float()"
        scaled["channels"] = "$torch.cat([@ct_model_space, @soft_tissue])"
    if package.partition.whole_volume:
        return {**scaled, "masks": dict.fromkeys(networks, "$torch.ones_like(@ct_model_space)")}
    return {
        **scaled,
        "upright_districts": "$@read(@districts)",
        "labels": "$@resample(@upright_districts, dst_affine=@affine, spatial_size=@shape, mode='nearest').as_tensor()",
        "masks": {
            name: f"$torch.isin(@labels, torch.tensor({[float(label) for label in labels]})).float()"
            for name, labels in networks.items()
        },
    }


def _translation(package: ModelPackage) -> Config:
    """Each network's windows averaged, placed where its mask says, and turned into SUV."""
    names = list(package.partition.networks)
    return {
        "pet": (
            f"$sum(@masks[name] * @inferer((@channels * @masks[name])[None], @network_def[name])[0] "
            f"for name in {names} if bool(@masks[name].any()))"
        ),
        "suv": f"$monai.data.MetaTensor(@pet * {package.plan.suv_max}, affine=@hu.affine, meta=@hu.meta)",
        "upright_suv": f"$monai.transforms.Orientation('LPS', labels={AXES})(@suv)",
        "save": {
            "_target_": "monai.transforms.SaveImage",
            "output_dir": "@output_dir",
            "output_postfix": "pet",
            "output_ext": ".nii.gz",
            "separate_folder": False,
            "resample": False,
        },
    }


def _checks(package: ModelPackage) -> list[str]:
    """What the node would refuse, the bundle refuses too, before anything is computed."""
    if package.partition.whole_volume:
        return []
    known = [0.0, *(float(label) for label in sorted(package.partition.labels))]
    same = (
        "@upright_ct.shape == @upright_districts.shape and "
        "torch.allclose(@upright_ct.affine, @upright_districts.affine, rtol=0, atol=1e-3)"
    )
    covered = f"bool(torch.isin(@upright_districts.as_tensor(), torch.tensor({known})).all())"
    return [
        f"$torch._assert({same}, 'The district map does not lie on the grid of the CT.')",
        f"$torch._assert({covered}, 'The district map holds labels that no network of this model covers.')",
        "$torch._assert(bool((@upright_districts > 0).any()), 'The district map shows no body.')",
    ]


def _body(generator: nn.Module) -> nn.Module:
    """The generator without its last activation, in PyTorch's and MONAI's own layers."""
    inner = next(iter(generator.children()))
    return inner if isinstance(inner, nn.Sequential) else inner.get_submodule("layers")


def _expression(module: nn.Module) -> str:
    """A Python expression that builds a module like this one, its weights aside."""
    name = f"torch.nn.{type(module).__name__}"
    if isinstance(module, nn.Sequential):
        return f"torch.nn.Sequential({', '.join(_expression(child) for child in module)})"
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        sizes = f"{module.in_channels}, {module.out_channels}, {module.kernel_size[0]}, {module.stride[0]}"
        more = f", output_padding={module.output_padding[0]}" if isinstance(module, nn.ConvTranspose3d) else ""
        return f"{name}({sizes}, {module.padding[0]}, bias={module.bias is not None}{more})"
    if isinstance(module, nn.InstanceNorm3d):
        return f"{name}({module.num_features}, affine={module.affine})"
    if isinstance(module, nn.LeakyReLU):
        return f"{name}({module.negative_slope})"
    if isinstance(module, nn.ReflectionPad3d):
        return f"{name}({module.padding[0]})"
    if isinstance(module, nn.ReLU):
        return f"{name}()"
    if type(module).__name__ not in SKIPS:
        raise Defect(f"{type(module).__name__} cannot be written in MONAI's bundle language: export the folder layout.")
    branch, mode = _expression(module.get_submodule("layers")), SKIPS[type(module).__name__]
    return f"monai.networks.layers.SkipConnection({branch}, mode='{mode}')"
