"""Training pairs: made by the steps that serve, cut to the body, and found on disk in the autoPET layout."""

from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.config import DataConfig
from training.pairs import fingerprint, make_pair, make_pairs
from training.phantom import draw_options, make_phantom
from training.sampling import patch_at
from twin_scanner.districts.district_map import DistrictMap
from twin_scanner.errors import Rejected
from twin_scanner.models import Architecture, ModelPackage
from twin_scanner.partition import Partition
from twin_scanner.pipeline import PipelineOptions, translate_ct
from twin_scanner.preprocess import Plan, ct_on_grid, suv_to_model
from twin_scanner.translate import windows_touching
from twin_scanner.volume import Geometry, LabelArray, Volume, resample, write_nifti

pytestmark = pytest.mark.loop

PLAN = Plan(spacing_mm=(6.0, 2.0, 2.2))
GEOMETRY = Geometry((50, 130, 100), (3.0, 0.9, 1.1), (-40.0, 30.0, 500.0), ((0, 0, -1), (0, 1, 0), (1, 0, 0)))
"""Neither cubes nor head up: the first slice is the highest."""


def blob_ct(seed: int = 0, geometry: Geometry = GEOMETRY) -> Volume:
    """Noisy tissue in an ellipsoid off the centre, air around it."""
    random = np.random.default_rng(seed)
    grids = np.meshgrid(*(np.linspace(-1, 1, n) for n in geometry.shape), indexing="ij")
    body = sum((g - c) ** 2 for g, c in zip(grids, (0.1, -0.2, 0.15), strict=True)) < 0.5
    return Volume(np.where(body, random.normal(40, 60, geometry.shape), -1000).astype(np.float32), geometry)


def two_districts(upright: Volume) -> LabelArray:
    """Everything denser than air: label 1 in the patient's right half, 2 in the left."""
    labels = (upright.array > -500).astype(np.uint8)
    labels[:, :, upright.array.shape[2] // 2 :] *= 2
    return labels


class HalvesSegmenter:
    """The same rule, as the service calls it."""

    name = "halves"
    segmenter_hash = "0" * 64

    def segment(self, ct: Volume) -> DistrictMap:
        return DistrictMap(two_districts(ct), ct.geometry, self.name, self.segmenter_hash)


class Recorder(nn.Module):
    """Keeps every window that it is given, and answers with air."""

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[bytes] = []
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, ct: Tensor) -> Tensor:
        self.windows += [window.numpy().tobytes() for window in ct]
        return torch.zeros_like(ct)


def test_training_and_serving_give_a_network_the_same_bytes() -> None:
    """Through the whole pipeline and through the sampler: every window of the one among those of the other."""
    halves = Partition("halves", MappingProxyType({"right": (1,), "left": (2,)}))
    networks: dict[str, nn.Module] = {"right": Recorder(), "left": Recorder()}
    package = ModelPackage("r", "0" * 64, PLAN, halves, Architecture("unet", 1), networks, {"segmenter": "halves"})
    served = translate_ct(blob_ct(), package, HalvesSegmenter(), PipelineOptions())
    pair = make_pair(blob_ct(), blob_ct(1), two_districts, PLAN)
    for (name, network), label in zip(networks.items(), (1, 2), strict=True):
        padded = np.zeros(pair.shape, np.uint8)
        at = tuple(slice(c, c + n) for c, n in zip(pair.corner, pair.labels.shape, strict=True))
        padded[at] = pair.labels
        starts = windows_touching(padded == label)
        assert isinstance(network, Recorder) and len(network.windows) == len(starts) >= 8
        for start, window in zip(starts, network.windows, strict=True):
            assert patch_at(pair, (label,), start).ct.tobytes() == window, f"{name} at {start}"
    assert served.districts[served.districts > 0].size == (pair.labels > 0).sum()


def test_the_pet_lies_on_the_ct() -> None:
    """Oracle: the steps written out, on the whole field of view."""
    ct, suv = blob_ct(), Volume(np.abs(blob_ct(1).array) / 20, GEOMETRY)
    pair = make_pair(ct, suv, two_districts, PLAN)
    grid = ct_on_grid(ct, PLAN).geometry
    whole = suv_to_model(resample(suv, grid, outside=0.0).array, PLAN)
    offset = [corner - max(0, 32 - n) // 2 for corner, n in zip(pair.corner, grid.shape, strict=True)]
    box = tuple(slice(o, o + n) for o, n in zip(offset, pair.pet.shape, strict=True))
    np.testing.assert_array_equal(pair.pet, whole[box])
    assert pair.pet.max() > 0.5


def test_a_pair_is_cut_to_the_body_unless_air_is_wanted() -> None:
    cut = make_pair(blob_ct(), blob_ct(1), two_districts, PLAN)
    whole = make_pair(blob_ct(), blob_ct(1), two_districts, PLAN, keep_air=True)
    assert cut.shape == whole.shape
    assert np.prod(cut.ct.shape) < np.prod(whole.ct.shape)
    assert (cut.labels > 0).sum() == (whole.labels > 0).sum()
    assert all((cut.labels > 0).any(axis=others).all() for others in ((1, 2), (0, 2), (0, 1)))


def test_a_ct_without_a_body_is_rejected() -> None:
    with pytest.raises(Rejected, match="shows no body"):
        make_pair(blob_ct(), blob_ct(), lambda upright: np.zeros(upright.array.shape, np.uint8), PLAN)


def test_phantoms_become_pairs_with_their_own_districts() -> None:
    """Drawn on the Plan's own spacing, so nothing is resampled: the labels are the phantom's, cut to its body."""
    config = DataConfig(count=2, held_out=1, seed=11, segmenter="truth")
    calls: list[tuple[int, int]] = []
    coarse = Plan(spacing_mm=(12.0, 11.0, 10.0))
    pairs = make_pairs(config, coarse, keep_air=False, progress=lambda made, total: calls.append((made, total)))
    assert calls == [(1, 2), (2, 2)]
    phantom = make_phantom(12, draw_options(12, spacing_mm=coarse.spacing_mm))
    rows = [np.flatnonzero((phantom.districts > 0).any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    box = tuple(slice(int(row[0]), int(row[-1]) + 1) for row in rows)
    np.testing.assert_array_equal(pairs[1].labels, phantom.districts[box])
    np.testing.assert_array_equal(pairs[1].pet, suv_to_model(phantom.pet.array, coarse)[box])
    assert fingerprint(pairs) == fingerprint(pairs) != fingerprint(pairs[:1])


def test_studies_in_the_autopet_layout_are_found(tmp_path: Path) -> None:
    """With a CT, or only with the CT that autoPET resampled to the PET's grid."""
    phantom = make_phantom(3, draw_options(3, spacing_mm=(6.0, 5.0, 5.0)))
    study = tmp_path / "PETCT_0001" / "study"
    for name, volume in (("CT", phantom.ct), ("SUV", phantom.pet)):
        write_nifti(study / f"{name}.nii.gz", volume.array, volume.geometry)
    config = DataConfig(kind="autopet", folder=tmp_path, count=2, held_out=1)
    with pytest.raises(Rejected, match=r"holds 1 studies with SUV\.nii\.gz, data\.count asks for 2"):
        make_pairs(config, Plan(), keep_air=False)
    second = tmp_path / "PETCT_0002" / "study"
    write_nifti(second / "SUV.nii.gz", phantom.pet.array, phantom.pet.geometry)
    coarse = Plan(spacing_mm=(12.0, 10.0, 10.0))
    with pytest.raises(Rejected, match=r"neither CT\.nii\.gz nor CTres\.nii\.gz"):
        make_pairs(config, coarse, keep_air=False)
    write_nifti(second / "CTres.nii.gz", phantom.ct.array, phantom.ct.geometry)
    first, other = make_pairs(config, coarse, keep_air=False)
    np.testing.assert_array_equal(first.ct, other.ct)
