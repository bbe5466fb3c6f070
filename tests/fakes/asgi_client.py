"""A client of an ASGI application in this process: plain calls, no socket and no thread of its own."""

import asyncio
from typing import Any

import httpx


class AsgiClient:
    """Asks an application as a browser without a jar of cookies would; redirects are not followed."""

    def __init__(self, application: Any, base_url: str = "http://node.example") -> None:
        self._application = application
        self._base_url = base_url

    def get(self, url: str, **arguments: Any) -> httpx.Response:
        """GET."""
        return self.request("GET", url, **arguments)

    def post(self, url: str, **arguments: Any) -> httpx.Response:
        """POST."""
        return self.request("POST", url, **arguments)

    def request(self, method: str, url: str, **arguments: Any) -> httpx.Response:
        """Any request."""
        return asyncio.run(self._ask(method, url, arguments))

    async def _ask(self, method: str, url: str, arguments: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(self._application)
        async with httpx.AsyncClient(transport=transport, base_url=self._base_url) as client:
            return await client.request(method, url, **arguments)
