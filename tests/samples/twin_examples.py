"""The examples of docs/twin.md: each resource as the embedded store keeps it after one scan of an invented patient.

`python -m tests.samples.twin_examples` writes them into the page; a test says where the page and the code differ.
"""

import json
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.samples.twin_situations import first_scan, wishing
from tests.samples.twin_updates import CT_STORAGE, PET_STORAGE, SITE
from twin_record.embedded import EmbeddedStore
from twin_record.update import SeriesEntry, TwinUpdate

Json = dict[str, Any]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "twin.md"
BEGIN = "<!-- The examples below are written by `python -m tests.samples.twin_examples`. -->\n"
END = "<!-- End of the examples. -->\n"
WIDTH = 116
UID = "2.999.7"
CLASSES = {"CT": CT_STORAGE, "PT": PET_STORAGE, "SEG": "1.2.840.10008.5.1.4.1.1.66.4"}
MEASUREMENT_REPORT = "1.2.840.10008.5.1.4.1.1.88.34"


def example_update() -> TwinUpdate:
    """A CT of two slices and what was made of it, with UIDs that say what they belong to."""
    return first_scan(
        patient_id="PID-0001",
        patient_name="Example^Erika",
        birth_date="19700131",
        sex="F",
        study_uid=f"{UID}.1",
        frame_of_reference_uid=f"{UID}.1.9",
        source_series=_series("CT", 2, "thorax 3.0 B30f", 2),
        pet_series=_series("PT", 1001, "SYNTHETIC FDG-PET", 2, asserted_by_ai=True),
        companion_series=(
            _series("SEG", 1002, "RESEARCH districts", 1),
            _series("SR", 1003, "SYNTHETIC FDG-PET, SUV by district", 1, asserted_by_ai=True),
        ),
        model_hash="0123456789abcdef",
        plan_hash="fedcba9876543210",
        segmenter_hash="00112233445566778899",
    )


def _series(
    modality: str, number: int, description: str, instances: int, *, asserted_by_ai: bool = False
) -> SeriesEntry:
    return SeriesEntry(
        series_uid=f"{UID}.1.{number}",
        modality=modality,
        sop_class_uid=CLASSES.get(modality, MEASUREMENT_REPORT),
        sop_instance_uids=tuple(f"{UID}.1.{number}.{instance}" for instance in range(1, instances + 1)),
        description=description,
        number=number,
        body_part_examined="CHEST",
        asserted_by_ai=asserted_by_ai,
        instance_numbers=tuple(range(1, instances + 1)),
    )


def examples() -> dict[str, Json]:
    """One resource of each kind, as a site that wishes for everything has it; ids count, versions are left out."""
    update = example_update()
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(EmbeddedStore(Path(folder) / "twin.db", wishing(SITE))) as store,
    ):
        store.record(update)
        found = [entry["resource"] for entry in store.patient_record(update.patient_id, None)["entry"]]
    kinds: dict[str, list[Json]] = {}
    for resource in sorted(found, key=_order):
        kinds.setdefault(resource["resourceType"], []).append(resource)
    text = json.dumps({kind: resources[0] for kind, resources in kinds.items()})
    for kind, resources in kinds.items():
        for number, resource in enumerate(resources, start=1):
            text = text.replace(resource["id"], f"{kind.lower()}-{number}")
    shown: dict[str, Json] = json.loads(text)
    return {kind: _without_version(resource) for kind, resource in shown.items()}


def _order(resource: Json) -> str:
    return " ".join(json.dumps(resource.get(field, "")) for field in ("resourceType", "code", "bodySite"))


def _without_version(resource: Json) -> Json:
    meta = {key: part for key, part in resource.get("meta", {}).items() if key not in ("versionId", "lastUpdated")}
    first = {"resourceType": resource["resourceType"], "id": resource["id"], **({"meta": meta} if meta else {})}
    return {**first, **{key: part for key, part in resource.items() if key not in ("id", "meta")}}


def formatted(value: Any, indent: int = 0) -> str:
    """JSON on one line where it fits, else an item a line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= WIDTH or not isinstance(value, dict | list):
        return line
    inner = " " * (indent + 2)
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(key)}: {formatted(part, indent + 2)}" for key, part in value.items()]
        return "{\n" + ",\n".join(parts) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(inner + formatted(part, indent + 2) for part in value) + "\n" + " " * indent + "]"


def written_page(page: str) -> str:
    """The page with the examples as they are now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    blocks = "".join(f"\n### {kind}\n\n```json\n{formatted(resource)}\n```\n" for kind, resource in examples().items())
    return f"{before}{BEGIN}{blocks}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written_page(PAGE.read_text("utf-8")), "utf-8")
