"""Everything that the twin writes is valid R4 by four validators, three of which did not write it."""

from collections.abc import Iterator
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class
from pydantic import ValidationError

from tests.conftest import missing
from tests.peers.fhir_server import r4_schema_path
from tests.peers.r4_schema import schema_faults
from tests.peers.r4_validators import fhirkit_faults, sekmet_faults
from tests.peers.sekmet_server import peers_folder
from tests.samples.twin_situations import KINDS, wishing, written_resources
from tests.samples.twin_updates import SITE
from twin_record.embedded import EmbeddedStore

pytestmark = pytest.mark.record

Json = dict[str, Any]


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Json]]:
    """Each kind that the twin writes, new and changed, with everything that a site may wish for."""
    with closing(EmbeddedStore(tmp_path_factory.mktemp("store") / "twin.db", wishing(SITE))) as store:
        found = written_resources(store.record, lambda update: store.patient_record(update.patient_id, None))
    assert {resource["resourceType"] for resource in found} == KINDS
    yield found


def model_faults(resource: Json) -> list[str]:
    """What fhir.resources has against a resource."""
    try:
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)
    except ValidationError as error:
        return [str(fault) for fault in error.errors()]
    return []


def spoiled(resource: Json) -> Json:
    """A resource with an element that R4 does not know."""
    return {**deepcopy(resource), "syntheticOrNot": True}


def test_fhir_resources_and_the_schema_of_r4_find_nothing(resources: list[Json]) -> None:
    if r4_schema_path() is None:
        missing("the R4 schema (tests/peers/fhir-r4-server/node_modules)")
    for resource in resources:
        assert model_faults(resource) == []
        assert schema_faults(resource) == []
        assert model_faults(spoiled(resource))
        assert schema_faults(spoiled(resource))


def test_sekmet_finds_nothing(resources: list[Json], sekmet_url: str) -> None:
    for resource in resources:
        assert sekmet_faults(resource, sekmet_url) == []
        assert any("syntheticOrNot" in fault for fault in sekmet_faults(spoiled(resource), sekmet_url))


def test_fhirkit_finds_nothing(resources: list[Json], tmp_path: Path) -> None:
    if peers_folder() is None:
        missing("fhirkit (tests/peers/sekmet/install.sh)")
    (tmp_path / "ours").mkdir()
    (tmp_path / "spoiled").mkdir()
    assert fhirkit_faults(resources, tmp_path / "ours") == []
    found = fhirkit_faults([spoiled(resource) for resource in resources], tmp_path / "spoiled")
    assert sum("syntheticOrNot: unknown element" in fault for fault in found) == len(resources)
