"""Tokens of OAuth 2.0 client credentials. Oracles: a SMART server, PyJWT's own check, RFC 7638's example."""

import base64
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.conftest import missing
from tests.peers.sekmet_server import peers_folder, running_sekmet
from tests.samples.twin_updates import SITE, an_update, another_study
from twin_record.bounds import LARGEST_TOKEN_BYTES
from twin_record.client_credentials import ClientCredentials, ClientSecret, PrivateKey, thumbprint
from twin_record.remote import FhirClient
from twin_scanner.errors import Unavailable

pytestmark = pytest.mark.record

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP384R1())
BASE = "https://fhir.hospital/r4"
TOKEN_URL = "https://login.hospital/token"
SECRET = "s3cret with: a colon+ä"


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "client.pem"
    file.write_bytes(pem(RSA_KEY))
    return file


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "client-secret"
    file.write_text(f"{SECRET}\n")
    return file


class TokenServer:
    """A FHIR server and its token endpoint: tokens live for `life_s` of a driven clock."""

    def __init__(self, life_s: float | None = 300.0) -> None:
        self.life_s = life_s
        self.now_s = 1000.0
        self.issued: list[tuple[str, float]] = []
        self.asked: list[httpx.Request] = []
        self.refusal: httpx.Response | None = None
        self.configuration = httpx.Response(200, json={"token_endpoint": TOKEN_URL})
        self.revoked: set[str] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("smart-configuration"):
            return self.configuration
        if str(request.url) == TOKEN_URL:
            self.asked.append(request)
            if self.refusal is not None:
                return self.refusal
            self.issued.append((f"token-{len(self.issued)}", self.now_s))
            life = {} if self.life_s is None else {"expires_in": self.life_s}
            return httpx.Response(200, json={"access_token": self.issued[-1][0], "token_type": "Bearer", **life})
        token = request.headers["Authorization"].removeprefix("Bearer ")
        born = dict(self.issued).get(token)
        if born is None or token in self.revoked or self.now_s > born + (self.life_s or 300.0):
            return httpx.Response(401)
        return httpx.Response(200, json={"resourceType": "CapabilityStatement"})

    def client(self, credentials: Any, **options: Any) -> FhirClient:
        access = ClientCredentials(credentials, BASE, clock=lambda: self.now_s, **options)
        return FhirClient(BASE, SITE, auth=access, transport=httpx.MockTransport(self))


def fields(request: httpx.Request) -> dict[str, str]:
    return dict(httpx.QueryParams(request.content.decode("ascii")))


def test_a_token_is_asked_for_once_and_renewed_before_its_end(secret_file: Path) -> None:
    server = TokenServer(life_s=300.0)
    with closing(server.client(ClientSecret("node", secret_file))) as client:
        for now_s, issued in ((1000.0, 1), (1100.0, 1), (1269.0, 1), (1271.0, 2), (1540.0, 2), (1542.0, 3)):
            server.now_s = now_s
            client.capability()
            assert len(server.issued) == issued


class Endless(httpx.SyncByteStream):
    """A body without end; says how much of it was read."""

    def __init__(self) -> None:
        self.sent = 0

    def __iter__(self) -> Iterator[bytes]:
        while self.sent < 64 * LARGEST_TOKEN_BYTES:
            self.sent += 2**16
            yield b" " * 2**16


@pytest.mark.parametrize("endless", ["token", "configuration", "refusal of the token"])
def test_what_is_said_of_access_has_an_end(endless: str, secret_file: Path) -> None:
    """It was read whole, however long it was."""
    server, body = TokenServer(), Endless()
    if endless == "configuration":
        server.configuration = httpx.Response(200, stream=body)
    if endless == "token":
        server.refusal = httpx.Response(200, stream=body, headers={"Content-Encoding": "gzip"})
    client = server.client(ClientSecret("node", secret_file))
    if endless == "refusal of the token":
        answer = httpx.Response(401, stream=body)
        access = ClientCredentials(ClientSecret("node", secret_file), BASE)
        tokens = httpx.MockTransport(lambda asked: answer if asked.url.path.endswith("metadata") else server(asked))
        client = FhirClient(BASE, SITE, auth=access, transport=tokens)
    with closing(client), pytest.raises(Unavailable, match="does not end"):
        client.capability()
    assert body.sent <= LARGEST_TOKEN_BYTES + 2**16


def test_a_token_that_comes_in_drops_is_not_waited_for(secret_file: Path) -> None:
    server = TokenServer()

    def drops() -> Iterator[bytes]:
        for _ in range(100):
            server.now_s += 10.0
            yield b" "

    class Drops(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            return drops()

    server.refusal = httpx.Response(200, stream=Drops())
    access = ClientCredentials(ClientSecret("node", secret_file), BASE)
    transport, clock = httpx.MockTransport(server), lambda: server.now_s
    with (
        closing(FhirClient(BASE, SITE, auth=access, timeout_s=30.0, transport=transport, clock=clock)) as client,
        pytest.raises(Unavailable, match="token endpoint's answer was not whole in time"),
    ):
        client.capability()


def test_a_token_of_five_seconds_is_renewed_at_half_its_life(secret_file: Path) -> None:
    server = TokenServer(life_s=5.0)
    with closing(server.client(ClientSecret("node", secret_file))) as client:
        for now_s, issued in ((1000.0, 1), (1002.0, 1), (1003.0, 2)):
            server.now_s = now_s
            client.capability()
            assert len(server.issued) == issued


def test_a_token_that_is_refused_is_replaced_once(secret_file: Path) -> None:
    """The server revoked it, or its clock runs ahead of ours."""
    server = TokenServer()
    with closing(server.client(ClientSecret("node", secret_file))) as client:
        client.capability()
        server.revoked = {"token-0"}
        client.capability()
        assert len(server.issued) == 2
        server.revoked = {f"token-{number}" for number in range(9)}
        with pytest.raises(Unavailable, match="status 401"):
            client.capability()
        assert len(server.issued) == 3


def test_several_threads_share_one_token(secret_file: Path) -> None:
    server = TokenServer()
    with closing(server.client(ClientSecret("node", secret_file))) as client:
        threads = [threading.Thread(target=client.capability) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.issued) == 1


def test_a_secret_is_shown_as_http_basic_with_both_parts_encoded(secret_file: Path) -> None:
    server = TokenServer()
    with closing(server.client(ClientSecret("node:1", secret_file), scope="system/*.crus")) as client:
        client.capability()
    (request,) = server.asked
    sent = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode("ascii")
    assert sent == "node%3A1:s3cret+with%3A+a+colon%2B%C3%A4"
    assert fields(request) == {"grant_type": "client_credentials", "scope": "system/*.crus"}


@pytest.mark.parametrize(("key", "algorithm"), [(RSA_KEY, "RS384"), (EC_KEY, "ES384")], ids=["RSA", "P-384"])
@pytest.mark.parametrize("form", ["PEM", "JWK"])
def test_an_assertion_is_what_smart_asks_for(
    tmp_path: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, algorithm: str, form: str
) -> None:
    file = tmp_path / "key"
    kind = RSAAlgorithm if algorithm == "RS384" else ECAlgorithm
    jwk = {**kind.to_jwk(key, as_dict=True), "kid": "twin-scanner-1"}  # type: ignore[arg-type]
    file.write_bytes(pem(key) if form == "PEM" else json.dumps(jwk).encode())
    server = TokenServer(life_s=1.0)
    with closing(server.client(PrivateKey("node", file, clock=lambda: 5000.9))) as client:
        client.capability()
        server.now_s += 10
        client.capability()
    claims = []
    for request in server.asked:
        sent = fields(request)
        assert sent["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        header = jwt.get_unverified_header(sent["client_assertion"])
        assert header["alg"] == algorithm
        assert header["typ"] == "JWT"
        assert header["kid"] == "twin-scanner-1" or form == "PEM"
        options: Any = {"verify_exp": False, "verify_iat": False, "require": ["exp", "iss", "sub", "aud", "jti"]}
        claims.append(
            jwt.decode(
                sent["client_assertion"], key.public_key(), algorithms=[algorithm], audience=TOKEN_URL, options=options
            )
        )
    assert [(one["iss"], one["sub"], one["exp"] - 5000) for one in claims] == [("node", "node", 240)] * 2
    assert claims[0]["jti"] != claims[1]["jti"]


def test_a_key_in_pem_is_named_by_its_thumbprint(tmp_path: Path) -> None:
    """RFC 7638, section 3.1; other members of the key do not count."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknj"
        "hMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQ"
        "vRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzK"
        "nqDKgw"
    )
    public = {"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}
    assert thumbprint(public) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    (tmp_path / "key").write_bytes(pem(RSA_KEY))
    _, _, key_id = PrivateKey("node", tmp_path / "key").signing_key()
    assert key_id == thumbprint(RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True))


@pytest.mark.parametrize(
    "content",
    [None, b"", b"no key", b"{", b'{"kty": "oct", "k": "c2VjcmV0"}', b'{"kty": "EC"}', b"[]"],
    ids=["absent", "empty", "text", "cut", "symmetric", "half", "list"],
)
def test_a_file_that_holds_no_key_stops_everything_and_says_so(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    server = TokenServer()
    client = server.client(PrivateKey("node", file))
    with closing(client), pytest.raises(Unavailable, match="private key file"):
        client.capability()
    assert server.asked == []


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256R1())],
    ids=["short", "another curve"],
)
def test_a_key_that_no_smart_server_takes_is_refused(
    tmp_path: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
) -> None:
    (tmp_path / "key").write_bytes(pem(key))
    with pytest.raises(Unavailable, match="2048 bits or more, or a P-384 key"):
        PrivateKey("node", tmp_path / "key").signing_key()


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        (httpx.Response(401, json={"error": "invalid_client", "error_description": SECRET}), "twin.client_id"),
        (httpx.Response(400, json={"error": "invalid_scope"}), "twin.scope"),
        (httpx.Response(400, json={"error": "unauthorized_client"}), "client credentials"),
        (httpx.Response(302, headers={"Location": "https://elsewhere"}), "status 302"),
        (httpx.Response(404, text="<html>"), "twin.token_url"),
        (httpx.Response(200, text="<html>"), "no bearer token"),
        (httpx.Response(200, json={"access_token": "a b", "token_type": "bearer"}), "no bearer token"),
        (httpx.Response(200, json={"access_token": "x", "token_type": "mac"}), "no bearer token"),
        (httpx.Response(200, json=[1]), "no bearer token"),
        (httpx.Response(503, headers={"Retry-After": "77"}), "status 503"),
    ],
    ids=["client", "scope", "grant", "redirect", "404", "page", "blank", "mac", "list", "503"],
)
def test_a_token_endpoint_that_gives_none_stops_everything_and_says_where_to_look(
    secret_file: Path, answer: httpx.Response, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = TokenServer()
    server.refusal = answer
    client = server.client(ClientSecret("node", secret_file))
    with caplog.at_level(logging.DEBUG), closing(client), pytest.raises(Unavailable, match=advice) as raised:
        client.capability()
    assert "s3cret" not in str(raised.value) + caplog.text
    assert raised.value.retry_after_s == (77.0 if answer.status_code == 503 else 0.0)


def test_a_server_that_names_no_token_endpoint_needs_one_configured(secret_file: Path) -> None:
    server = TokenServer()
    server.configuration = httpx.Response(404)
    with (
        closing(server.client(ClientSecret("node", secret_file))) as client,
        pytest.raises(Unavailable, match=r"twin\.token_url"),
    ):
        client.capability()
    with closing(server.client(ClientSecret("node", secret_file), token_url=TOKEN_URL)) as client:
        client.capability()


def test_a_secret_is_never_sent_without_tls_where_the_server_has_it(secret_file: Path) -> None:
    server = TokenServer()
    server.configuration = httpx.Response(200, json={"token_endpoint": "http://login.hospital/token"})
    with (
        closing(server.client(ClientSecret("node", secret_file))) as client,
        pytest.raises(Unavailable, match="not https"),
    ):
        client.capability()
    assert server.asked == []


def test_a_token_endpoint_that_is_away_is_named_and_not_the_fhir_server(secret_file: Path) -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    access = ClientCredentials(ClientSecret("node", secret_file), BASE, token_url=TOKEN_URL)
    client = FhirClient(BASE, SITE, auth=access, transport=httpx.MockTransport(away))
    with closing(client), pytest.raises(Unavailable, match=r"The token endpoint cannot be reached.*twin\.token_url"):
        client.capability()


@pytest.fixture(scope="module")
def smart_url() -> Iterator[str]:
    """sekmet-fhir with its SMART server; a token lives for five seconds."""
    if peers_folder() is None:
        missing("sekmet-fhir (tests/peers/sekmet/install.sh)")
    rsa_key = RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True)
    ec_key = ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True)
    clients = [
        {"client_id": "RSA key", "jwks": {"keys": [rsa_key]}, "scopes": "system/*.crus"},
        {"client_id": "P-384 key", "jwks": {"keys": [ec_key]}, "scopes": "system/*.crus"},
        {"client_id": "secret", "client_secret": "s3cret", "scopes": "system/*.crus"},
    ]
    settings = {"server_auth": {"types": ["smart"], "smart_clients": clients, "token_lifetime": 5}}
    with running_sekmet(settings) as url:
        yield url


@pytest.mark.parametrize("by", ["RSA key", "P-384 key", "secret"])
def test_a_real_smart_server_takes_our_record_beyond_the_life_of_a_token(
    smart_url: str, tmp_path: Path, by: str
) -> None:
    """Its tokens are checked against its own clock; ours is set forward instead of waiting."""
    file = tmp_path / "secret"
    file.write_bytes(b"s3cret\n" if by == "secret" else pem(RSA_KEY if by == "RSA key" else EC_KEY))
    shown = ClientSecret(by, file) if by == "secret" else PrivateKey(by, file)
    ahead_s = [0.0]
    access = ClientCredentials(shown, smart_url, scope="system/*.crus", clock=lambda: time.monotonic() + ahead_s[0])
    update = an_update()
    with closing(FhirClient(smart_url, SITE, auth=access)) as client:
        first = client.record(update)
        ahead_s[0] = 10.0
        assert client.record(another_study(update)).record == first.record
    with closing(FhirClient(smart_url, SITE)) as stranger, pytest.raises(Unavailable, match="status 401"):
        stranger.record(update)
