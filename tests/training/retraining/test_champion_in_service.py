"""The running node and a new champion: taken with the next job, without a restart, and the last one let go."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from training.phantom.phantom import make_phantom, sample_options
from twin_scanner.districts.choice import SegmenterChoice
from twin_scanner.imaging.volume import write_nifti
from twin_scanner.models.card import Architecture
from twin_scanner.models.networks import UNetGenerator
from twin_scanner.models.package import load_package, save_package
from twin_scanner.models.partition import WHOLE_BODY
from twin_scanner.models.plan import Plan
from twin_scanner.models.store import ModelStore
from twin_scanner.render.render import render
from twin_scanner.render.report import RenderReport
from twin_scanner.render.request import RenderRequest

pytestmark = pytest.mark.unit

PLAN = Plan(spacing_mm=(20.0, 20.0, 20.0))


def package(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_package(
        folder,
        name=f"model-{seed}",
        plan=PLAN,
        partition=WHOLE_BODY,
        architecture=Architecture("unet", 2),
        networks={"body": UNetGenerator(2, float(seed))},
        segmenter="landmarks",
        about={},
    )
    return folder


def test_the_next_job_takes_the_new_champion_and_a_rollback_too(tmp_path: Path) -> None:
    """One process, as the node's worker is; oracle: the hash in each report, and PETs that differ and come back."""
    phantom = make_phantom(3, sample_options(3, spacing_mm=(12.0, 12.0, 12.0)))
    write_nifti(tmp_path / "ct.nii.gz", phantom.ct.array, phantom.ct.geometry)
    models = ModelStore(tmp_path / "models")
    hashes = [load_package(package(tmp_path / str(seed), seed)).model_hash for seed in (0, 1)]

    def job(name: str) -> RenderReport:
        request = RenderRequest(
            source=tmp_path / "ct.nii.gz",
            result=tmp_path / name,
            made_at=datetime(2026, 1, 1, tzinfo=UTC),
            model="champion",
            model_store=models.folder,
            segmenter=SegmenterChoice("landmarks"),
            allow_other_segmenter=False,
            missing_district="reject",
            device_serial_number="TS-0001",
            accept_synthetic_ct=True,
        )
        return render(request)

    models.promote(str(tmp_path / "0"), by="force", reason="The first.")
    first = job("first")
    models.promote(str(tmp_path / "1"), by="force", reason="Better.")
    second = job("second")
    models.rollback("Not better.")
    third = job("third")
    assert [report.model_hash for report in (first, second, third)] == [hashes[0], hashes[1], hashes[0]]
    assert first.suv_max == third.suv_max != second.suv_max
    assert job("second") == second, "what was rendered is never rendered again by another model"
