"""The Device: one model version."""

from typing import Final

from fhir.resources.R4B.device import Device

from twin_record.resources.codes import AI_DEVICE, MODEL_SYSTEM, PRODUCT
from twin_record.resources.content import Resource, valid
from twin_record.resources.dicom_values import clean_text
from twin_record.update import TwinUpdate

RESEARCH: Final = "For research only; its images are synthetic and not for diagnosis."
PHANTOM_ONLY: Final = "The model was trained on phantoms only: its images say nothing of a patient."


def new_device(update: TwinUpdate) -> Resource:
    """The model version as a Device: only what belongs to the model, so it never changes."""
    return valid(
        Device,
        {
            "identifier": [{"system": MODEL_SYSTEM, "value": update.model_hash}],
            "status": "active",
            "manufacturer": PRODUCT,
            "deviceName": [{"name": clean_text(update.model_name), "type": "model-name"}],
            "type": {"coding": [AI_DEVICE], "text": "CT to synthetic FDG-PET translation model"},
            "version": [{"type": {"text": "plan hash"}, "value": update.plan_hash}],
            "note": [{"text": note} for note in (RESEARCH, *([PHANTOM_ONLY] if update.phantom_only else []))],
        },
    )
