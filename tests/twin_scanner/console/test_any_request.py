"""Requests that schemathesis makes of the console's OpenAPI, right and wrong ones, from every role: none fails here."""

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any, Final

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from tests.conftest import missing
from tests.fakes.app_browser import AppBrowser
from tests.samples.attacked_console import AttackedConsole, attacked_console
from twin_scanner.console.access.control import BROWSER, SESSION
from twin_scanner.console.access.csrf import HEADER, token_of
from twin_scanner.console.access.passwords import Passwords
from twin_scanner.console.access.roles import Role

pytestmark = [pytest.mark.record, pytest.mark.long]
EXAMPLES: Final = 5
"""Of each kind (as the description says, and against it), for each operation and role."""
ENDLESS: Final = "/live"
"""Answered as long as somebody listens: a client that waits for the end would wait for ever."""
MORE_QUERIES: Final = {
    "/fhir/{kind}": ("identifier", "patient", "_lastUpdated", "_count", "_after", "_format", "name"),
    "/": ("said",),
}
"""Parameters that a route reads by itself, so that the description does not name them."""
ANSWERED, ANSWERED_STRANGERS = 20, 1
"""Of how many operations some request must succeed: a test whose requests are all refused finds nothing."""
KNOWN: Final = {
    "job_id": ("job_id", "failed_id", "0" * 32),
    "kind": ("Patient", "Observation", "Nothing"),
    "place": ("0", "middle", "99999"),
}
"""Values of path parameters that lead somewhere, and one of each that does not."""
WHATEVER: Final = {"type": "string", "maxLength": 60}


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory, passwords: Passwords) -> Iterator[AttackedConsole]:
    with attacked_console(tmp_path_factory.mktemp("site"), passwords) as console:
        yield console


@pytest.fixture(scope="module")
def schema(console: AttackedConsole) -> dict[str, Any]:
    """The OpenAPI with the pages for people, ids that exist, and what the handlers read beyond their parameters."""
    found = described(console.app)
    for path, operations in found["paths"].items():
        for operation in operations.values():
            parameters = operation.setdefault("parameters", [])
            for parameter in parameters:
                known = KNOWN.get(parameter["name"], ())
                if known:
                    parameter["schema"] = {"enum": [getattr(console, name, name) for name in known]}
            parameters += [{"name": name, "in": "query", "schema": WHATEVER} for name in MORE_QUERIES.get(path, ())]
    del found["paths"][ENDLESS]
    return found


def described(app: FastAPI) -> dict[str, Any]:
    """The application's OpenAPI, its pages for people among it."""
    for context in iter_route_contexts(app.routes):
        if hasattr(context, "include_in_schema"):
            context._effective_route.include_in_schema = True  # type: ignore[union-attr]
    app.openapi_schema = None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Duplicate Operation ID")  # of the route for every method that FHIR refuses
        return deepcopy(app.openapi())


@pytest.mark.parametrize("role", [*Role, None])
def test_no_request_of_whatever_form_fails_on_our_side(
    console: AttackedConsole, schema: dict[str, Any], role: Role | None
) -> None:
    if importlib.util.find_spec("schemathesis") is None:
        missing("schemathesis (pip install -e '.[gate]')")
    import schemathesis

    answered = [
        answer
        for operation in schemathesis.openapi.from_dict(schema).get_all_operations()
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
        for answer in answers(console.browser(role, raises=False), operation.ok(), mode)
    ]
    assert [(label, status, asked) for label, status, asked in answered if status >= 500] == []
    successes = {label for label, status, _ in answered if status < 400}
    assert len(successes) >= (ANSWERED_STRANGERS if role is None else ANSWERED), sorted(successes)


def answers(browser: AppBrowser, operation: Any, mode: Any) -> list[tuple[str, int, str]]:
    """What an operation's requests of one kind are answered: its name, the status, and the request as a curl line."""
    answered = []
    browser.cookies.set(BROWSER, "secret")

    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        answered.append((operation.label, status_of(browser, case), case.as_curl_command()))

    with suppress(Unsatisfiable):  # an operation without parameters cannot be asked against its description
        ask()
    return answered


def status_of(browser: AppBrowser, case: Any) -> int:
    """What a request of schemathesis's is answered, sent with the token that our own pages have."""
    asked = case.as_transport_kwargs(base_url="http://localhost")
    headers = {**asked.pop("headers"), HEADER: token_of(browser.cookies.get(SESSION, "secret"))}
    asked.pop("cookies")
    return browser.request(asked.pop("method"), asked.pop("url"), headers=headers, **asked).status_code
