"""The `Idempotency-Key` of a request: its place in the store, its fingerprint, and the encryption of its answer. Pure.

All secrets derive (HKDF-SHA256) from the caller's credential and the key, which are not stored. So the store reveals
neither an answer nor whether a guess of a prompt is right. Each run has a cipher key of its own and numbers its items,
so no nonce (the number) is used twice with one cipher key; each item authenticates its number and kind.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from starlette.types import Scope

from core.errors import Invalid

_HEADER = b"idempotency-key"
_MAX_LENGTH = 255
_SECRET_BYTES = 32
_NONCE_BYTES = 12
_RELEVANT = frozenset({b"accept", b"content-encoding", b"content-type", b"naka-tags", b"naka-user"})
_ALSO_RELEVANT = b"anthropic-"
"""The headers that change an answer or its bill. Others differ from one try to the next: retry counts, traces."""


class Kind(Enum):
    """The kind of a stored item."""

    HEAD = b"h"
    BODY = b"b"
    COMPLETE = b"c"
    """The end of an answer that is kept."""
    FAILED = b"f"
    """The end of an answer that a retry should ask for anew: an error, or one that broke off."""


class Unreadable(Exception):
    """A stored item is not what this run stored at its place."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of one user on one route. `name`: its keys in Redis begin with it; `tenant`: those of its tenant."""

    tenant: str
    name: str
    fingerprint: bytes
    secret: bytes = field(repr=False)


def idempotency_key(scope: Scope) -> bytes | None:
    """Returns the request's key; None without one. Raises Invalid."""
    sent: list[bytes] = [value.strip() for name, value in scope["headers"] if name == _HEADER]
    if not sent:
        return None
    if len(sent) > 1:
        raise Invalid("The request has more than one Idempotency-Key. Send one.")
    (key,) = sent
    if not 1 <= len(key) <= _MAX_LENGTH or not (key.isascii() and key.decode().isprintable()):
        raise Invalid(f"Idempotency-Key must be 1 to {_MAX_LENGTH} printable ASCII characters.")
    return key


def entry_of(key: bytes, credential: str, scope: Scope, body: bytes, *, tenant_id: UUID, user: str) -> Entry:
    """Returns the entry of a request. `user` identifies the user within the tenant."""
    path: bytes = scope["path"].encode()
    place = _digest((tenant_id.bytes, user.encode(), scope["method"].encode(), path, key))
    derived = HKDF(SHA256(), _SECRET_BYTES, salt=place, info=b"naka idempotency")
    secret = derived.derive(_framed((credential.encode(errors="surrogateescape"), key)))
    headers = sorted(pair for pair in scope["headers"] if pair[0] in _RELEVANT or pair[0].startswith(_ALSO_RELEVANT))
    request = _digest((scope["query_string"], *(part for pair in headers for part in pair), body))
    tenant = f"naka:idempotency:{{{tenant_id.hex}}}"
    fingerprint = hmac.digest(_expanded(secret, b"fingerprint"), request, "sha256")
    return Entry(tenant, f"{tenant}:{place.hex()}", fingerprint, secret)


def new_run() -> str:
    """Returns the random name of a run."""
    return secrets.token_hex(16)


class Seal:
    """Encrypts and decrypts the items of one run."""

    def __init__(self, entry: Entry, run: str) -> None:
        self._cipher = AESGCM(_expanded(entry.secret, b"answer " + run.encode()))

    def seal(self, number: int, kind: Kind, data: bytes) -> bytes:
        """Returns the stored form of item `number`. Never seal two different items with one number."""
        return kind.value + self._cipher.encrypt(number.to_bytes(_NONCE_BYTES), data, kind.value)

    def open(self, number: int, stored: bytes) -> tuple[Kind, bytes]:
        """Returns the kind and data of item `number`. Raises Unreadable."""
        try:
            kind = Kind(stored[:1])
            return kind, self._cipher.decrypt(number.to_bytes(_NONCE_BYTES), stored[1:], kind.value)
        except (ValueError, InvalidTag) as error:
            raise Unreadable from error


def _expanded(secret: bytes, purpose: bytes) -> bytes:
    return HKDFExpand(SHA256(), _SECRET_BYTES, info=purpose).derive(secret)


def _framed(parts: Iterable[bytes]) -> bytes:
    """Joins parts so that no two lists of parts look alike."""
    return b"".join(len(part).to_bytes(8) + part for part in parts)


def _digest(parts: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()
