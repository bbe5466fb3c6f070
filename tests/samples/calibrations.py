"""A calibration of two bins, for any package."""

from twin_scanner.models.package import ModelPackage
from twin_scanner.synthesis.calibration import FLIPS, Calibration, CalibrationBin, SpreadMethod

LOW = CalibrationBin(0.0, 1.0, (0.1, 0.3), (0.2, 0.4), (1.0, 2.0), 5, 900)
HIGH = CalibrationBin(1.0, 20.0, (0.5,), (2.0,), (0.5, 3.0), 5, 900)


def calibration_of(package: ModelPackage, method: SpreadMethod = FLIPS) -> Calibration:
    """Two bins that meet at SUV 1, levels of 68.3 and 95 %."""
    return Calibration(
        package.model_hash, package.plan.plan_hash, method, 20.0, (0.683, 0.95), (LOW, HIGH), ("ab", "cd", "ef")
    )
