"""Login by an identity provider: a real one (npm's oidc-provider), and what an attacker would answer in its place."""

import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.conftest import missing
from tests.peers import oidc_provider
from tests.twin_scanner.console.conftest import Console, MakeConsole
from twin_scanner.console.access.oidc import Flow, Oidc, Provider
from twin_scanner.console.access.roles import Role
from twin_scanner.errors import Misconfigured, Rejected, Transient

ISSUER = "https://id.example.org"
CALLBACK = "https://scanner.example.org/login/oidc/callback"
SECRET = "a secret/of+the tests, long enough"
ROLES = {"radiology": Role.VIEWER, "pacs-admins": Role.ADMIN}


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    if not oidc_provider.is_installed():
        missing("the OpenID Connect provider (npm ci in tests/peers/oidc)")
    with oidc_provider.running_provider(CALLBACK, SECRET) as issuer:
        yield issuer


@pytest.fixture
def hospital(issuer: str, make_console: MakeConsole) -> Console:
    return make_console(provider=Provider(issuer, "console", CALLBACK, ROLES, SECRET))


@pytest.mark.system
def test_a_person_of_the_hospital_logs_in_by_the_real_provider_with_the_role_of_their_group(hospital: Console) -> None:
    browser = hospital.browser()
    assert "/login/oidc?next=/seen" in browser.get("/login?next=/seen").text
    to_provider = browser.get("/login/oidc?next=/seen").headers["location"]
    asked = parse_qs(urlsplit(to_provider).query)
    assert asked["code_challenge_method"] == ["S256"] and {"state", "nonce", "code_challenge"} <= asked.keys()
    back = oidc_provider.log_in_at(to_provider, "maria:pacs-admins", CALLBACK)
    stranger = hospital.browser()
    assert stranger.get(back).status_code == 403
    entered = browser.get(back)
    assert (entered.status_code, entered.headers["location"]) == (303, "/seen"), entered.text
    assert browser.get("/changed").json() == {"user": "oidc:maria"}
    assert browser.get(back).status_code == 403


@pytest.mark.system
def test_a_person_whom_the_hospital_gives_no_role_here_is_not_let_in(hospital: Console) -> None:
    browser = hospital.browser()
    to_provider = browser.get("/login/oidc").headers["location"]
    refused = browser.get(oidc_provider.log_in_at(to_provider, "john:cardiology", CALLBACK))
    assert refused.status_code == 403 and "gives john no role for this console" in refused.text
    assert browser.get("/seen").status_code == 401


class AnsweringProvider:
    """The provider's side of the exchange, with claims and a key that a test chooses."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.signing = self.key
        self.configuration = {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/auth",
            "token_endpoint": f"{ISSUER}/token",
            "jwks_uri": f"{ISSUER}/keys",
        }
        self.claims: dict[str, object] = {}
        self.algorithm = "RS256"

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/.well-known/openid-configuration":
            return httpx.Response(200, json=self.configuration)
        if request.url.path == "/keys":
            key = jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
            return httpx.Response(200, json={"keys": [{**key, "kid": "1", "alg": "RS256", "use": "sig"}]})
        signing = {"RS256": self.signing, "HS256": "k" * 64, "none": None}[self.algorithm]
        token = jwt.encode(self.claims, signing, self.algorithm, headers={"kid": "1"})  # type: ignore[arg-type]
        return httpx.Response(200, json={"id_token": token})


@pytest.fixture
def answering() -> AnsweringProvider:
    return AnsweringProvider()


@pytest.fixture
def oidc(answering: AnsweringProvider) -> Iterator[Oidc]:
    made = Oidc(Provider(ISSUER, "console", CALLBACK, ROLES))
    made._http.close()
    made._http = httpx.Client(transport=httpx.MockTransport(answering))
    yield made
    made.close()


def good(flow: Flow, **changed: object) -> dict[str, object]:
    now = int(time.time())
    base = {"iss": ISSUER, "sub": "42", "aud": "console", "exp": now + 300, "iat": now, "nonce": flow.nonce}
    return {**base, "preferred_username": "maria", "groups": ["radiology", "pacs-admins"], **changed}


@pytest.mark.unit
def test_of_several_groups_the_highest_role_counts(oidc: Oidc, answering: AnsweringProvider) -> None:
    _, flow = oidc.begin()
    answering.claims = good(flow)
    identity = oidc.finish(flow, {"code": "c", "state": flow.state})
    assert (identity.name, identity.role) == ("oidc:maria", Role.ADMIN)


@pytest.mark.unit
@pytest.mark.parametrize(
    "changed",
    [
        {"nonce": "of another login"},
        {"aud": "another program"},
        {"iss": "https://evil.example"},
        {"exp": 1_000_000},
        {"azp": "another program"},
        {"groups": []},
        {"groups": "none of ours"},
        {"nonce": None},
    ],
)
def test_an_id_token_that_is_not_for_this_login_lets_nobody_in(
    oidc: Oidc, answering: AnsweringProvider, changed: dict[str, object]
) -> None:
    _, flow = oidc.begin()
    answering.claims = good(flow, **changed)
    with pytest.raises(Rejected):
        oidc.finish(flow, {"code": "c", "state": flow.state})


@pytest.mark.unit
@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_an_id_token_that_no_private_key_signed_lets_nobody_in(
    oidc: Oidc, answering: AnsweringProvider, algorithm: str
) -> None:
    _, flow = oidc.begin()
    answering.claims, answering.algorithm = good(flow), algorithm
    with pytest.raises(Rejected, match="not valid"):
        oidc.finish(flow, {"code": "c", "state": flow.state})


@pytest.mark.unit
def test_an_id_token_of_another_key_lets_nobody_in(oidc: Oidc, answering: AnsweringProvider) -> None:
    _, flow = oidc.begin()
    answering.signing = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    answering.claims = good(flow)
    with pytest.raises(Rejected, match="InvalidSignatureError"):
        oidc.finish(flow, {"code": "c", "state": flow.state})


@pytest.mark.unit
@pytest.mark.parametrize("answer", [{"code": "c"}, {"code": "c", "state": "other"}, {"error": "access_denied"}])
def test_an_answer_to_another_login_is_not_taken(oidc: Oidc, answer: dict[str, str]) -> None:
    _, flow = oidc.begin()
    with pytest.raises(Rejected):
        oidc.finish(flow, answer)
    with pytest.raises(Rejected, match="another identity provider"):
        oidc.finish(flow, {"code": "c", "state": flow.state, "iss": "https://evil.example"})


@pytest.mark.unit
def test_a_provider_leads_us_nowhere_but_by_tls_or_on_loopback(oidc: Oidc, answering: AnsweringProvider) -> None:
    """SSRF: the discovery document would have us ask an address inside the hospital."""
    answering.configuration["token_endpoint"] = "http://169.254.169.254/latest"
    with pytest.raises(Misconfigured, match="token_endpoint"):
        oidc.begin()
    with pytest.raises(Misconfigured, match=r"console\.oidc\.issuer"):
        Oidc(Provider("http://id.example.org", "console", CALLBACK, ROLES))


@pytest.mark.unit
def test_a_provider_that_is_away_is_transient(oidc: Oidc) -> None:
    oidc._http = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(503)))
    with pytest.raises(Transient):
        oidc.begin()
