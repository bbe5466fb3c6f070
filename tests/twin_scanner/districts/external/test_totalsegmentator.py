"""Districts from TotalSegmentator's label maps, made here from phantoms; the phantom's own districts are the oracle."""

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from tests.samples.cases import quick_and_long
from training.phantom.phantom import Phantom, PhantomOptions, make_phantom
from training.phantom.tissues import Tissue
from twin_scanner.districts.external import totalsegmentator
from twin_scanner.districts.external.totalsegmentator import derive_districts, find_weights
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import Geometry, LabelArray, Volume, geometry_of, to_sitk

pytestmark = pytest.mark.unit

HEAD, TRUNK, ARMS, LEGS = 1, 2, 3, 4
BONES = (Tissue.CORTEX, Tissue.RED_MARROW, Tissue.CARTILAGE)


@cache
def drawn(arms: Literal["up", "down"]) -> Phantom:
    return make_phantom(5, PhantomOptions(spacing_mm=(5.0, 4.0, 4.0), arms=arms))


def label_maps(phantom: Phantom) -> tuple[LabelArray, LabelArray]:
    """`total` and `body` as TotalSegmentator would draw them: bones by where they lie, limbs apart from the trunk."""
    districts, tissues = phantom.districts, phantom.tissues
    bone = np.isin(tissues, BONES)
    total = np.zeros(districts.shape, np.uint8)
    total[(tissues == Tissue.SKULL_BONE) | (bone & (districts == HEAD))] = totalsegmentator.SKULL
    total[np.isin(tissues, (Tissue.GREY_MATTER, Tissue.WHITE_MATTER))] = totalsegmentator.BRAIN
    slices = np.arange(len(districts))[:, None, None]
    trunk = bone & (districts == TRUNK)
    legs = bone & (districts == LEGS)
    ischia = int(np.flatnonzero((districts == LEGS).any(axis=(1, 2)))[-1]) + 1
    knee = int(0.59 * ischia)
    total[trunk] = 40
    total[trunk & (slices < ischia + 32)] = totalsegmentator.HIPS[0]
    total[legs & (slices > knee)] = totalsegmentator.FEMORA[0]
    humerus = bone & (districts == ARMS)
    total[humerus & upper_arm(phantom)] = totalsegmentator.HUMERI[0]
    body = np.where(districts > 0, np.uint8(totalsegmentator.TRUNK_BODY), np.uint8(0))
    body[np.isin(districts, (ARMS, LEGS))] = totalsegmentator.EXTREMITIES
    shoulders = ndimage.binary_dilation(districts == TRUNK, iterations=9) & (districts == ARMS)
    body[shoulders] = totalsegmentator.TRUNK_BODY
    return total, body


def upper_arm(phantom: Phantom) -> np.ndarray:  # type: ignore[type-arg]
    """The half of each arm nearer to the trunk."""
    distance = ndimage.distance_transform_edt(phantom.districts != TRUNK, phantom.geometry.spacing_mm)
    return distance < 260.0


def dice(found: LabelArray, truth: LabelArray) -> list[float]:
    return [
        2.0 * float(((found == k) & (truth == k)).sum()) / float((found == k).sum() + (truth == k).sum())
        for k in (HEAD, TRUNK, ARMS, LEGS)
    ]


@pytest.mark.parametrize("arms", quick_and_long(["down"], ["up"]))
def test_the_derived_districts_are_those_that_were_drawn(arms: Literal["up", "down"]) -> None:
    phantom = drawn(arms)
    found = derive_districts(*label_maps(phantom), phantom.geometry)
    assert min(dice(found, phantom.districts)) >= 0.93
    assert ((found > 0) == (phantom.districts > 0)).mean() > 0.999


@pytest.mark.parametrize("orientation", quick_and_long([], ["SAR", "RAS", "PIL"]))
def test_the_orientation_of_the_ct_changes_nothing(orientation: str) -> None:
    phantom = drawn("up")
    total, body = label_maps(phantom)
    turned = [sitk.DICOMOrient(to_sitk(labels, phantom.geometry), orientation) for labels in (total, body)]
    found = derive_districts(*(sitk.GetArrayFromImage(one) for one in turned), geometry_of(turned[0]))
    back = sitk.DICOMOrient(to_sitk(found, geometry_of(turned[0])), "LPS")
    plain = derive_districts(total, body, phantom.geometry)
    assert (sitk.GetArrayFromImage(back) == plain).mean() > 0.995


@pytest.mark.parametrize(("first", "last"), quick_and_long([(0.0, 0.3), (0.72, 1.0)], [(0.35, 0.5), (0.5, 0.75)]))
def test_a_field_of_view_that_lacks_bones_shows_no_district_that_it_lacks(first: float, last: float) -> None:
    phantom = drawn("down")
    part = slice(int(first * len(phantom.districts)), int(last * len(phantom.districts)))
    total, body = (labels[part] for labels in label_maps(phantom))
    truth = phantom.districts[part]
    box = (part, slice(0, truth.shape[1]), slice(0, truth.shape[2]))
    found = derive_districts(total, body, phantom.geometry.cropped(box))
    for district in (HEAD, TRUNK, ARMS, LEGS):
        if not (truth == district).any():
            assert int((found == district).sum()) < 1000
    assert float((found == truth)[truth > 0].mean()) > 0.9


def test_labels_outside_the_body_are_nothing() -> None:
    geometry = Geometry((20, 20, 20), (5.0, 5.0, 5.0), (0.0, 0.0, 0.0))
    empty = np.zeros((20, 20, 20), np.uint8)
    assert not derive_districts(empty, empty, geometry).any()


def test_what_is_missing_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"Dataset297.*totalsegmentator_download_weights"):
        find_weights(tmp_path, fast=True)
    with pytest.raises(Rejected, match=r"Dataset291.*districts\.totalsegmentator_weights"):
        find_weights(tmp_path, fast=False)


def test_a_missing_package_is_said_in_one_sentence() -> None:
    """In a process that cannot find it."""
    program = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'totalsegmentator' else find(name, *a)\n"
        "from twin_scanner.districts.external import totalsegmentator\n"
        "print(totalsegmentator.missing(None, ''))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert "pip install 'twin-scanner[totalsegmentator]'" in done.stdout
    assert done.stdout.count("\n") == 1


def test_its_labels_are_those_of_version_2(tmp_path: Path) -> None:
    """Anatomy, not numbers: the skull lies above every vertebra, femora below the hips."""
    phantom = drawn("down")
    total, _ = label_maps(phantom)
    height = {label: float(np.mean(np.nonzero(total == label)[0])) for label in (40, 77, 75, 69, 91)}
    assert height[91] > height[69] > height[77] > height[75]
    assert isinstance(phantom.ct, Volume)
