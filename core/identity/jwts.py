"""Reading and checking a JWT. Pure.

`read_jwt` reads what names the issuer, unverified; `verify` checks the signature with a key of that issuer, and
`check_claims` the times. Nothing that the JWT says chooses how it is verified: its algorithm must be one of
ALGORITHMS and the key's own; keys or URLs in its header are ignored, and `crit` is refused. Source: RFC 7519, 8725.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import msgspec
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jws import JWSRegistry, deserialize_compact
from joserfc.jwt import JWTClaimsRegistry
from joserfc.util import urlsafe_b64decode

from core.identity.verification_keys import ALGORITHMS, VerificationKey
from core.tenancy.principal import Unauthenticated

MAX_LENGTH = 8192
"""Characters of a JWT."""
_PREFIX = "eyJ"
"""Base64 of `{"`, with which every header begins."""
_DOTS = 2
TIMES = ("exp", "nbf", "iat")
_MAX_AUDIENCES = 10
_MAX_NAME = 500
_MAX_SECONDS = 253_402_300_800
"""The year 10000."""
_TYPES = frozenset({"jwt", "at+jwt"})


class NotAccepted(Unauthenticated):
    """The token is malformed, of no registered issuer, or its signature is wrong; the message does not say which."""

    def __init__(self) -> None:
        super().__init__("This token is not accepted: no registered issuer signed it for this service.")


@dataclass(frozen=True, slots=True)
class UnverifiedJwt:
    """What a JWT says of itself. Only for finding the key."""

    text: str
    algorithm: str
    kid: str | None
    issuer: str
    audiences: tuple[str, ...]


class _Algorithms(JWSRegistry):
    """The accepted algorithms alone, whatever joserfc recommends or warns about (`EdDSA` by its older name)."""

    max_header_length = 2048
    max_payload_length = MAX_LENGTH

    def __init__(self) -> None:
        super().__init__(algorithms=ALGORITHMS, strict_check_header=False)

    def get_alg(self, name: str) -> Any:
        """Returns an accepted algorithm. Raises NotAccepted."""
        if name not in ALGORITHMS:
            raise NotAccepted
        return self.algorithms["Ed25519" if name == "EdDSA" else name]


_ALGORITHMS = _Algorithms()


def looks_like_jwt(text: str) -> bool:
    """Whether a credential is to be read as a JWT. A key has no dots."""
    return text.startswith(_PREFIX) and text.count(".") == _DOTS


def read_jwt(text: str) -> UnverifiedJwt:
    """Reads a JWT without verifying it. Raises NotAccepted."""
    if len(text) > MAX_LENGTH or not text.isascii() or not looks_like_jwt(text):
        raise NotAccepted
    header, claims = (_decoded(part) for part in text.split(".")[:2])
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    issuer, audience = claims.get("iss"), claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS or not isinstance(kid, str | None):
        raise NotAccepted
    if "crit" in header:
        raise NotAccepted
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise NotAccepted
    names = [each for each in audiences if _is_name(each)]
    if not _is_name(issuer) or not 0 < len(names) == len(audiences) <= _MAX_AUDIENCES:
        raise NotAccepted
    return UnverifiedJwt(text, algorithm, kid, issuer, tuple(dict.fromkeys(names)))


def verify(jwt: UnverifiedJwt, key: VerificationKey) -> Mapping[str, Any]:
    """Returns the claims. Raises NotAccepted for another key's signature."""
    if jwt.algorithm not in key.algorithms:
        raise NotAccepted
    try:
        return _object(deserialize_compact(jwt.text, key.key, registry=_ALGORITHMS).payload)
    except (JoseError, ValueError) as error:
        raise NotAccepted from error


def check_claims(claims: Mapping[str, Any], *, now_s: int, leeway_s: int) -> int:
    """Checks the times and returns when the JWT expires, in seconds since 1970 with the leeway. `exp` is required.

    Raises Unauthenticated, which says what is wrong: the issuer did sign this token.
    """
    registry = JWTClaimsRegistry(now=now_s, leeway=leeway_s, exp={"essential": True})
    try:
        registry.validate({name: claims[name] for name in TIMES if name in claims})
    except ExpiredTokenError as error:
        raise Unauthenticated("This token has expired. Get a new one from its issuer.") from error
    except JoseError as error:
        raise Unauthenticated("This token is not valid now: check its exp, nbf and iat.") from error
    return int(min(claims["exp"] + leeway_s, _MAX_SECONDS))


def _is_name(value: object) -> TypeGuard[str]:
    """Whether it can be an issuer or an audience, and be asked of Postgres: no control characters, no surrogates."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_NAME and value.isprintable()


def _decoded(part: str) -> dict[str, Any]:
    try:
        return _object(urlsafe_b64decode(part.encode()))
    except ValueError as error:
        raise NotAccepted from error


def _object(document: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(document, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotAccepted from error
    return found
