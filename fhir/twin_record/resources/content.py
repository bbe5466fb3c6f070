"""A FHIR resource as JSON: how one names another, and the check that what we make of a CT is valid R4."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fhir.resources.R4B import get_fhir_model_class
from pydantic import BaseModel, ValidationError

from twin_scanner.errors import Held, Rejected

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
        raise Rejected(f"The CT does not make a valid FHIR {model.__name__}: correct its {_places(error)}.") from None
    document: Resource = resource.model_dump(mode="json", exclude_none=True)
    return document


@contextmanager
def held_if_invalid(theirs: Iterable[Resource | None]) -> Iterator[None]:
    """Whatever breaks on resources from outside because one of them is no valid R4: Held, and it says where.

    They are not checked beforehand: what a server keeps against the standard does no harm until we need it.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        for resource in theirs:
            if resource is not None:
                _check_theirs(resource)
        raise


def _check_theirs(resource: Resource) -> None:
    kind = resource["resourceType"]
    try:
        get_fhir_model_class(kind).model_validate(resource)
    except ValidationError as error:
        raise Held(f"The FHIR server holds a {kind} that is no valid R4; correct its {_places(error)} there.") from None


def _places(error: ValidationError) -> str:
    faults = error.errors(include_input=False)
    return ", ".join(sorted({".".join(str(step) for step in fault["loc"]) for fault in faults}))


def _without_empty(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {key: _without_empty(part) for key, part in value.items()}
        return {key: part for key, part in kept.items() if part not in (None, "", [], {})}
    if isinstance(value, list):
        return [part for item in value if (part := _without_empty(item)) not in (None, "", [], {})]
    return value
