"""The pages of a search (R4 http, 3.1.0.1.11): each is asked of our own server, whatever address its link names."""

from collections.abc import Callable
from typing import Any, Final

import httpx

from twin_record.endpoint import DAMAGED, entries_of, is_success
from twin_record.resources.content import Resource
from twin_scanner.errors import Transient

MOST_PAGES: Final = 500
"""No patient has so many resources of a type that a search for them has more."""
ENDLESS: Final = "The FHIR server's answer to a search has pages without end; it will be asked again."


def whole(url: str, answer: Resource, ask: Callable[[str], Resource]) -> Resource:
    """The answer to a search with the matches of all its pages; `ask` answers what stands after the base address.

    What asks for a number of matches (`_count`) wants no more than those. Raises Transient where a page leads back to
    one before it, or leads nowhere.
    """
    kind, _, query = url.partition("?")
    matches = answer.get("resource", {})
    link = _next(matches)
    if not query or "_count=" in query or link is None or not is_success(answer):
        return answer
    entries = list(entries_of(matches))
    asked = {link}
    while link is not None:
        page = ask(_of_our_server(link, kind))
        matches = page.get("resource", {})
        if not is_success(page) or matches.get("resourceType") != "Bundle":
            raise Transient(DAMAGED)
        entries += entries_of(matches)
        link = _next(matches)
        if link in asked or len(asked) == MOST_PAGES:
            raise Transient(ENDLESS)
        asked.add(link or "")
    return {**answer, "resource": {**answer["resource"], "entry": entries}}


def _next(matches: Any) -> str | None:
    links = matches.get("link") if isinstance(matches, dict) and matches.get("type") == "searchset" else None
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("relation") == "next" and isinstance(link.get("url"), str):
            return str(link["url"])
    return None


def _of_our_server(link: str, kind: str) -> str:
    """Type and query of a link, or the query alone where a server keeps its pages at its base address."""
    try:
        url = httpx.URL(link)
    except httpx.InvalidURL:
        raise Transient(DAMAGED) from None
    query = url.query.decode("ascii", "replace")
    if not query:
        raise Transient(DAMAGED)
    named = url.path.rstrip("/").rpartition("/")[2] in (kind, "_search")
    return f"{kind}?{query}" if named else f"?{query}"
