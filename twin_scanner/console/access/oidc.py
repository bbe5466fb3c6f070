"""Login by the hospital's identity provider: OpenID Connect, authorization code with PKCE, roles from a claim.

Of the provider everything is believed only after its ID token's signature, issuer, audience, times and nonce were
checked (OpenID Connect Core 3.1.3.7); what it answers never says where else to go but by TLS, or on loopback.
"""

import base64
import hashlib
import hmac
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

import httpx
import jwt

from dicom_node.addresses import is_loopback
from twin_scanner.console.access.roles import Role
from twin_scanner.console.access.sessions import new_secret
from twin_scanner.errors import Misconfigured, Rejected, Transient, Unavailable

TIMEOUT_S: Final = 10.0
LEEWAY_S: Final = 60.0
"""How far the provider's clock may be from ours."""
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by the provider's private key alone: by a shared secret, or none, nothing is proven."""
ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")
OTHERS: Final = "oidc:"
"""Begins the name of whoever has no row of ours, so that no claim makes a local user of them."""


@dataclass(frozen=True)
class Provider:
    """The identity provider, and what it knows this console as."""

    issuer: str
    client_id: str
    redirect_uri: str
    """Our address as browsers know it, with /login/oidc/callback."""
    roles: Mapping[str, Role]
    """What a value of the claim makes of a person."""
    client_secret: str = field(default="", repr=False)
    roles_claim: str = "groups"
    name_claim: str = "preferred_username"
    scope: str = "openid profile"
    ca_file: Path | None = None


@dataclass(frozen=True)
class Flow:
    """What the browser that began a login must bring back."""

    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True)
class Identity:
    """Whom the provider let in."""

    name: str
    role: Role


class Oidc:
    """Logins by one provider; its configuration and keys are asked for when they are needed first."""

    def __init__(self, provider: Provider) -> None:
        _check_address(provider.issuer, "console.oidc.issuer")
        self._provider = provider
        verify = ssl.create_default_context(cafile=None if provider.ca_file is None else str(provider.ca_file))
        self._http = httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, verify=verify)
        self._lock = threading.Lock()
        self._configuration: dict[str, Any] | None = None
        self._keys: dict[str, jwt.PyJWK] = {}

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def begin(self) -> tuple[str, Flow]:
        """Where the browser goes, and what it must bring back; raises Transient where the provider does not answer."""
        flow = Flow(new_secret(), new_secret(), new_secret())
        challenge = base64.urlsafe_b64encode(hashlib.sha256(flow.verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._provider.client_id,
            "redirect_uri": self._provider.redirect_uri,
            "scope": self._provider.scope,
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        address = self._known()["authorization_endpoint"]
        return f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(query)}", flow

    def finish(self, flow: Flow, answer: Mapping[str, str]) -> Identity:
        """Whom the provider's answer names; raises Rejected where it is not the answer to this login.

        Raises Transient where the provider does not answer.
        """
        if not hmac.compare_digest(answer.get("state", "").encode(), flow.state.encode()):
            raise Rejected("This login was begun elsewhere or long ago: begin it again.")
        if answer.get("iss", self._provider.issuer) != self._provider.issuer:
            raise Rejected("The answer came from another identity provider: begin the login again.")
        if "code" not in answer:
            raise Rejected("The identity provider did not let you in.")
        claims = self._claims(self._id_token(answer["code"], flow.verifier))
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), flow.nonce.encode()):
            raise Rejected("The identity provider answered another login: begin it again.")
        return self._identity(claims)

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        name = str(claims.get(self._provider.name_claim) or claims["sub"])
        name = "".join(letter for letter in name if letter.isprintable())[: 64 - len(OTHERS)]
        found = claims.get(self._provider.roles_claim, [])
        values = found if isinstance(found, list) else [found]
        roles = [self._provider.roles[value] for value in values if value in self._provider.roles]
        if not roles:
            raise Rejected(f"The identity provider gives {name} no role for this console: ask who manages its groups.")
        return Identity(OTHERS + name, max(roles, key=list(Role).index))

    def _id_token(self, code: str, verifier: str) -> str:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._provider.redirect_uri,
            "code_verifier": verifier,
        }
        auth: httpx.Auth = httpx.Auth()
        if self._provider.client_secret:
            # RFC 6749 2.3.1: both are form-encoded before they become the header.
            auth = httpx.BasicAuth(quote_plus(self._provider.client_id), quote_plus(self._provider.client_secret))
        else:
            form["client_id"] = self._provider.client_id
        address = self._known()["token_endpoint"]
        found = self._asked(lambda: self._http.post(address, data=form, auth=auth))
        if not isinstance(found.get("id_token"), str):
            raise Rejected("The identity provider gave no ID token: begin the login again.")
        return found["id_token"]

    def _claims(self, id_token: str) -> dict[str, Any]:
        ours = self._provider.client_id
        try:
            claims: dict[str, Any] = jwt.decode(
                id_token,
                self._key(str(jwt.get_unverified_header(id_token).get("kid", ""))),
                algorithms=list(ALGORITHMS),
                audience=ours,
                issuer=self._provider.issuer,
                leeway=LEEWAY_S,
                options={"require": ["iss", "sub", "aud", "exp", "iat"]},
            )
        except jwt.PyJWTError as error:
            raise Rejected(f"The identity provider's ID token is not valid ({type(error).__name__}).") from error
        if claims.get("azp", ours) != ours:
            raise Rejected("The identity provider's ID token was made for another program.")
        return claims

    def _key(self, key_id: str) -> jwt.PyJWK:
        """The provider's key of that name; a provider that has changed its keys is asked again."""
        if key_id not in self._keys:
            address = self._known()["jwks_uri"]
            found = jwt.PyJWKSet.from_dict(self._asked(lambda: self._http.get(address)))
            self._keys = {key.key_id or "": key for key in found.keys}
        if key_id not in self._keys:
            raise Rejected("The identity provider's ID token is signed by a key that it does not list.")
        return self._keys[key_id]

    def _known(self) -> dict[str, Any]:
        """The provider's configuration (OpenID Connect Discovery 4)."""
        with self._lock:
            if self._configuration is None:
                address = self._provider.issuer.rstrip("/") + "/.well-known/openid-configuration"
                found = self._asked(lambda: self._http.get(address))
                if found.get("issuer") != self._provider.issuer:
                    raise Misconfigured("oidc.issuer is not what the identity provider calls itself.")
                for name in ENDPOINTS:
                    _check_address(str(found.get(name, "")), f"The identity provider's {name}")
                self._configuration = found
            return self._configuration

    def _asked(self, ask: Callable[[], httpx.Response]) -> dict[str, Any]:
        try:
            answer = ask()
        except httpx.HTTPError as error:
            raise Unavailable("The identity provider does not answer: try again later.") from error
        if answer.status_code >= 500:
            raise Transient(f"The identity provider failed (status {answer.status_code}): try again later.")
        if answer.status_code != 200:
            raise Rejected(f"The identity provider refused the login (status {answer.status_code}): begin it again.")
        try:
            found: dict[str, Any] = dict(answer.json())
        except (ValueError, TypeError) as error:
            raise Transient("The identity provider's answer is not JSON: try again later.") from error
        return found


def _check_address(address: str, what: str) -> None:
    parts = urlsplit(address)
    if not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))):
        raise Misconfigured(f"{what} is not an https:// address: correct it.")
