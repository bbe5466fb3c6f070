"""The Provenance: what it says of how a PET came to be."""

import pytest

from tests.samples.twin_updates import an_update
from twin_record.resources.provenance import new_provenance

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("derivation", "text"),
    [
        ("", "CT to synthetic PET"),
        (
            "The gantry was tilted by 8.0 degrees: the CT was resampled (linear).",
            "CT to synthetic PET. The gantry was tilted by 8.0 degrees: the CT was resampled (linear).",
        ),
    ],
)
def test_the_activity_names_a_resampling_of_the_ct(derivation: str, text: str) -> None:
    update = an_update(source_derivation=derivation)
    made = new_provenance(update, "ImagingStudy/1", "List/1", "Device/1")
    assert made["activity"]["text"] == text
