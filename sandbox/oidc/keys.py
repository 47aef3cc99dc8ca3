"""The signing keys: one that signs, and those that the key set still shows."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from secrets import token_hex
from typing import Any

from joserfc import jwt
from joserfc.jwk import RSAKey

_BITS = 2048
ALGORITHM = "RS256"


class SigningKeys:
    """RSA keys, the newest last."""

    def __init__(self) -> None:
        self._keys = [_new_key()]

    def rotate(self, *, keep: bool = True) -> None:
        """Signs with a new key. `keep`: the key set goes on showing the earlier ones."""
        self._keys = [*(self._keys if keep else []), _new_key()]

    def public(self) -> dict[str, Any]:
        """The key set (JWKS)."""
        return {"keys": [{**key.as_dict(private=False), "use": "sig", "alg": ALGORITHM} for key in self._keys]}

    def sign(self, claims: dict[str, Any], alg: str = ALGORITHM) -> str:
        """A token, by default one that holds.

        `none`: unsigned; `HS256`: with the public key as its secret; `unknown`: with a key that is in no key set;
        `forged`: with another key under the name of ours.
        """
        key = self._keys[-1]
        if alg == ALGORITHM:
            return jwt.encode({"alg": alg, "kid": key.kid}, claims, key)
        if alg == "unknown":
            other = _new_key()
            return jwt.encode({"alg": ALGORITHM, "kid": other.kid}, claims, other)
        if alg == "forged":
            return jwt.encode({"alg": ALGORITHM, "kid": key.kid}, claims, _new_key())
        signed = f"{_packed({'alg': alg, 'kid': key.kid})}.{_packed(claims)}"
        if alg == "none":
            return f"{signed}."
        secret = key.as_pem(private=False)
        return f"{signed}.{_encoded(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def _new_key() -> RSAKey:
    return RSAKey.generate_key(_BITS, {"kid": token_hex(8)})


def _packed(value: dict[str, Any]) -> str:
    return _encoded(json.dumps(value).encode())


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
