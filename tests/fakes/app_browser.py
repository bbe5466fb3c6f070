"""A browser of an ASGI application in this process: it keeps cookies and has an address, and follows no redirect."""

import asyncio
from typing import Any

import httpx


class AppBrowser:
    """Asks one application from one address; ``raises``: a fault of the application is raised here too."""

    def __init__(
        self,
        application: Any,
        base_url: str = "http://node.example",
        address: str = "127.0.0.1",
        *,
        raises: bool = True,
    ) -> None:
        self._transport = httpx.ASGITransport(application, raise_app_exceptions=raises, client=(address, 5000))
        self._base_url = base_url
        self.cookies = httpx.Cookies()

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
        async with httpx.AsyncClient(
            transport=self._transport, base_url=self._base_url, cookies=self.cookies
        ) as client:
            answer = await client.request(method, url, **arguments)
            self.cookies = client.cookies
            return answer
