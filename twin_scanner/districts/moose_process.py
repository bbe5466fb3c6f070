"""The child that runs nnU-Net's predictor on one CT: python -m twin_scanner.districts.moose_process FOLDER."""

import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

from twin_scanner.districts.network_process import INPUT, REQUEST, tell_failure


def main(folder: Path) -> int:
    """Predict; 0 where labels.npy was written, else 1 and a sentence in the folder."""
    request = json.loads((folder / REQUEST).read_text("utf-8"))
    os.environ.update(nnUNet_compile="f")
    # The search for a trainer imports vision transformers first, whose torchvision may not match a CPU build of torch.
    primus = "nnunetv2.training.nnUNetTrainer.primus.primus_trainers"
    sys.modules[primus] = types.ModuleType(primus)
    try:
        labels = _predict(np.load(folder / INPUT, allow_pickle=False), request)
    except MemoryError:
        tell_failure(folder, "transient", "The segmenter 'moose' ran out of memory: it will be run again.")
        return 1
    except (RuntimeError, KeyError, ValueError, AttributeError, ImportError, OSError) as error:
        tell_failure(folder, "defect", f"nnU-Net could not run the model ({type(error).__name__}): check its version.")
        return 1
    np.save(folder / "labels.npy", labels.astype(np.uint8))
    return 0


def _predict(ct: Any, request: dict[str, Any]) -> Any:
    """Labels (D, H, W) of a CT in RAS; one call, no helper processes, mirrored only where the checkpoint says so."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=True,
        perform_everything_on_device=str(request["device"]) != "cpu",
        device=torch.device(str(request["device"])),
        verbose=False,
        allow_tqdm=False,
    )
    folds = tuple(fold if fold == "all" else int(fold) for fold in request["folds"])
    predictor.initialize_from_trained_model_folder(
        str(request["weights"]), use_folds=folds, checkpoint_name="checkpoint_final.pth"
    )
    return predictor.predict_single_npy_array(ct[None].astype(np.float32), {"spacing": list(request["spacing_mm"])})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
