"""The child that runs nnU-Net's predictor on one CT: python -m twin_scanner.districts.external.moose_process FOLDER."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from twin_scanner.districts.external.network_process import INPUT, serve
from twin_scanner.imaging.volume import LabelArray


def predict(folder: Path, request: dict[str, Any]) -> dict[str, LabelArray]:
    """Labels (D, H, W) of a CT in RAS; one call, no helper processes, mirrored only where the checkpoint says so."""
    os.environ.update(nnUNet_compile="f")
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
    ct = np.load(folder / INPUT, allow_pickle=False)[None].astype(np.float32)
    labels = predictor.predict_single_npy_array(ct, {"spacing": list(request["spacing_mm"])})
    return {"labels": labels.astype(np.uint8)}


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1]), "moose", "nnU-Net could not run the model", predict))
