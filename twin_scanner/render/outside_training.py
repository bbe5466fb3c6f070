"""Whether a CT is of a kind that the model was trained on, from headers and the model's card alone; without torch."""

from twin_scanner.dicom.read.ct_headers import HEADER_KEYWORDS
from twin_scanner.dicom.read.ct_stack import read_instance, stack_of
from twin_scanner.dicom.read.dicom_files import quiet_pydicom
from twin_scanner.errors import Rejected
from twin_scanner.models.card import read_card
from twin_scanner.models.ranges import ct_facts, outside_of
from twin_scanner.models.store import ModelStore
from twin_scanner.render.request import RenderRequest

KEYWORDS = (*HEADER_KEYWORDS, "PatientAge", "PatientBirthDate", "StudyDate", "SpecificCharacterSet")


def states_ranges(request: RenderRequest) -> bool:
    """Whether the request's model says what it was trained on; False where its card cannot be read."""
    try:
        return bool(read_card(ModelStore(request.model_store).resolve(request.model)).ranges)
    except Rejected:
        return False


def outside_training(request: RenderRequest) -> tuple[str, ...]:
    """What of the request's CT lies outside of its model's training data, a clause each.

    Empty where model or CT cannot be read: the render says why.
    """
    try:
        card = read_card(ModelStore(request.model_store).resolve(request.model))
        with quiet_pydicom():
            instances = [read_instance(file, KEYWORDS) for file in sorted(request.source.iterdir())]
            stack = stack_of(
                instances,
                preference=request.preference,
                accept_synthetic=request.accept_synthetic_ct,
                gantry_tilt=request.gantry_tilt,
            )
        return outside_of(card.ranges, ct_facts(stack.slices[0].header, stack.geometry))
    except Rejected:
        return ()
