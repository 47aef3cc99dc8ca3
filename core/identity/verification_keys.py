"""Public keys that verify JWTs: from a JWKS document, or from one key in PEM. Pure.

Only RSA of 2048 to 4096 bits, P-256 and Ed25519, one algorithm each. So the algorithm that a JWT names can never change
what a key is used for, and no key costs much to verify with. A JWKS entry of another type, for another use, or with a
private part is ignored. Source: RFC 7517, 7518, 8037, 8725, 9864.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from core.errors import Invalid

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA", "Ed25519"})
"""`Ed25519` is the name of RFC 9864 for the only kind of `EdDSA` that is accepted."""
MAX_PEM = 2000
_MAX_KEYS = 50
_RSA_BITS = range(2048, 4097)
_MAX_EXPONENT = 2**32
_MAX_MEMBER = 700
"""Characters of a member of a JWK: 4096 bits have 683."""
_MIN_MODULUS = 341
"""Characters of 2048 bits. A shorter modulus is not even imported."""
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_TYPES: dict[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


class NotAKeySet(Exception):
    """The document is not a JWKS."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key, its id if the JWKS names one, and its algorithm's names. Equal if the key and the id are."""

    kid: str | None
    algorithms: frozenset[str]
    members: tuple[str, ...]
    key: Key = field(compare=False, repr=False)


def parse_jwks(document: bytes) -> list[VerificationKey]:
    """Returns the usable keys of a JWKS, possibly none. Raises NotAKeySet."""
    try:
        found = msgspec.json.decode(document, type=dict[str, Any]).get("keys")
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotAKeySet from error
    if not isinstance(found, list):
        raise NotAKeySet
    keys = (_from_jwk(each) for each in found[:_MAX_KEYS] if isinstance(each, dict))
    return [each for each in keys if each is not None]


def parse_pem(text: str) -> VerificationKey:
    """Returns the public key. Raises Invalid, also for a private key."""
    if "PRIVATE KEY" in text:
        raise Invalid("this is a private key: register the public key, and replace this one if it was sent elsewhere")
    try:
        public = load_pem_public_key(text.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm, UnicodeError) as error:
        raise Invalid("not a public key in PEM (BEGIN PUBLIC KEY)") from error
    match public:
        case RSAPublicKey(key_size=bits) if bits in _RSA_BITS:
            kind = "RSA"
        case EllipticCurvePublicKey(curve=SECP256R1()):
            kind = "EC"
        case Ed25519PublicKey():
            kind = "OKP"
        case _:
            raise Invalid("the public key must be RSA of 2048 to 4096 bits, P-256 or Ed25519")
    made = _made(kind, None, _TYPES[kind].import_key(text).as_dict())
    if made is None:
        raise Invalid("the public key must be RSA of 2048 to 4096 bits, P-256 or Ed25519")
    return made


def find_key(keys: Sequence[VerificationKey], kid: str | None, algorithm: str) -> VerificationKey | None:
    """Returns the key of this id and algorithm. Without an id: the only key of the algorithm, or None."""
    fitting = [each for each in keys if algorithm in each.algorithms]
    if kid is None:
        return fitting[0] if len(fitting) == 1 else None
    return next((each for each in fitting if each.kid == kid), None)


def _from_jwk(jwk: Mapping[str, Any]) -> VerificationKey | None:
    """The key of an entry; None if it is not for verifying signatures by an accepted algorithm."""
    kind, kid, operations = jwk.get("kty"), jwk.get("kid"), jwk.get("key_ops", ["verify"])
    is_for_signatures = jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    if not isinstance(kind, str) or kind not in _MEMBERS or not is_for_signatures or "d" in jwk:
        return None
    made = _made(kind, kid, jwk) if isinstance(kid, str | None) else None
    named = jwk.get("alg")
    return made if made is None or named is None or named in list(made.algorithms) else None


def _made(kind: str, kid: str | None, jwk: Mapping[str, Any]) -> VerificationKey | None:
    """The key of the public members alone; None if they are not within the bounds."""
    members = [jwk.get(name) for name in _MEMBERS[kind]]
    if not all(isinstance(each, str) and len(each) <= _MAX_MEMBER for each in members):
        return None
    if kind == "RSA" and len(str(members[0])) < _MIN_MODULUS:
        return None
    try:
        key = _TYPES[kind].import_key({"kty": kind, **dict(zip(_MEMBERS[kind], map(str, members), strict=True))})
        public = key.public_key
    except (JoseError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    match public:
        case RSAPublicKey() if public.key_size in _RSA_BITS and public.public_numbers().e < _MAX_EXPONENT:
            algorithms = frozenset({"RS256"})
        case EllipticCurvePublicKey(curve=SECP256R1()):
            algorithms = frozenset({"ES256"})
        case Ed25519PublicKey():
            algorithms = frozenset({"EdDSA", "Ed25519"})
        case _:
            return None
    return VerificationKey(kid, algorithms, (kind, *map(str, members)), key)
