"""What an answer over HTTP may cost, whoever reads it: so many bytes, and so much time until it is whole."""

from collections.abc import Callable, Iterator
from typing import Final

import httpx

from twin_scanner.errors import Unavailable

LARGEST_ANSWER_BYTES: Final = 256 * 2**20
"""More than any patient's record needs; a broken proxy may send without end."""
LARGEST_TOKEN_BYTES: Final = 2**20
"""What a token endpoint, and a refusal of a token, may say."""
OF_ACCESS: Final = "twin_record.of_access"
"""The extension of a request for a token."""


class Bounds:
    """A response hook of an httpx client; everything that is read afterwards raises Unavailable where it costs more."""

    def __init__(self, timeout_s: float, clock: Callable[[], float]) -> None:
        self._timeout_s = timeout_s
        self._clock = clock

    def __call__(self, response: httpx.Response) -> None:
        """Bound one response; what is said of access is read as it comes, for a few bytes may unpack to many."""
        of_access = OF_ACCESS in response.request.extensions or response.status_code == httpx.codes.UNAUTHORIZED
        if of_access:
            response.headers.pop("Content-Encoding", None)
        if isinstance(response.stream, httpx.SyncByteStream):
            limit = LARGEST_TOKEN_BYTES if of_access else LARGEST_ANSWER_BYTES
            name = "token endpoint" if OF_ACCESS in response.request.extensions else "FHIR server"
            response.stream = _Bounded(response.stream, limit, self._clock() + self._timeout_s, self._clock, name)


class _Bounded(httpx.SyncByteStream):
    def __init__(
        self, stream: httpx.SyncByteStream, limit: int, deadline_s: float, clock: Callable[[], float], name: str
    ) -> None:
        self._stream = stream
        self._limit = limit
        self._deadline_s = deadline_s
        self._clock = clock
        self._name = name

    def __iter__(self) -> Iterator[bytes]:
        received = 0
        for part in self._stream:
            received += len(part)
            if received > self._limit:
                raise Unavailable(f"The {self._name}'s answer does not end; check any proxy before it.")
            if self._clock() > self._deadline_s:
                raise Unavailable(f"The {self._name}'s answer was not whole in time; it is asked again later.")
            yield part

    def close(self) -> None:
        self._stream.close()
