"""A FHIR resource as JSON: how one names another, and the check that what we make of a CT is valid R4."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from twin_scanner.errors import Rejected

Resource = dict[str, Any]
"""A FHIR resource, or a part of one, as JSON."""


def short_reference(reference: str) -> str:
    """Type/id of a literal reference, whether relative, absolute or to a version; anything else unchanged."""
    path = reference.split("/_history/")[0].split("/")
    return "/".join(path[-2:]) if len(path) >= 2 and path[-2][:1].isupper() else reference


def valid(model: type[BaseModel], content: Mapping[str, Any]) -> Resource:
    """The content as the model writes it, without what is empty; Rejected where R4 does not allow it."""
    try:
        resource = model.model_validate(_without_empty(dict(content)))
    except ValidationError as error:
        places = sorted({".".join(str(step) for step in fault["loc"]) for fault in error.errors(include_input=False)})
        raise Rejected(
            f"The CT does not make a valid FHIR {model.__name__}: correct its {', '.join(places)}."
        ) from None
    document: Resource = resource.model_dump(mode="json", exclude_none=True)
    return document


def _without_empty(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {key: _without_empty(part) for key, part in value.items()}
        return {key: part for key, part in kept.items() if part not in (None, "", [], {})}
    if isinstance(value, list):
        return [part for item in value if (part := _without_empty(item)) not in (None, "", [], {})]
    return value
