"""The format of API keys: `nk_live_` or `nk_test_`, 256 random bits, a CRC-32 that detects typos. Pure.

The SHA-256 of the key is stored: 256 random bits need no slow hash.
"""

import hashlib
import secrets
import zlib
from dataclasses import dataclass

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LENGTH = 43  # 62**43 > 2**256
_CHECKSUM_LENGTH = 6  # 62**6 > 2**32
_PREFIXES = ("nk_live_", "nk_test_")
_VISIBLE_LENGTH = len(_PREFIXES[0]) + 6
KEY_LENGTH = len(_PREFIXES[0]) + _SECRET_LENGTH + _CHECKSUM_LENGTH


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key. `plaintext` is shown once and not stored."""

    plaintext: str
    hash: bytes
    prefix: str


def generate_key(*, live: bool) -> NewKey:
    """Returns a new random key."""
    body = _PREFIXES[0 if live else 1] + _base62(secrets.randbits(256), _SECRET_LENGTH)
    plaintext = body + _checksum(body)
    return NewKey(plaintext, hash_key(plaintext), plaintext[:_VISIBLE_LENGTH])


def hash_key(plaintext: str) -> bytes:
    """Returns the stored hash: 32 bytes."""
    return hashlib.sha256(plaintext.encode()).digest()


def is_well_formed(text: str) -> bool:
    """Whether `text` has the prefix, length and checksum of a key."""
    if len(text) != KEY_LENGTH or not text.startswith(_PREFIXES) or not text.isascii():
        return False
    return text[-_CHECKSUM_LENGTH:] == _checksum(text[:-_CHECKSUM_LENGTH])


def visible_prefix(text: str) -> str:
    """Returns the part of a key that may be shown and logged; empty for other texts, which may be passwords."""
    return text[:_VISIBLE_LENGTH] if text.startswith(_PREFIXES) and text.isascii() and text.isprintable() else ""


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
