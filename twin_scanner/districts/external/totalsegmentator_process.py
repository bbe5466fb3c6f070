"""The child that runs TotalSegmentator on the CT in the folder that it is given."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from twin_scanner.districts.external.network_process import INPUT, serve
from twin_scanner.imaging.volume import LabelArray

NO_STATISTICS = {
    "totalseg_id": "none",
    "send_usage_stats": False,
    "prediction_counter": 0,
    "statistics_disclaimer_shown": True,
}


def predict(folder: Path, request: dict[str, Any]) -> dict[str, LabelArray]:
    """The labels of both tasks, in a home of our own where no statistics are sent from."""
    home = folder / "home"
    home.mkdir()
    (home / "config.json").write_text(json.dumps(NO_STATISTICS), "utf-8")
    os.environ |= {"TOTALSEG_HOME_DIR": str(home), "TOTALSEG_WEIGHTS_PATH": str(request["weights"])}
    return {task: _predict(task, folder, request) for task in ("total", "body")}


def _predict(task: str, folder: Path, request: dict[str, Any]) -> LabelArray:
    """The task's labels (D, H, W), on the CT's own grid."""
    import nibabel
    from totalsegmentator.python_api import totalsegmentator

    ct = np.load(folder / INPUT, allow_pickle=False)
    image = nibabel.Nifti1Image(ct.transpose(2, 1, 0), np.asarray(request["affine"]))
    found = totalsegmentator(
        image,
        None,
        task=task,
        fast=bool(request["fast"]),
        ml=True,
        device="gpu" if str(request["device"]).startswith("cuda") else str(request["device"]),
        quiet=True,
        nr_thr_resamp=1,
        nr_thr_saving=1,
    )
    return np.asarray(found.dataobj).astype(np.uint8).transpose(2, 1, 0)


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1]), "totalsegmentator", "TotalSegmentator could not run", predict))
