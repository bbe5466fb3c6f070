"""The outputs that are only written when asked for: the uncertainty per voxel, and the explanation of an uptake."""

from typing import Any

import numpy as np

from twin_scanner.dicom.district_measurements import SUV_MEAN
from twin_scanner.imaging.volume import Volume
from twin_scanner.models.package import ModelPackage
from twin_scanner.progress import Progress
from twin_scanner.render.request import RenderRequest
from twin_scanner.synthesis.pipeline import SyntheticPet


def write_optional_outputs(
    request: RenderRequest, pet: SyntheticPet, package: ModelPackage, progress: Progress | None
) -> dict[str, Any]:
    """Write what the request wants into its result's folder; the report's entries ``uncertainty`` and ``explanation``.

    The target of an explanation is looked for first, so that a wrong one costs nothing; raises Rejected for it.
    """
    if not request.uncertainty and not request.explain:
        return {}
    from twin_scanner.pictures.explanation import write_explanation
    from twin_scanner.synthesis.calibration import stored_calibration
    from twin_scanner.synthesis.explain import explain, find_target
    from twin_scanner.synthesis.uncertainty import uncertainty, write_uncertainty

    entries: dict[str, Any] = {}
    names = pet.district_map.names
    target = find_target(request.explain, pet.districts, pet.suv.geometry, names) if request.explain else None
    if request.uncertainty:
        # A calibration was measured on the package's own stitching and says nothing of another.
        own = pet.stitching == package.card.stitching
        calibration = stored_calibration(request.model_store, package.card) if own else None
        deviation = uncertainty(
            pet.ct,
            pet.districts,
            pet.suv,
            package,
            stitching=pet.stitching,
            calibration=calibration,
            progress=progress,
        )
        write_uncertainty(request.result, deviation)
        entries["uncertainty"] = deviation.as_json() | {"districts": _by_district(deviation.deviation, pet)}
    if target is not None:
        explained = explain(pet.ct, pet.districts, package, target, stitching=pet.stitching, progress=progress)
        write_explanation(request.result, explained, pet.ct)
        entries["explanation"] = explained.as_json()
    return entries


def _by_district(deviation: Volume, pet: SyntheticPet) -> dict[str, float]:
    """The mean deviation (g/ml) in each district that was synthesised, by name."""
    names = {int(label): pet.district_map.name(int(label)) for label in np.unique(pet.districts) if label}
    return {
        name: round(float(deviation.array[pet.districts == label].mean(dtype=np.float64)), SUV_MEAN.digits)
        for label, name in names.items()
        if name not in pet.missing_districts
    }
