"""The bearer token of a server: it lies in a file that others renew, and is never kept or logged here."""

import re
from collections.abc import Generator
from pathlib import Path

import httpx

from twin_scanner.errors import Unavailable


class TokenFile(httpx.Auth):
    """Reads the token for each request, and once more where the server answers 401: it may just have been renewed."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Raise Unavailable where the file holds no token."""
        sent = self._token()
        request.headers["Authorization"] = f"Bearer {sent}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED and (renewed := self._token()) != sent:
            request.headers["Authorization"] = f"Bearer {renewed}"
            yield request

    def _token(self) -> str:
        try:
            token = self._file.read_bytes().strip()
        except OSError as error:
            raise Unavailable(f"The token file {self._file} cannot be read: {error.strerror}; renew it.") from None
        if not token:
            raise Unavailable(f"The token file {self._file} is empty: put the server's token into it.")
        if not re.fullmatch(rb"[!-~]+", token):
            raise Unavailable(f"The token file {self._file} holds no token: write it as one line of plain ASCII.")
        return token.decode("ascii")
