"""Forty examinations that together show what district segmentation meets in a hospital; a seed selects one of them."""

from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np

from training.phantom.anatomy import Sex
from training.phantom.options import PhantomOptions, Range, random_stream
from twin_scanner.imaging.volume import Triple

Examination: TypeAlias = MappingProxyType[str, Any]
"""Fields of PhantomOptions; ``slices`` is "thin", "thick" or missing, ``field_of_view`` a name of FIELDS."""

FIELDS: Final[MappingProxyType[str, Range]] = MappingProxyType({
    "head to toe": (-60.0, 2000.0), "skull base to mid-thigh": (640.0, 1640.0), "head": (1535.0, 2000.0),
    "upper head": (1622.0, 2000.0), "head and neck": (1478.0, 2000.0), "head to shoulders": (1330.0, 2000.0),
    "neck and chest": (1270.0, 1610.0), "chest": (1090.0, 1480.0), "lower chest": (1000.0, 1390.0),
    "abdomen": (980.0, 1300.0), "chest to pelvis": (810.0, 1470.0), "abdomen to thighs": (640.0, 1200.0),
    "pelvis": (790.0, 1080.0), "pelvis and thighs": (560.0, 1080.0), "knees to chest": (450.0, 1300.0),
    "upper legs": (450.0, 800.0), "legs": (-60.0, 870.0),
})  # fmt: skip
"""Range in reference mm; ends inside the body are moved a little by each seed."""
END_JITTER_MM: Final = 12.0
TOP_MM: Final = 1900.0


def _of(field_of_view: str, **options: Any) -> Examination:
    return MappingProxyType({"field_of_view": field_of_view, **options})


EXAMINATIONS: Final[tuple[Examination, ...]] = (
    _of("head to toe", aids=("head holder", "knee wedge")),
    _of("skull base to mid-thigh", arms="up", aids=("arm rest", "head holder")),
    _of("head to toe", arms="crossed", blanket=(100.0, 1290.0), aids=("knee wedge",)),
    _of("head", aids=("head holder",), implants=("dental fillings",)),
    _of("chest", arms="up", aids=("ECG cable",), slices="thin"),
    _of("pelvis", implants=("hip prosthesis",)),
    _of("skull base to mid-thigh", arms="crossed", blanket=(600.0, 1200.0)),
    _of("skull base to mid-thigh", arms="up", right_arm="down"),
    _of("chest to pelvis", arms="up", implants=("spinal rods",), slices="thick"),
    _of("skull base to mid-thigh", body_mass_index=46.0, diameter_mm=500.0),
    _of("head to toe", position="FFS"),
    _of("chest to pelvis", arms="up", position="HFP", aids=("vacuum cushion",)),
    _of("head and neck", implants=("dental fillings",), aids=("oxygen tube", "head holder")),
    _of("upper legs", position="FFS", implants=("femoral nail",), aids=("knee wedge",)),
    _of("chest to pelvis", arms="crossed", body_mass_index=37.0),
    _of("skull base to mid-thigh", arms="up", position="FFP"),
    _of("abdomen", arms="crossed", slices="thick"),
    _of("legs", position="FFS", blanket=(-20.0, 800.0), implants=("hip prosthesis",)),
    _of("head to shoulders", aids=("head holder", "oxygen tube")),
    _of("skull base to mid-thigh", arms="up", body_mass_index=43.0, diameter_mm=500.0, aids=("vacuum cushion",)),
    _of("head to toe", arms="down", right_arm="up", reversed_scan=True),
    _of("skull base to mid-thigh", position="HFP", axes="patient"),
    _of("abdomen to thighs", arms="crossed", aids=("ECG cable",)),
    _of("chest", blanket=(1000.0, 1400.0), aids=("ECG cable", "oxygen tube")),
    _of("pelvis", position="FFS", aids=("vacuum cushion",), blanket=(500.0, 1000.0)),
    _of("skull base to mid-thigh", arms="up", diameter_mm=420.0, centre_mm=(35.0, 5.0)),
    _of("head to toe", arms="crossed", right_arm="down", reversed_scan=True),
    _of("upper head", position="HFP", reversed_scan=True, slices="thin"),
    _of("neck and chest", arms="up", aids=("arm rest",), implants=("dental fillings",)),
    _of("skull base to mid-thigh", implants=("spinal rods",), blanket=(560.0, 1150.0), aids=("knee wedge",)),
    _of("chest to pelvis", arms="up", position="HFDL"),
    _of("skull base to mid-thigh", position="HFDR", slices="thick"),
    _of("chest", arms="up", body_mass_index=48.0, diameter_mm=500.0, aids=("ECG cable",)),
    _of("pelvis and thighs", position="FFP", implants=("hip prosthesis",), slices="thick"),
    _of("lower chest", slices="thin", implants=("spinal rods",)),
    _of("head to toe", arms="up", slices="thick", aids=("arm rest", "oxygen tube")),
    _of("skull base to mid-thigh", arms="up", right_arm="crossed", blanket=(600.0, 1100.0)),
    _of("abdomen to thighs", arms="crossed", body_mass_index=50.0, diameter_mm=480.0, centre_mm=(45.0, -20.0)),
    _of("upper legs", position="HFP", implants=("femoral nail",), diameter_mm=400.0, reversed_scan=True),
    _of("knees to chest", position="FFS", reversed_scan=True, aids=("vacuum cushion",), blanket=(500.0, 1100.0),
        implants=("femoral nail",)),
)  # fmt: skip


def sample_variation(seed: int) -> PhantomOptions:
    """The examination that a seed stands for: seeds 0 to 39 show every one of EXAMINATIONS, later ones repeat them
    with other patients, ends of the field of view and voxels."""
    rng = random_stream(seed, "variation")
    options = dict(EXAMINATIONS[seed % len(EXAMINATIONS)])
    slices = options.pop("slices", None)
    low, high = FIELDS[options.pop("field_of_view")]
    sex: Sex = "M" if rng.random() < 0.5 else "F"
    height = float(np.clip(rng.normal(1765 if sex == "M" else 1640, 70), 1480, 2020))
    index = float(options.pop("body_mass_index", np.clip(rng.normal(25.5, 4.0), 17.5, 34.0)))
    moved = rng.uniform(-END_JITTER_MM, END_JITTER_MM, 2)
    ends = low + moved[0] if low > 0 else low, high + moved[1] if high < TOP_MM else high
    return PhantomOptions(
        spacing_mm=_spacing(slices, rng),
        height_mm=round(height),
        body_mass_index=round(index, 1),
        sex=sex,
        age=int(np.clip(rng.normal(60, 15), 19, 92)),
        contrast=bool(rng.random() < 0.5),
        ct_noise=round(float(rng.uniform(0.7, 1.6)), 2),
        build="abdominal" if index > 30 else "even",
        field_of_view=(round(ends[0]), round(ends[1])),
        **options,
    )


def in_words(options: PhantomOptions) -> str:
    """What is special about an examination, as a row's name: 'chest, arms up, FFS, blanket'."""
    words = [_field_in_words(options), _arms_in_words(options)]
    if options.body_mass_index >= 35:
        words.append(f"BMI {options.body_mass_index:.0f}")
    if options.diameter_mm is not None:
        words.append(f"cut at {options.diameter_mm:.0f} mm")
    if options.position != "HFS":
        words.append(options.position if options.axes == "gantry" else f"{options.position} with the patient's axes")
    if options.reversed_scan:
        words.append("reversed")
    words += ["blanket"] if options.blanket is not None else []
    words += [*options.aids, *options.implants]
    thickness = options.spacing_mm[0]
    words += ["thin slices"] if thickness < 2.5 else ["thick slices"] if thickness > 6.5 else []
    return ", ".join(words)


def _field_in_words(options: PhantomOptions) -> str:
    """The name of the nearest of FIELDS."""
    if isinstance(options.field_of_view, str):
        return options.field_of_view
    low, high = options.field_of_view
    return min(FIELDS, key=lambda name: abs(FIELDS[name][0] - low) + abs(FIELDS[name][1] - high))


def _arms_in_words(options: PhantomOptions) -> str:
    left, right = options.arm_positions
    return f"arms {left}" if left == right else f"left arm {left}, right arm {right}"


def _spacing(slices: str | None, rng: np.random.Generator) -> Triple:
    """Voxels of a routine CT, thinned out so that forty whole bodies are made in minutes."""
    low, high = {"thin": (1.5, 2.0), "thick": (7.0, 10.0)}.get(slices or "", (3.0, 5.0))
    column = float(rng.uniform(2.1, 3.0))
    row = column if rng.random() < 0.7 else float(rng.uniform(2.1, 3.0))
    return round(float(rng.uniform(low, high)), 2), round(row, 2), round(column, 2)
