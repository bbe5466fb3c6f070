"""The JSON schema of FHIR R4 as a second validator, independent of the models that wrote a resource."""

import json
from functools import cache
from typing import Any

from jsonschema import Draft6Validator

from tests.peers.fhir_server import r4_schema_path


@cache
def _validator(resource_type: str) -> Draft6Validator:
    path = r4_schema_path()
    if path is None:
        raise FileNotFoundError("the R4 schema comes with the R4 server")
    definitions = json.loads(path.read_text("utf-8"))["definitions"]
    # The schema's root is a oneOf over every resource; going straight to the one asked for gives readable faults.
    return Draft6Validator({"$ref": f"#/definitions/{resource_type}", "definitions": definitions})


def schema_faults(resource: dict[str, Any]) -> list[str]:
    """What R4's schema has against a resource; empty where it is valid."""
    faults = _validator(resource["resourceType"]).iter_errors(resource)
    return [f"{'/'.join(map(str, fault.absolute_path))}: {fault.message}" for fault in faults]
