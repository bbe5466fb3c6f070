"""Asks @cornerstonejs/calculate-suv, by which OHIF scales a PET, about a series; `npm ci` in calculate-suv/ gets it."""

import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

PROGRAM = Path(__file__).resolve().parent / "calculate-suv"
TIMEOUT_S = 60.0
ATTRIBUTES = (
    "Units",
    "DecayCorrection",
    "SeriesDate",
    "SeriesTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "PatientSex",
)
NUMBERS = ("PatientWeight", "PatientSize")
DOSE_NUMBERS = ("RadionuclideTotalDose", "RadionuclideHalfLife")
DOSE_TIMES = ("RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime")


def is_installed() -> bool:
    """Whether node and the package are here."""
    return shutil.which("node") is not None and (PROGRAM / "node_modules" / "@cornerstonejs").is_dir()


def suv_factors(files: Iterable[Path]) -> dict[str, Any]:
    """``factors``, a dictionary an instance, or ``refused``: the sentence with which the package throws."""
    instances = [_instance(pydicom.dcmread(file, stop_before_pixels=True)) for file in files]
    command = ["node", str(PROGRAM / "suv_factors.mjs")]
    done = subprocess.run(command, input=json.dumps(instances), capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _instance(header: Dataset) -> dict[str, Any]:
    """What OHIF's getPTImageIdInstanceMetadata takes from a header; what is absent stays undefined."""
    (isotope,) = header.RadiopharmaceuticalInformationSequence
    found: dict[str, Any] = {"CorrectedImage": list(header.CorrectedImage)}
    found |= {name: str(header[name].value) for name in ATTRIBUTES if header.get(name)}
    found |= {name: float(header[name].value) for name in NUMBERS if header.get(name) is not None}
    found |= {name: float(isotope[name].value) for name in DOSE_NUMBERS if isotope.get(name) is not None}
    return found | {name: str(isotope[name].value) for name in DOSE_TIMES if isotope.get(name)}
