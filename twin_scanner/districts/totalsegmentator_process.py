"""The child that runs TotalSegmentator on one CT: python -m twin_scanner.districts.totalsegmentator_process FOLDER."""

import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

from twin_scanner.districts.network_process import INPUT, REQUEST, tell_failure

NO_STATISTICS = {
    "totalseg_id": "none",
    "send_usage_stats": False,
    "prediction_counter": 0,
    "statistics_disclaimer_shown": True,
}


def main(folder: Path) -> int:
    """Predict; 0 where total.npy and body.npy were written, else 1 and a sentence in the folder."""
    request = json.loads((folder / REQUEST).read_text("utf-8"))
    home = folder / "home"
    home.mkdir()
    (home / "config.json").write_text(json.dumps(NO_STATISTICS), "utf-8")
    os.environ |= {"TOTALSEG_HOME_DIR": str(home), "TOTALSEG_WEIGHTS_PATH": str(request["weights"])}
    primus = "nnunetv2.training.nnUNetTrainer.primus.primus_trainers"
    sys.modules[primus] = types.ModuleType(primus)
    try:
        for task in ("total", "body"):
            np.save(folder / f"{task}.npy", _predict(task, folder, request))
    except MemoryError:
        tell_failure(folder, "transient", "The segmenter 'totalsegmentator' ran out of memory: it will be run again.")
        return 1
    except (RuntimeError, KeyError, ValueError, AttributeError, ImportError, OSError) as error:
        tell_failure(folder, "defect", f"TotalSegmentator could not run ({type(error).__name__}): check its version.")
        return 1
    return 0


def _predict(task: str, folder: Path, request: dict[str, Any]) -> Any:
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
    sys.exit(main(Path(sys.argv[1])))
