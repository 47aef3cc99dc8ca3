"""The provider: what it knows, the codes it gave out, and the tokens it makes of them. No HTTP."""

import hashlib
import hmac
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from sandbox.oidc.faults import Fault, Faults
from sandbox.oidc.keys import SigningKeys
from sandbox.oidc.people import Person

_CODE_S = 60
_TOKEN_S = 300
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", "naka.test"})


class Refused(Exception):
    """A request that the standards refuse. `error`: their code for it."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error


@dataclass(frozen=True, slots=True)
class Request:
    """An authentication request, checked."""

    redirect_uri: str
    state: str
    nonce: str
    challenge: str


@dataclass(slots=True)
class _Code:
    request: Request
    person: Person
    expires_at: float


@dataclass
class Provider:
    """One issuer with one client."""

    client_id: str
    client_secret: str
    issuer: str
    people: dict[str, Person] = field(default_factory=dict)
    keys: SigningKeys = field(default_factory=SigningKeys)
    faults: Faults = field(default_factory=Faults)
    _codes: dict[str, _Code] = field(default_factory=dict)
    _access: dict[str, Person] = field(default_factory=dict)

    def know(self, people: Iterable[Person]) -> None:
        """Adds people, or replaces those with the same email."""
        self.people |= {person.email: person for person in people}

    def metadata(self) -> dict[str, Any]:
        """The discovery document."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/jwks",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "scopes_supported": ["openid", "email", "profile"],
            "authorization_response_iss_parameter_supported": True,
        }

    def read_client(self, query: Mapping[str, str]) -> str:
        """The address to answer to. Raises Refused, which must not be sent there."""
        if query.get("client_id") != self.client_id:
            raise Refused("invalid_client", "this client is not registered")
        redirect_uri = query.get("redirect_uri", "")
        if urlsplit(redirect_uri).hostname not in _LOOPBACK:
            raise Refused("invalid_request", "this redirect_uri is not registered: only this machine's are")
        return redirect_uri

    def read_request(self, query: Mapping[str, str]) -> Request:
        """The request of a known client. Raises Refused."""
        if query.get("response_type") != "code":
            raise Refused("unsupported_response_type", "response_type must be code")
        if "openid" not in query.get("scope", "").split():
            raise Refused("invalid_scope", "scope must contain openid")
        if query.get("code_challenge_method") != "S256" or not query.get("code_challenge"):
            raise Refused("invalid_request", "PKCE with S256 is required")
        return Request(
            query.get("redirect_uri", ""), query.get("state", ""), query.get("nonce", ""), query["code_challenge"]
        )

    def grant(self, request: Request, person: Person) -> str:
        """A code, which is good once."""
        code = secrets.token_urlsafe(24)
        self._codes[code] = _Code(request, person, time.time() + _CODE_S)
        return code

    def exchange(self, form: Mapping[str, str], fault: Fault | None) -> dict[str, Any]:
        """The tokens of a code, whose client was checked. Raises Refused."""
        if form.get("grant_type") != "authorization_code":
            raise Refused("unsupported_grant_type", "grant_type must be authorization_code")
        code = self._codes.pop(form.get("code", ""), None)
        if code is None or code.expires_at < time.time():
            raise Refused("invalid_grant", "the code is unknown, used or expired")
        if form.get("redirect_uri") != code.request.redirect_uri:
            raise Refused("invalid_grant", "the redirect_uri is another one")
        if not hmac.compare_digest(_challenge(form.get("code_verifier", "")), code.request.challenge):
            raise Refused("invalid_grant", "the code_verifier does not fit")
        access = secrets.token_urlsafe(24)
        self._access[access] = code.person
        claims = self._claims(code.person, code.request.nonce, access) | ({} if fault is None else fault.claims)
        left = {name: value for name, value in claims.items() if value is not None}
        id_token = self.keys.sign(left, *([fault.alg] if fault and fault.alg else []))
        return {"access_token": access, "token_type": "Bearer", "expires_in": _TOKEN_S, "id_token": id_token}

    def userinfo(self, access: str) -> dict[str, Any]:
        """The claims of an access token's person. Raises Refused."""
        person = self._access.get(access)
        if person is None:
            raise Refused("invalid_token", "the access token is unknown")
        return self._about(person)

    def knows_client(self, client_id: str, client_secret: str) -> bool:
        """Whether these are the client's credentials."""
        return client_id == self.client_id and hmac.compare_digest(client_secret, self.client_secret)

    def _claims(self, person: Person, nonce: str, access: str) -> dict[str, Any]:
        now, half = int(time.time()), hashlib.sha256(access.encode()).digest()[:16]
        return {
            "iss": self.issuer,
            "aud": self.client_id,
            "iat": now,
            "exp": now + _TOKEN_S,
            "auth_time": now,
            "at_hash": _encoded(half),
            **({"nonce": nonce} if nonce else {}),
            **self._about(person),
        }

    @staticmethod
    def _about(person: Person) -> dict[str, Any]:
        known = {"email": person.email, "email_verified": person.email_verified, "name": person.name}
        return {"sub": person.subject, **known, **person.claims}


def _challenge(verifier: str) -> str:
    return _encoded(hashlib.sha256(verifier.encode()).digest())


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
