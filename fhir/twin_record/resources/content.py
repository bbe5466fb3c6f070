"""A FHIR resource as JSON: how one names another, and the check that what we make of a CT is valid R4."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fhir.resources.R4B import get_fhir_model_class
from pydantic import BaseModel, ValidationError

from twin_scanner.errors import Held, Rejected

Resource = dict[str, Any]
"""A FHIR resource, or a part of one, as JSON."""

INSTANCES = "instance"
"""Of a series: a thousand parts in which R4 has no reference."""


def short_reference(reference: str) -> str:
    """Type/id of a literal reference, whether relative, absolute or to a version; anything else unchanged."""
    path = reference.split("/_history/")[0].split("/")
    return "/".join(path[-2:]) if len(path) >= 2 and path[-2][:1].isupper() else reference


def is_literal(reference: str) -> bool:
    """Whether a reference is Type/id, which a server can be asked for."""
    return re.fullmatch(r"[A-Z][A-Za-z]+/[A-Za-z0-9.-]{1,64}", reference) is not None


def literal_of(resource: Resource) -> str:
    """Type/id of a resource that a server holds."""
    return f"{resource['resourceType']}/{resource['id']}"


def valid(model: type[BaseModel], content: Mapping[str, Any]) -> Resource:
    """The content as the model writes it, without what is empty; Rejected where R4 does not allow it."""
    document: Resource = _validated(model, without_empty(content)).model_dump(mode="json", exclude_none=True)
    return document


def checked(model: type[BaseModel], content: Mapping[str, Any]) -> Resource:
    """As ``valid``, but the content itself, in half the time: for what is written as R4 writes it already."""
    resource = {"resourceType": model.__name__, **without_empty(content)}
    _validated(model, resource)
    return resource


def _validated(model: type[BaseModel], content: Resource) -> BaseModel:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise Rejected(f"The CT does not make a valid FHIR {model.__name__}: correct its {places(error)}.") from None


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
        raise Held(f"The FHIR server holds a {kind} that is no valid R4; correct its {places(error)} there.") from None


def places(error: ValidationError) -> str:
    """Where a model found faults, without what stands there."""
    faults = error.errors(include_input=False)
    return ", ".join(sorted({".".join(str(step) for step in fault["loc"]) for fault in faults}))


def without_empty(value: Any) -> Any:
    """A resource, or a part of one, without its empty parts: R4 has none."""
    if isinstance(value, dict):
        kept = {key: without_empty(part) for key, part in value.items()}
        return {key: part for key, part in kept.items() if part not in (None, "", [], {})}
    if isinstance(value, list):
        return [part for item in value if (part := without_empty(item)) not in (None, "", [], {})]
    return value


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A resource, or a part of one, with each reference that has another name here under that name."""
    if isinstance(value, list):
        return [renamed(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _name(part, names) if key == "reference" else part if key == INSTANCES else renamed(part, names)
        for key, part in value.items()
    }


def _name(reference: Any, names: Mapping[str, str]) -> Any:
    return names.get(short_reference(reference), reference) if isinstance(reference, str) else reference


def references_in(value: Any) -> Iterator[str]:
    """Every reference of a resource, or of a part of one, as Type/id or placeholder."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            for key, part in item.items():
                if key == "reference" and isinstance(part, str):
                    yield short_reference(part)
                else:
                    yield from references_in(part)
        elif isinstance(item, list):
            yield from references_in(item)
