"""Access tokens that we ask for ourselves: OAuth 2.0 client credentials (RFC 6749, 4.4), nothing of them ever logged.

The client shows a secret, or signs an assertion as SMART Backend Services has it (HL7 SMART App Launch 2.2, RFC 7523).
Every fault is Unavailable: it stops all that is meant for the server, and says where to look.
"""

import base64
import hashlib
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from twin_record.bounds import OF_ACCESS
from twin_record.refusals import retry_after_s
from twin_scanner.errors import Unavailable

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_LIFETIME_S: Final = 240
"""SMART allows five minutes; the rest is for clocks that differ."""
EARLIER_S: Final = 30.0
"""A token is renewed so long before its end, or at half its life where that is sooner."""
DEFAULT_LIFETIME_S: Final = 300.0
"""The life of a token whose server does not say."""
SMALLEST_RSA_BITS: Final = 2048
P384_BITS: Final = 384
THUMBPRINT: Final = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y")}
"""The members of a public key that name it (RFC 7638), in their order."""

Fields = dict[str, str]
Asking = Generator[httpx.Request, httpx.Response, Any]


class Client(Protocol):
    """Whoever asks for a token, as the token endpoint knows it."""

    def credentials(self, token_url: str) -> tuple[Fields, Fields]:
        """The fields and the headers of one token request; Unavailable where its file holds no secret."""
        ...


@dataclass(frozen=True)
class ClientSecret:
    """A client that shows its secret as HTTP Basic (RFC 6749, 2.3.1); the file is read for each token."""

    client_id: str
    file: Path

    def credentials(self, token_url: str) -> tuple[Fields, Fields]:
        """See Client."""
        secret = _read(self.file, "client secret").strip()
        if not secret or b"\n" in secret:
            raise Unavailable(f"The client secret file {self.file} holds no secret: write it as one line.")
        # Both are form-encoded before they are joined (RFC 6749, appendix B).
        parts = (str(httpx.QueryParams({"": part}))[1:] for part in (self.client_id, secret.decode("utf-8", "replace")))
        return {}, {"Authorization": f"Basic {base64.b64encode(':'.join(parts).encode()).decode()}"}


@dataclass(frozen=True)
class PrivateKey:
    """A client that signs an assertion (private_key_jwt) with a key in a file, PEM or JWK; it is read for each token.

    RSA keys sign RS384 and P-384 keys ES384, the two that every SMART server takes. A JWK brings its own `kid`; a key
    in PEM is named by its thumbprint (RFC 7638).
    """

    client_id: str
    file: Path
    clock: Callable[[], float] = time.time

    def credentials(self, token_url: str) -> tuple[Fields, Fields]:
        """See Client."""
        key, algorithm, key_id = self.signing_key()
        now = int(self.clock())
        names = {"iss": self.client_id, "sub": self.client_id, "aud": token_url, "jti": str(uuid.uuid4())}
        claims: dict[str, Any] = {**names, "iat": now, "exp": now + ASSERTION_LIFETIME_S}
        assertion = jwt.encode(claims, key, algorithm=algorithm, headers={"kid": key_id})
        return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}, {}

    def signing_key(self) -> tuple[RSAPrivateKey | EllipticCurvePrivateKey, str, str]:
        """The key, its algorithm and its name; Unavailable where the file holds none that can be used."""
        content = _read(self.file, "private key")
        try:
            document = json.loads(content) if content.lstrip().startswith(b"{") else {}
            key: object = _of_jwk(document) if document else load_pem_private_key(content, None)
        except (ValueError, TypeError, KeyError, AttributeError, jwt.PyJWTError):
            key = None
        if isinstance(key, RSAPrivateKey) and key.key_size >= SMALLEST_RSA_BITS:
            return key, "RS384", str(document.get("kid") or thumbprint(RSAAlgorithm.to_jwk(key.public_key(), True)))
        if isinstance(key, EllipticCurvePrivateKey) and key.key_size == P384_BITS:
            return key, "ES384", str(document.get("kid") or thumbprint(ECAlgorithm.to_jwk(key.public_key(), True)))
        raise Unavailable(
            f"The private key file {self.file} holds no key that can be used: write an RSA key of {SMALLEST_RSA_BITS} "
            "bits or more, or a P-384 key, as PEM without a password or as a JWK."
        )


def _of_jwk(document: dict[str, Any]) -> object:
    return (RSAAlgorithm if document["kty"] == "RSA" else ECAlgorithm).from_jwk(document)


def thumbprint(public: dict[str, Any]) -> str:
    """The name of a public JWK that follows from it (RFC 7638)."""
    named = {name: public[name] for name in THUMBPRINT[public["kty"]]}
    digest = hashlib.sha256(json.dumps(named, separators=(",", ":")).encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _read(file: Path, what: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Unavailable(f"The {what} file {file} cannot be read: {error.strerror}; check [twin].") from None


@dataclass(frozen=True)
class _Token:
    value: str
    renewed_from_s: float


class ClientCredentials(httpx.Auth):
    """Asks for a token when one is needed, keeps it, and asks anew before its end and after a 401.

    Without `token_url` the server's `.well-known/smart-configuration` names the endpoint. Several threads share one
    token: one of them asks, the others wait for it.
    """

    def __init__(
        self,
        client: Client,
        base_url: str,
        *,
        token_url: str = "",
        scope: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._configured_url = token_url
        self._scope = scope
        self._clock = clock
        self._lock = threading.Lock()
        self._token: _Token | None = None
        self._token_url = token_url
        self.granted_scope = ""
        """What the last token allows, as its server said it."""

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Raise Unavailable where no token is to be had."""
        sent = yield from self._usable(request, None)
        request.headers["Authorization"] = f"Bearer {sent.value}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            renewed = yield from self._usable(request, sent)
            request.headers["Authorization"] = f"Bearer {renewed.value}"
            yield request

    def _usable(self, request: httpx.Request, refused: _Token | None) -> Asking:
        """The token that is kept, or a new one where it is the refused one or near its end."""
        with self._lock:
            kept = self._token
            if kept is None or kept is refused or self._clock() >= kept.renewed_from_s:
                self._token = None
                self._token = kept = yield from self._asked_for(request)
            return kept

    def _asked_for(self, request: httpx.Request) -> Asking:
        if not self._token_url:
            self._token_url = yield from self._discovered(request)
        fields, headers = self._client.credentials(self._token_url)
        fields |= {"grant_type": "client_credentials", **({"scope": self._scope} if self._scope else {})}
        asked_s = self._clock()
        answer = yield from _sent(_asking("POST", self._token_url, request, fields, headers))
        document = _document(answer)
        if answer.status_code != httpx.codes.OK:
            self._token_url = self._configured_url
            raise _refusal(answer, document)
        value, kind = document.get("access_token"), str(document.get("token_type", "")).lower()
        if not isinstance(value, str) or not re.fullmatch(r"[!-~]+", value) or kind != "bearer":
            raise Unavailable("The token endpoint's answer holds no bearer token; check twin.token_url.")
        # RFC 6749, 5.1: a token whose scope is not said has the one that was asked for.
        granted = document.get("scope")
        self.granted_scope = granted if isinstance(granted, str) else self._scope
        life = document.get("expires_in")
        life_s = float(life) if isinstance(life, int | float) and life > 0 else DEFAULT_LIFETIME_S
        return _Token(value, asked_s + life_s - min(EARLIER_S, life_s / 2))

    def _discovered(self, request: httpx.Request) -> Asking:
        url = f"{self._base_url}/.well-known/smart-configuration"
        answer = yield from _sent(_asking("GET", url, request, None, {}))
        named = _document(answer).get("token_endpoint")
        if answer.status_code != httpx.codes.OK or not isinstance(named, str):
            failure = Unavailable(
                "The FHIR server names no token endpoint at .well-known/smart-configuration (status "
                f"{answer.status_code}); set twin.token_url."
            )
            failure.retry_after_s = retry_after_s(answer.status_code, answer.headers.get("Retry-After", ""))
            raise failure
        if self._base_url.startswith("https:") and not named.startswith("https:"):
            raise Unavailable("The FHIR server names a token endpoint that is not https; set twin.token_url to one.")
        return named


def _asking(method: str, url: str, request: httpx.Request, fields: Fields | None, headers: Fields) -> httpx.Request:
    """A request that waits no longer than the one that needs the token; its answer is short, and comes unpacked."""
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", **headers}
    extensions = {**request.extensions, OF_ACCESS: True}
    return httpx.Request(method, url, data=fields, headers=headers, extensions=extensions)


def _sent(request: httpx.Request) -> Asking:
    response = yield request
    response.read()
    return response


def _document(answer: httpx.Response) -> dict[str, Any]:
    try:
        document = json.loads(answer.content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _refusal(answer: httpx.Response, document: dict[str, Any]) -> Unavailable:
    code = document.get("error")
    said = f", {code}" if isinstance(code, str) and re.fullmatch(r"[a-z_]{1,40}", code) else ""
    advice = {
        "invalid_client": "check twin.client_id, and that its key or secret is the one registered there",
        "unauthorized_client": "allow the client there to use client credentials",
        "invalid_scope": "set twin.scope to what the client may have",
    }.get(str(code), "check twin.token_url and the client's registration")
    failure = Unavailable(f"The token endpoint gives no token (status {answer.status_code}{said}); {advice}.")
    failure.retry_after_s = retry_after_s(answer.status_code, answer.headers.get("Retry-After", ""))
    return failure
