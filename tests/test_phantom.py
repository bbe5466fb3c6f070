"""The phantom against anatomy, physics and physiology: a person is drawn, and the two worlds are what they say."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage, stats

from training.phantom import PET_FWHM_MM, Phantom, PhantomOptions, draw_options, make_phantom
from training.phantom_lesions import DIAGNOSES, DIAGNOSIS_SHARES
from training.phantom_tissues import ALIKE, Tissue, suv_of_hu
from twin_scanner.errors import Rejected

pytestmark = pytest.mark.unit

COARSE = PhantomOptions(spacing_mm=(6.0, 5.0, 5.0))
FINER = PhantomOptions(spacing_mm=(4.0, 4.0, 4.0))
HEAD, TRUNK, ARMS, LEGS = 1, 2, 3, 4
SKELETON = (Tissue.CORTEX, Tissue.RED_MARROW, Tissue.FATTY_MARROW, Tissue.SKULL_BONE, Tissue.TOOTH)
ALIKE_GROUPS = {
    "brain": (Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.CEREBELLUM),
    "myocardium": (Tissue.MYOCARDIUM,),
    "muscle": (Tissue.MUSCLE,),
    "bladder": (Tissue.BLADDER,),
}
BoolArray = npt.NDArray[np.bool_]
Make = Callable[..., Phantom]


@pytest.fixture(scope="module")
def make() -> Make:
    """make_phantom that remembers the last few phantoms."""

    @lru_cache(maxsize=6)
    def draw(seed: int, options: PhantomOptions) -> Phantom:
        return make_phantom(seed, options)

    return draw


def heights_mm(phantom: Phantom) -> npt.NDArray[np.float64]:
    """z of every slice in the reference body."""
    geometry = phantom.geometry
    z = geometry.origin_lps_mm[2] + np.arange(geometry.shape[0]) * geometry.spacing_mm[0]
    return z / (phantom.options.height_mm / 1750.0)


def asides_mm(phantom: Phantom) -> npt.NDArray[np.float64]:
    """Distance from the midline of every column."""
    geometry = phantom.geometry
    return np.abs(geometry.origin_lps_mm[0] + np.arange(geometry.shape[2]) * geometry.spacing_mm[2])


def is_any(phantom: Phantom, *tissues: int) -> BoolArray:
    return np.isin(phantom.tissues, tissues)


def inside(mask: BoolArray, steps: int = 2) -> BoolArray:
    """The mask without its rim: no blur from the neighbours reaches it."""
    return ndimage.binary_erosion(mask, iterations=steps)


def test_the_same_seed_and_options_give_the_same_bytes() -> None:
    first, second = make_phantom(5, COARSE), make_phantom(5, COARSE)
    assert first.ct.array.tobytes() == second.ct.array.tobytes()
    assert first.pet.array.tobytes() == second.pet.array.tobytes()
    assert first.districts.tobytes() == second.districts.tobytes()
    assert first.geometry == second.geometry


def test_two_seeds_are_two_patients(make: Make) -> None:
    first, second = make(5, COARSE), make(6, COARSE)
    assert first.geometry.shape != second.geometry.shape or not np.array_equal(first.tissues, second.tissues)
    liver = [float(np.median(p.pet.array[inside(is_any(p, Tissue.LIVER))])) for p in (first, second)]
    assert liver[0] != pytest.approx(liver[1], rel=0.005)


def test_one_seed_has_one_ct_in_both_worlds_and_two_pets(make: Make) -> None:
    dependent, control = make(5, COARSE), make(5, replace(COARSE, world="appearance-only"))
    assert np.array_equal(dependent.ct.array, control.ct.array)
    assert np.array_equal(dependent.districts, control.districts)
    assert np.abs(dependent.pet.array - control.pet.array).max() > 3.0


@pytest.mark.parametrize("spacing_mm", [(3.0, 2.04, 2.04), (5.0, 4.0, 3.0)])
def test_a_phantom_is_float32_in_hu_and_suv_on_one_canonical_grid(spacing_mm: tuple[float, float, float]) -> None:
    phantom = make_phantom(1, PhantomOptions(spacing_mm=spacing_mm, field_of_view="skull-base-to-mid-thigh"))
    assert phantom.geometry.spacing_mm == spacing_mm
    assert phantom.geometry.direction == ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    for array in (phantom.ct.array, phantom.pet.array):
        assert array.dtype == np.float32 and array.shape == phantom.geometry.shape
    assert phantom.ct.array.min() >= -1024 and 1000 < phantom.ct.array.max() < 3071
    assert phantom.pet.array.min() >= 0.0


@pytest.mark.parametrize("arms", ["up", "down"])
@pytest.mark.parametrize("sex", ["F", "M"])
def test_every_voxel_of_the_body_has_one_district_and_no_other_voxel_has_one(make: Make, arms: str, sex: str) -> None:
    phantom = make(3, replace(COARSE, arms=arms, sex=sex))
    outside = is_any(phantom, Tissue.AIR, Tissue.TABLE_SHELL, Tissue.TABLE_CORE, Tissue.MATTRESS)
    assert np.array_equal(phantom.districts > 0, ~outside)
    assert set(np.unique(phantom.districts)) == {0, HEAD, TRUNK, ARMS, LEGS}
    _, pieces = ndimage.label(phantom.districts > 0, np.ones((3, 3, 3)))
    assert pieces == 1


def test_the_head_ends_at_the_lowest_points_of_mandible_and_occiput(make: Make) -> None:
    phantom = make(3, FINER)
    z, rows = heights_mm(phantom), np.arange(phantom.geometry.shape[1])
    bone = is_any(phantom, *SKELETON)
    central = bone & (asides_mm(phantom) < 70)[None, None, :] & (z > 1440)[:, None, None]
    ear_row = int(np.mean(np.nonzero(is_any(phantom, Tissue.GREY_MATTER))[1]))
    front = central & (rows < ear_row - 10)[None, :, None]
    back = is_any(phantom, Tissue.SKULL_BONE) & (rows > ear_row)[None, :, None]
    for landmark in (front, back):
        k = int(np.flatnonzero(landmark.any(axis=(1, 2)))[0])
        row = int(np.flatnonzero(landmark[k].any(axis=1))[-1])
        districts = phantom.districts[k - 2 : k + 3, row][:, landmark[k, row]]
        assert set(districts[-1]) == {HEAD}
        assert set(districts[0]) <= {TRUNK, 0}


def test_brain_skull_and_teeth_are_head_and_the_neck_is_trunk(make: Make) -> None:
    phantom = make(3, FINER)
    upper = (Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.CEREBELLUM, Tissue.EYE, Tissue.TOOTH, Tissue.SKULL_BONE)
    assert set(phantom.districts[is_any(phantom, *upper)]) == {HEAD}
    assert set(phantom.districts[is_any(phantom, Tissue.THYROID)]) == {TRUNK}
    neck = (heights_mm(phantom) > 1480) & (heights_mm(phantom) < 1505)
    assert set(phantom.districts[neck].ravel()) - {0, ARMS} == {TRUNK}


@pytest.mark.parametrize("body_mass_index", [19.0, 34.0])
def test_the_legs_begin_below_the_lowest_bone_of_the_pelvis(make: Make, body_mass_index: float) -> None:
    phantom = make(4, replace(FINER, body_mass_index=body_mass_index, arms="up"))
    z = heights_mm(phantom)
    pelvis = is_any(phantom, *SKELETON) & (asides_mm(phantom) < 80)[None, None, :] & (z > 780)[:, None, None]
    lowest = int(np.flatnonzero(pelvis.any(axis=(1, 2)))[0])
    legs = np.flatnonzero((phantom.districts == LEGS).any(axis=(1, 2)))
    assert abs(int(legs[-1]) + 1 - lowest) <= 1
    assert set(np.unique(phantom.districts[: lowest - 1])) == {0, LEGS}


@pytest.mark.parametrize("arms", ["up", "down"])
def test_the_arms_are_two_limbs_that_begin_at_the_shoulder_joint(make: Make, arms: str) -> None:
    phantom = make(3, replace(FINER, arms=arms))
    arm = phantom.districts == ARMS
    labels, _ = ndimage.label(arm)
    volumes = np.sort(np.bincount(labels.ravel())[1:])[::-1] * phantom.geometry.voxel_ml
    left, right = (arm[:, :, half].sum() for half in (slice(0, arm.shape[2] // 2), slice(arm.shape[2] // 2, None)))
    assert left == pytest.approx(right, rel=0.12)
    assert 2000 < (left + right) * phantom.geometry.voxel_ml / 2 < 4500
    assert volumes[2:].sum() < 0.02 * volumes.sum()
    for organ in (Tissue.LUNG, Tissue.LIVER, Tissue.MYOCARDIUM, Tissue.THYROID, Tissue.SPINAL_CORD, Tissue.LIQUOR):
        assert not (arm & is_any(phantom, organ)).any()


@pytest.mark.parametrize(("arms", "side"), [("up", 1), ("down", -1)])
def test_the_humeral_head_is_arm_and_the_shoulder_blade_is_trunk(make: Make, arms: str, side: int) -> None:
    phantom = make(3, replace(FINER, arms=arms))
    z = heights_mm(phantom)
    height = 1420.0 if arms == "up" else 1398.0
    k = int(np.argmin(np.abs(z - height)))
    marrow = is_any(phantom, Tissue.RED_MARROW)[k] & (asides_mm(phantom) > 160)[None, :]
    assert set(phantom.districts[k][marrow]) == {ARMS}
    blade = is_any(phantom, Tissue.CORTEX)[k] & ((asides_mm(phantom) > 80) & (asides_mm(phantom) < 140))[None, :]
    assert blade.any() and set(phantom.districts[k][blade]) == {TRUNK}
    free = (z > height + 60) & (z < height + 90) if side > 0 else (z < height - 200) & (z > height - 300)
    far = (asides_mm(phantom) > 195)[None, None, :] & free[:, None, None] & (phantom.districts > 0)
    assert set(phantom.districts[far]) == {ARMS}


def test_the_usual_field_of_view_cuts_head_and_thighs_and_the_long_one_cuts_nothing(make: Make) -> None:
    whole = make(2, COARSE)
    assert not whole.districts[0].any() and not whole.districts[-1].any()
    usual = make(2, replace(COARSE, field_of_view="skull-base-to-mid-thigh"))
    assert {HEAD} <= set(np.unique(usual.districts[-1])) <= {0, HEAD, ARMS}
    assert set(np.unique(usual.districts[0])) == {0, LEGS}
    assert (usual.districts == HEAD).sum() < 0.7 * (whole.districts == HEAD).sum()
    for phantom in (whole, usual):
        assert not phantom.districts[:, :, (0, -1)].any() and not phantom.districts[:, (0, -1)].any()


@pytest.mark.parametrize(
    "options",
    [
        PhantomOptions(),
        PhantomOptions(body_mass_index=18.0),
        PhantomOptions(body_mass_index=35.0),
        PhantomOptions(sex="F", height_mm=1560.0, body_mass_index=29.0, arms="up"),
        PhantomOptions(height_mm=1980.0),
    ],
    ids=["average", "slim", "obese", "short woman", "tall"],
)
def test_the_body_is_as_long_and_about_as_heavy_as_the_options_say(make: Make, options: PhantomOptions) -> None:
    """Density from HU: 1 + HU / 1000 g/ml, within some per cent of truth for soft tissue."""
    phantom = make(1, replace(options, spacing_mm=COARSE.spacing_mm))
    body = phantom.districts > 0
    density = np.clip(1.0 + phantom.ct.array[body] / 1000.0, 0.0, None)
    mass_kg = float(density.sum()) * phantom.geometry.voxel_ml / 1000.0
    assert mass_kg == pytest.approx(options.weight_kg, rel=0.17)
    length_mm = float(np.count_nonzero((body & (phantom.districts != ARMS)).any(axis=(1, 2)))) * 6.0
    assert length_mm == pytest.approx(options.height_mm, rel=0.02)


def test_the_table_lies_under_the_body_at_the_density_of_carbon_and_foam(make: Make) -> None:
    phantom = make(2, FINER)
    core, shell = is_any(phantom, Tissue.TABLE_CORE), is_any(phantom, Tissue.TABLE_SHELL)
    assert not phantom.districts[core | shell].any()
    back = np.flatnonzero((phantom.districts > 0).any(axis=(0, 2)))[-1]
    assert np.flatnonzero(shell.any(axis=(0, 2)))[0] > back
    assert float(np.median(phantom.ct.array[inside(core)])) == pytest.approx(-920, abs=30)
    assert float(phantom.pet.array[inside(core)].max()) < 0.01
    bare = make(2, replace(FINER, table=False))
    assert not is_any(bare, Tissue.TABLE_CORE, Tissue.TABLE_SHELL, Tissue.MATTRESS).any()


def test_brain_myocardium_muscle_and_bladder_look_alike_on_ct_and_differ_on_pet(make: Make) -> None:
    """Oracle: two-sample Kolmogorov-Smirnov distance of HU and of local HU spread, small; of SUV, almost complete."""
    phantom = make(7, FINER)
    smooth = ndimage.uniform_filter(phantom.ct.array, 3)
    spread = np.sqrt(np.maximum(ndimage.uniform_filter(phantom.ct.array**2, 3) - smooth**2, 0))
    groups = {name: inside(is_any(phantom, *tissues), 2) for name, tissues in ALIKE_GROUPS.items()}
    groups["myocardium"] = inside(is_any(phantom, Tissue.MYOCARDIUM), 1)
    rng = np.random.default_rng(0)
    chosen = {n: rng.permutation(np.flatnonzero(m))[:2000] for n, m in groups.items()}
    assert min(map(len, chosen.values())) > 60
    for name in ("brain", "bladder"):
        for feature in (phantom.ct.array, smooth, spread):
            values = feature.ravel()
            distance = stats.ks_2samp(values[chosen[name]], values[chosen["muscle"]]).statistic
            assert distance < 0.25, name
        assert (
            abs(float(np.mean(phantom.ct.array.ravel()[chosen[name]] - phantom.ct.array[groups["muscle"]].mean())))
            < 2.0
        )
    suv = {name: float(np.median(phantom.pet.array.ravel()[index])) for name, index in chosen.items()}
    assert suv["bladder"] > 1.1 * suv["brain"] > 2.0 * suv["muscle"]
    assert suv["muscle"] < 1.1 and suv["brain"] > 4.0


@pytest.mark.parametrize("seed", [1, 2])
def test_the_tissue_table_gives_the_alike_tissues_one_hu_with_and_without_contrast(make: Make, seed: int) -> None:
    for contrast in (False, True):
        phantom = make(seed, replace(FINER, noise=0.0, contrast=contrast, field_of_view="head-to-toe"))
        values = [
            float(np.median(phantom.ct.array[inside(is_any(phantom, t))])) for t in ALIKE if t != Tissue.MYOCARDIUM
        ]
        assert max(values) - min(values) < 0.6


def share_explained_by_hu(phantom: Phantom) -> float:
    """R squared of the best function of HU (means in bins of 4 HU) for SUV, in the body, far from tissue borders."""
    same = ndimage.maximum_filter(phantom.tissues, 3) == ndimage.minimum_filter(phantom.tissues, 3)
    deep = ndimage.binary_erosion(same & (phantom.districts > 0))
    hu, suv = phantom.ct.array[deep], phantom.pet.array[deep]
    bins = np.digitize(hu, np.arange(-1000, 1200, 4))
    count = np.maximum(np.bincount(bins), 1)
    predicted = (np.bincount(bins, weights=suv) / count)[bins]
    return 1.0 - float(np.var(suv - predicted) / np.var(suv))


@pytest.mark.parametrize("seed", [3, 4])
def test_hu_alone_decides_suv_in_the_control_world_and_not_in_the_other(make: Make, seed: int) -> None:
    clean = replace(FINER, noise=0.0)
    assert share_explained_by_hu(make(seed, replace(clean, world="appearance-only"))) > 0.95
    assert share_explained_by_hu(make(seed, clean)) < 0.3


def test_the_district_explains_what_hu_does_not(make: Make) -> None:
    """Among voxels of one HU (the alike tissues), SUV differs between districts in one world and not in the other."""
    for world, differs in (("district-dependent", True), ("appearance-only", False)):
        phantom = make(3, replace(FINER, noise=0.0, world=world))
        alike = inside(is_any(phantom, *ALIKE))
        head, legs = (float(np.mean(phantom.pet.array[alike & (phantom.districts == d)])) for d in (HEAD, LEGS))
        assert (head > 4.0 * legs) is differs
        assert (abs(head - legs) < 0.2 * legs) is not differs


def test_the_control_worlds_rule_is_a_function_that_spans_the_physiological_range() -> None:
    hu = np.linspace(-1100, 2000, 4000, dtype=np.float32)
    suv = suv_of_hu(hu)
    assert suv.min() == 0.0 and 6.0 < suv.max() < 12.0
    assert np.abs(np.diff(suv)).max() < 0.15
    assert float(suv_of_hu(np.array([-1000.0], np.float32))[0]) == 0.0


def test_uptake_is_that_of_fdg_and_varies_between_patients() -> None:
    """Reference: published normal SUVmean of FDG at 60 minutes (liver 2 to 3, blood 1.4 to 2, muscle 0.5 to 0.8)."""
    limits = {
        Tissue.LIVER: (1.5, 3.2), Tissue.MUSCLE: (0.4, 1.0), Tissue.LUNG: (0.3, 0.9), Tissue.SPLEEN: (1.2, 2.7),
        Tissue.GREY_MATTER: (4.5, 14.0), Tissue.BLADDER: (5.0, 45.0), Tissue.FAT: (0.1, 0.6),
    }  # fmt: skip
    medians: dict[Tissue, list[float]] = {tissue: [] for tissue in limits}
    for seed in range(8):
        phantom = make_phantom(seed, COARSE)
        for tissue, (low, high) in limits.items():
            mask = inside(is_any(phantom, tissue), 1)
            if mask.sum() > 20:
                medians[tissue].append(float(np.median(phantom.pet.array[mask])))
                assert low < medians[tissue][-1] < high, tissue.name
    for tissue in (Tissue.LIVER, Tissue.BLADDER, Tissue.MUSCLE):
        assert len(medians[tissue]) == 8 and np.std(medians[tissue]) > 0.04 * np.mean(medians[tissue])


def test_noise_in_muscle_has_the_pet_scanners_resolution(make: Make) -> None:
    """Oracle: white noise after a Gaussian of sigma s has lag-d autocorrelation exp(-d^2 / (4 s^2))."""
    options = replace(FINER, field_of_view="skull-base-to-mid-thigh", spacing_mm=(6.0, 4.0, 2.5))
    noise = make(2, options).pet.array - make(2, replace(options, noise=0.0)).pet.array
    deep = inside(is_any(make(2, options), Tissue.MUSCLE), 4)
    deep &= make(2, options).pet.array > 0.0
    pair = deep[:, :, 1:] & deep[:, :, :-1]
    measured = float(np.corrcoef(noise[:, :, 1:][pair], noise[:, :, :-1][pair])[0, 1])
    sigma_mm = PET_FWHM_MM / 2.3548
    assert measured == pytest.approx(np.exp(-(2.5**2) / (4 * sigma_mm**2)), abs=0.06)


def test_the_bladder_spills_over_as_a_gaussian_does(make: Make) -> None:
    """Oracle: a Gaussian of sigma s takes a flat edge from 16 % to 84 % over 2 s."""
    phantom = make(2, replace(FINER, noise=0.0, spacing_mm=(4.0, 2.0, 2.0), field_of_view="skull-base-to-mid-thigh"))
    bladder = is_any(phantom, Tissue.BLADDER)
    d, h, w = (int(np.mean(index)) for index in np.nonzero(bladder))
    profile = phantom.pet.array[d, h, w:]
    low = float(np.median(profile[(phantom.tissues[d, h, w:] == Tissue.VISCERAL_FAT)]))
    share = (profile - low) / (profile[0] - low)
    edge = int(np.flatnonzero(share < 0.16)[0]) + 1
    steps = np.interp([-0.84, -0.16], -share[:edge], np.arange(edge))
    assert 2.0 * float(steps[1] - steps[0]) == pytest.approx(2.0 * PET_FWHM_MM / 2.3548, rel=0.15)


def test_air_takes_up_nothing(make: Make) -> None:
    phantom = make(2, COARSE)
    assert float(phantom.pet.array[inside(phantom.districts == 0, 3)].max()) < 0.01


def test_contrast_medium_raises_blood_liver_and_kidneys(make: Make) -> None:
    plain, enhanced = make(2, FINER), make(2, replace(FINER, contrast=True))
    for tissue, gain in ((Tissue.BLOOD, 90), (Tissue.LIVER, 35), (Tissue.KIDNEY, 100), (Tissue.SPLEEN, 50)):
        mask = inside(is_any(plain, tissue), 1)
        assert float(enhanced.ct.array[mask].mean() - plain.ct.array[mask].mean()) > gain
    assert np.array_equal(plain.pet.array, enhanced.pet.array)


@pytest.mark.parametrize("diagnosis", DIAGNOSES)
def test_a_negative_patient_has_no_lesion_and_every_other_has_hot_ones(make: Make, diagnosis: str) -> None:
    for seed in (1, 2, 3):
        phantom = make(seed, replace(COARSE, diagnosis=diagnosis, spacing_mm=(5.0, 4.0, 4.0), arms="up"))
        lesions = phantom.lesions == 1
        assert phantom.diagnosis == diagnosis and set(np.unique(phantom.lesions)) <= {0, 1}
        assert lesions.any() == (diagnosis != "NEGATIVE")
        assert (phantom.districts[lesions] > 0).all()
        if lesions.any():
            healthy = make(seed, replace(phantom.options, diagnosis="NEGATIVE"))
            assert float(np.mean(phantom.pet.array[lesions])) > 1.5 * float(np.mean(healthy.pet.array[lesions]))


def test_a_nodule_in_the_lung_is_plain_on_ct_and_a_lesion_in_the_liver_is_not(make: Make) -> None:
    seen: set[str] = set()
    for seed in range(12):
        options = replace(FINER, diagnosis="MELANOMA", noise=0.0, arms="up", field_of_view="skull-base-to-mid-thigh")
        phantom = make_phantom(seed, options)
        healthy = make_phantom(seed, replace(options, diagnosis="NEGATIVE"))
        lesions = inside(phantom.lesions == 1, 1)
        change = phantom.ct.array - healthy.ct.array
        for bed in (Tissue.LUNG, Tissue.LIVER):
            here = lesions & inside(is_any(healthy, bed), 1)
            if here.sum() > 10:
                seen.add(bed.name)
                assert (float(change[here].mean()) > 500) is (bed == Tissue.LUNG)
                assert bed == Tissue.LUNG or abs(float(change[here].mean())) < 3.0
        if seen == {"LUNG", "LIVER"}:
            return
    pytest.fail(f"12 melanoma patients had lesions only in {seen}")


def test_drawn_patients_vary_as_autopets_do() -> None:
    """Oracle: autoPET's shares of the diagnoses, within 3 standard errors over 600 draws."""
    drawn = [draw_options(seed) for seed in range(600)]
    for diagnosis, share in zip(DIAGNOSES, DIAGNOSIS_SHARES, strict=True):
        found = sum(options.diagnosis == diagnosis for options in drawn) / 600
        assert abs(found - share) < 3 * np.sqrt(share * (1 - share) / 600)
    for name in ("sex", "arms", "field_of_view", "contrast"):
        assert len({getattr(options, name) for options in drawn}) == 2
    assert np.std([options.body_mass_index for options in drawn]) > 3
    assert np.std([options.height_mm for options in drawn]) > 60
    assert draw_options(17) == draw_options(17)
    assert draw_options(17, world="appearance-only") == replace(draw_options(17), world="appearance-only")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"world": "flat"}, "There is no world 'flat'"),
        ({"diagnosis": "FLU"}, "There is no diagnosis 'FLU'"),
        ({"field_of_view": "toe"}, "There is no field of view 'toe'"),
        ({"arms": "crossed"}, "The phantom's arms are"),
        ({"sex": "X"}, "the phantom's sex is"),
        ({"height_mm": 300.0}, "The phantom is an adult"),
        ({"body_mass_index": 90.0}, "The phantom is an adult"),
        ({"spacing_mm": (0.1, 1.0, 1.0)}, "The phantom's spacing"),
        ({"noise": -1.0}, "The phantom's noise"),
    ],
)
def test_impossible_options_are_rejected_with_one_sentence(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(Rejected, match=sentence):
        replace(COARSE, **wrong)  # type: ignore[arg-type]
