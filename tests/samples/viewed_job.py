"""A finished job's folder whose patient is no mirror image of himself: what lies left, in front or up is known.

The body is a box of water. Bone (1000 HU) lies at the right hand, SUV 8 is in the front of the left half at the head's
end, and the head is a district of its own. Voxels are 3 x 2 x 1.5 mm in the CT and 3 x 4 x 3 mm in the PET.
"""

from pathlib import Path
from typing import Final

import numpy as np

from tests.samples.ct_files import ct_image, save
from twin_scanner.imaging.volume import Geometry, write_nifti
from twin_scanner.render.report import RenderReport, write_report

JOB_ID: Final = "0123456789abcdef0123456789abcdef"
CT_GRID: Final = Geometry((20, 24, 48), (3.0, 2.0, 1.5), (-36.0, -20.0, 100.0))
PET_GRID: Final = CT_GRID.with_spacing((3.0, 4.0, 3.0))
BONE_HU: Final = 1000
WATER_HU: Final = 0
AIR: Final = -1000
HOT_SUV: Final = 8.0


def hounsfield(grid: Geometry = CT_GRID) -> np.ndarray:
    """HU (D, H, W): air, a box of water, and in its right side bone."""
    _, h, w = grid.shape
    values = np.full(grid.shape, AIR, np.int16)
    values[:, h // 6 : -h // 6, w // 8 : -w // 8] = WATER_HU
    values[:, h // 6 : -h // 6, w // 8 : w // 4] = BONE_HU
    return values


def suv() -> np.ndarray:
    """SUV (D, H, W): 1 in the body, hot at the head's end, in front and left."""
    d, h, w = PET_GRID.shape
    values = np.where(hounsfield(PET_GRID) > AIR, 1.0, 0.0).astype(np.float32)
    values[d * 3 // 4 :, h // 6 : h // 2, w // 2 : -w // 4] = HOT_SUV
    return values


def labels() -> np.ndarray:
    """Head (1) in the upper third of the body, trunk (2) below."""
    values = np.where(hounsfield(PET_GRID) > AIR, 2, 0).astype(np.uint8)
    upper = values[PET_GRID.shape[0] * 2 // 3 :]
    upper[upper == 2] = 1
    return values


def write_viewed_job(jobs: Path, job_id: str = JOB_ID, *, phantom_only: bool = False, prone: bool = False) -> Path:
    """Write ct/ and result/ of a finished job below ``jobs``; the job's folder.

    ``prone`` stores the same CT with the columns from left to right and the rows from back to front.
    """
    folder = jobs / job_id
    sign, pixels = (-1, hounsfield()[:, ::-1, ::-1]) if prone else (1, hounsfield())
    corner = (CT_GRID.shape[1] - 1, CT_GRID.shape[2] - 1) if prone else (0, 0)
    for index in range(CT_GRID.shape[0]):
        image = ct_image(
            index,
            axes=((sign, 0, 0), (0, sign, 0)),
            step_mm=CT_GRID.spacing_mm[0],
            Rows=CT_GRID.shape[1],
            Columns=CT_GRID.shape[2],
            PixelSpacing=[CT_GRID.spacing_mm[1], CT_GRID.spacing_mm[2]],
            ImagePositionPatient=list(CT_GRID.position_lps_mm((index, *corner))),
            RescaleSlope=1,
            RescaleIntercept=-1024,
            PixelRepresentation=0,
            PixelData=(pixels[index] + 1024).astype(np.uint16).tobytes(),
        )
        save(image, folder / "ct" / "1.2.826.0.1.3680043.8.498.1" / f"{index:03d}.dcm")
    result = folder / "result"
    result.mkdir()
    write_nifti(result / "pet.nii.gz", suv(), PET_GRID)
    write_nifti(result / "districts.nii.gz", labels(), PET_GRID)
    write_report(result, _report(phantom_only))
    return folder


def _report(phantom_only: bool) -> RenderReport:
    return RenderReport(
        software_version="1",
        model_name="small",
        model_hash="0" * 64,
        plan_hash="1" * 64,
        segmenter="landmarks",
        segmenter_hash="2" * 64,
        missing_districts=(),
        districts={"head": {"volume_ml": 1.0}, "trunk": {"volume_ml": 2.0}},
        segmentation_quality=(),
        suv_max=HOT_SUV,
        notes=(),
        seconds={},
        made_at="2026-01-01T00:00:00+00:00",
        revision=1,
        phantom_only=phantom_only,
    )
