"""SUV: by body weight from the attributes of a PET, and of a region its mean, maximum and peak; knows no file."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import FloatArray, LabelArray, Shape, Triple, Volume, label_counts

_Known = TypeVar("_Known")

PEAK_SPHERE_ML: Final = 1.0
"""Volume of the sphere of SUVpeak (Wahl et al., PERCIST 1.0, J Nucl Med 2009; 50 Suppl 1:122S)."""
PEAK_RADIUS_MM: Final = (3.0 * PEAK_SPHERE_ML * 1000.0 / (4.0 * np.pi)) ** (1.0 / 3.0)
"""6.2 mm."""
PEAK_DEFINITION: Final = (
    "SUVpeak: the highest mean of a sphere of 1 ml centred on a voxel of the district (PERCIST 1.0); the sphere may "
    "reach beyond the district, not beyond the image"
)
"""What a reader of the number must know: programs differ in shape, place and size of the peak's region."""


NEEDED_CORRECTIONS: Final = ("ATTN", "DECY")
"""CorrectedImage (PS3.3 C.8.9.1.1.2): without attenuation and decay correction a voxel is no concentration."""
SMALLEST_DOSE_BQ: Final = 1e6
"""Every diagnostic dose is tens to hundreds of MBq; a smaller number was written in MBq (or mCi) instead of Bq."""
WEIGHT_RANGE_KG: Final = (1.0, 500.0)
"""From a newborn to the limit of the strongest table; 70000 was written in grams."""
LONGEST_UPTAKE_S: Final = 8 * 3600.0
"""From injection to the decay reference: delayed images come after up to four hours. More is a wrong date or clock."""
LONGEST_LEAD_S: Final = 3600.0
"""From the series' start to its first acquisition; more, and the series' time is that of another event."""
LONGEST_SCAN_S: Final = 4 * 3600.0
"""From the first acquisition to the last one of a series: a body takes up to an hour. More, and the clock passed
midnight, but the date did not."""


@dataclass(frozen=True)
class PetAttributes:
    """What the headers of a PET series say that its SUV follows from; None or empty where they say nothing.

    ``corrected_image``, ``decay_correction``, ``units`` and ``suv_type`` are the attributes of those names.
    ``weight_kg`` is PatientWeight, ``dose_bq`` RadionuclideTotalDose, ``half_life_s`` RadionuclideHalfLife. Times are
    the scanner's local ones: ``injected_at`` is RadiopharmaceuticalStartDateTime, ``injection_clock`` the time of day
    in RadiopharmaceuticalStartTime, ``series_start`` SeriesDate and SeriesTime, and ``first_acquisition`` and
    ``last_acquisition`` the earliest and the latest AcquisitionDate and AcquisitionTime of all slices.
    """

    units: str
    decay_correction: str
    corrected_image: tuple[str, ...] = NEEDED_CORRECTIONS
    suv_type: str = ""
    weight_kg: float | None = None
    dose_bq: float | None = None
    half_life_s: float | None = None
    injected_at: datetime | None = None
    injection_clock: time | None = None
    series_start: datetime | None = None
    first_acquisition: datetime | None = None
    last_acquisition: datetime | None = None


@dataclass(frozen=True)
class PhilipsFactors:
    """Philips' private scale factors of a slice in counts; None where absent.

    ``suv`` (7053,1000): SUV-bw of one unit; ``activity`` (7053,1009): Bq/ml of one unit. Philips writes 0 for unknown.
    """

    suv: float | None = None
    activity: float | None = None


NO_FACTORS: Final = PhilipsFactors()


def check_corrections(pet: PetAttributes) -> None:
    """Raises Rejected, naming the attribute, for a PET without attenuation or decay correction."""
    for needed in NEEDED_CORRECTIONS:
        if needed not in pet.corrected_image:
            raise Rejected(f"CorrectedImage of the PET lacks {needed}: send the corrected series.")
    if pet.decay_correction == "NONE":
        raise Rejected("DecayCorrection of the PET is NONE: send the series that is corrected for decay.")


def suv_factor(pet: PetAttributes, philips: PhilipsFactors = NO_FACTORS) -> float:
    """SUV by body weight (g/ml) of one unit of a rescaled pixel, for Units BQML, CNTS and GML.

    Raises Rejected, naming the attribute, where it is missing, implausible or says that no SUV-bw can be had.
    """
    check_corrections(pet)
    if pet.units == "GML":
        if pet.suv_type not in ("", "BW"):
            raise Rejected(f"SUVType of the PET is {pet.suv_type}, not BW: send it in BQML, or by body weight.")
        return 1.0
    if pet.units == "CNTS" and philips.suv:
        return _positive("SUV scale factor (7053,1000)", philips.suv)
    bqml = bqml_factor(pet, philips)
    if bqml is None:
        raise Rejected(f"Units of the PET are {pet.units or 'missing'}, not BQML, CNTS or GML: send it in BQML.")
    return bqml * suv_bw_per_bqml(pet)


def bqml_factor(pet: PetAttributes, philips: PhilipsFactors = NO_FACTORS) -> float | None:
    """Bq/ml of one unit of a rescaled pixel; None where the units know no activity (GML, and CNTS with SUV alone).

    Raises Rejected for counts with neither of Philips' factors.
    """
    if pet.units == "BQML":
        return 1.0
    if pet.units != "CNTS":
        return None
    if philips.activity:
        return _positive("activity concentration scale factor (7053,1009)", philips.activity)
    if philips.suv:
        return None
    raise Rejected(
        "Units of the PET are CNTS, and both the SUV scale factor (7053,1000) and the activity concentration scale "
        "factor (7053,1009) are missing: send it in BQML, or with its private attributes."
    )


def suv_bw_per_bqml(pet: PetAttributes) -> float:
    """SUV by body weight (g/ml) of 1 Bq/ml: weight in g over the dose at the decay reference in Bq.

    SUV-bw = activity concentration x weight / dose (QIBA FDG-PET/CT profile 1.13, appendix G: the vendor-neutral
    calculation). The dose is taken at the time to which the image was corrected: at injection for DecayCorrection
    ADMIN, decayed until ``decay_reference`` for START. Raises Rejected, naming the attribute that is missing or wrong.
    """
    weight_kg = _needed("PatientWeight", pet.weight_kg)
    lightest, heaviest = WEIGHT_RANGE_KG
    if not lightest <= weight_kg <= heaviest:
        raise Rejected(f"PatientWeight of the PET lies outside {lightest:g} to {heaviest:g} kg: correct the sender.")
    return weight_kg * 1000.0 / dose_at_reference_bq(pet)


def dose_at_reference_bq(pet: PetAttributes) -> float:
    """The injected dose in Bq at the time to which the image was corrected; raises as ``suv_bw_per_bqml``."""
    dose_bq = _needed("RadionuclideTotalDose", pet.dose_bq)
    if dose_bq < SMALLEST_DOSE_BQ:
        raise Rejected(
            f"RadionuclideTotalDose of the PET is {dose_bq:g}, below {SMALLEST_DOSE_BQ:g} Bq, so it was not written in "
            "Bq: correct the sender."
        )
    if pet.decay_correction == "ADMIN":
        return dose_bq
    if pet.decay_correction != "START":
        shown = pet.decay_correction or "missing"
        raise Rejected(f"DecayCorrection of the PET is {shown}, neither START nor ADMIN: correct the sender.")
    half_life_s = _needed("RadionuclideHalfLife", pet.half_life_s)
    return float(dose_bq * 2.0 ** (-uptake_s(pet) / half_life_s))


def decay_reference(pet: PetAttributes) -> datetime:
    """When START was: the start of the acquisition, to which all slices are corrected (PS3.3 C.8.9.1.1.4).

    The series' time, unless an acquisition began before it: then the series was made afterwards and bears the time of
    its making, and the earliest acquisition is the start (QIBA, as above). Raises Rejected where a time is missing,
    the series' time lies more than LONGEST_LEAD_S before the first acquisition, or the acquisitions more than
    LONGEST_SCAN_S apart.
    """
    series_start = _needed("SeriesTime (with SeriesDate)", pet.series_start)
    first = _needed("AcquisitionTime (with AcquisitionDate)", pet.first_acquisition)
    lasted_s = ((pet.last_acquisition or first) - first).total_seconds()
    if lasted_s > LONGEST_SCAN_S:
        raise Rejected(
            f"AcquisitionTime (with AcquisitionDate) of the PET's slices spans {lasted_s / 3600:.1f} hours, so nobody "
            "knows when it began: correct the sender."
        )
    lead_s = (first - series_start).total_seconds()
    if lead_s > LONGEST_LEAD_S:
        raise Rejected(
            f"SeriesTime of the PET is {lead_s / 60:.0f} minutes before its first AcquisitionTime, so nobody knows to "
            "which time its decay was corrected: correct the sender."
        )
    return series_start if lead_s >= 0 else first


def uptake_s(pet: PetAttributes) -> float:
    """Seconds from injection to ``decay_reference``.

    RadiopharmaceuticalStartDateTime decides where it is given. A time of day alone lies within the 24 hours before
    the reference, so before midnight where it is later by the clock. Raises Rejected, naming the attribute, where it is
    missing, or the uptake is negative or longer than LONGEST_UPTAKE_S.
    """
    reference = decay_reference(pet)
    if pet.injected_at is not None:
        keyword, injection = "RadiopharmaceuticalStartDateTime", pet.injected_at
    else:
        keyword = "RadiopharmaceuticalStartTime"
        injection = datetime.combine(reference.date(), _needed(keyword, pet.injection_clock))
        if injection > reference:
            injection -= timedelta(days=1)
    seconds = (reference - injection).total_seconds()
    if not 0 <= seconds <= LONGEST_UPTAKE_S:
        raise Rejected(
            f"{keyword} of the PET is {seconds / 3600:.1f} hours before the start of its acquisition, and must be 0 to "
            f"{LONGEST_UPTAKE_S / 3600:g}: correct the sender."
        )
    return seconds


def _needed(keyword: str, value: _Known | None) -> _Known:
    if value is None:
        raise Rejected(f"{keyword} of the PET is missing, so it has no SUV: the sender must send it.")
    return value


def _positive(what: str, value: float) -> float:
    if value <= 0:
        raise Rejected(f"The {what} of the PET is {value:g} and must be positive: correct the sender.")
    return value


@dataclass(frozen=True)
class RegionSuv:
    """SUV (g/ml) of one region and where it is highest; indices are (d, h, w).

    ``peak`` is SUVpeak as PERCIST 1.0 has it: the highest mean of a 1 ml sphere centred on a voxel of the region; the
    sphere may reach beyond the region, but not beyond the image. None where no whole sphere fits: the image is thinner
    than the sphere.
    """

    volume_ml: float
    mean: float
    maximum: float
    maximum_at: Shape
    peak: float | None
    peak_at: Shape | None


def region_suv(suv: Volume, labels: LabelArray) -> dict[int, RegionSuv]:
    """Statistics of every label (D, H, W) that is present; ``suv`` in g/ml on the same grid.

    A label that is nowhere has no numbers, so no entry.
    """
    if suv.array.shape != labels.shape:
        raise ValueError(f"the labels {labels.shape} do not lie on the SUV {suv.array.shape}")
    counts = label_counts(labels)
    present = [int(label) for label in np.flatnonzero(counts) if label]
    peaks = _peaks(suv, labels)
    found = {}
    for label in present:
        mask = labels == label
        inside = np.where(mask, suv.array, np.float32(-np.inf))
        at = np.unravel_index(int(np.argmax(inside)), inside.shape)
        peak, peak_at = peaks.get(label, (None, None))
        found[label] = RegionSuv(
            volume_ml=float(counts[label]) * suv.geometry.voxel_ml,
            mean=float(suv.array[mask].mean(dtype=np.float64)),
            maximum=float(inside[at]),
            maximum_at=(int(at[0]), int(at[1]), int(at[2])),
            peak=peak,
            peak_at=peak_at,
        )
    return found


def sphere_rows(spacing_mm: Triple) -> dict[tuple[int, int], int]:
    """The 1 ml sphere as rows along W: for each offset (d, h) the half length in voxels.

    A voxel belongs to the sphere where its centre does, and every such voxel counts alike.
    """
    reach = [int(PEAK_RADIUS_MM // s) for s in spacing_mm]
    rows = {}
    for d in range(-reach[0], reach[0] + 1):
        for h in range(-reach[1], reach[1] + 1):
            rest = PEAK_RADIUS_MM**2 - (d * spacing_mm[0]) ** 2 - (h * spacing_mm[1]) ** 2
            if rest >= 0:
                rows[d, h] = int(np.sqrt(rest) // spacing_mm[2])
    return rows


def _peaks(suv: Volume, labels: LabelArray) -> dict[int, tuple[float, Shape]]:
    """The highest sphere mean of every label and its centre, slice by slice."""
    best: dict[int, tuple[float, Shape]] = {}
    for d, means in _sphere_means(suv.array, sphere_rows(suv.geometry.spacing_mm)):
        here = labels[d]
        for label in np.flatnonzero(np.bincount(here.ravel())):
            if label == 0:
                continue
            inside = np.where(here == label, means, -np.inf)
            h, w = np.unravel_index(int(np.argmax(inside)), inside.shape)
            value = float(inside[h, w])
            if np.isfinite(value) and value > best.get(int(label), (-np.inf, None))[0]:
                best[int(label)] = (value, (d, int(h), int(w)))
    return best


def _sphere_means(
    array: FloatArray, rows: Mapping[tuple[int, int], int]
) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """For every slice that has room for the sphere: its index and the mean around each voxel; -inf at the edges.

    Sums along W come from running sums, of which only the slices that a sphere spans are kept.
    """
    deep = max(d for d, _ in rows)
    high = max(h for _, h in rows)
    wide = max(rows.values())
    voxels = sum(2 * half + 1 for half in rows.values())
    depth, height, width = array.shape
    if depth <= 2 * deep or height <= 2 * high or width <= 2 * wide:
        return
    sums: deque[npt.NDArray[np.float64]] = deque(maxlen=2 * deep + 1)
    for last in range(depth):
        running = np.zeros((height, width + 1))
        np.cumsum(array[last], axis=1, dtype=np.float64, out=running[:, 1:])
        sums.append(running)
        if len(sums) <= 2 * deep:
            continue
        total = np.zeros((height - 2 * high, width - 2 * wide))
        for (d, h), half in rows.items():
            part = sums[deep + d][high + h : height - high + h]
            total += part[:, wide + half + 1 : width - wide + half + 1] - part[:, wide - half : width - wide - half]
        means = np.full((height, width), -np.inf)
        means[high : height - high, wide : width - wide] = total / voxels
        yield last - deep, means
