"""Whether Razorpay said it: signatures of webhooks and of what a browser brings back. Pure.

The rule: HMAC-SHA256 in lower-case hex over the bytes as they came, compared in constant time; with several secrets
all are tried whatever the first says, and an empty secret signs nothing. Whatever is handed in, the answer is yes or
no, never an exception: the SDK's own check takes text only and breaks on a missing header.
Source: facts/razorpay.md, sections 5.1, 8 and 2.10.
"""

import hashlib
import hmac
from collections.abc import Iterable

from pydantic import SecretStr


def webhook_is_genuine(body: bytes, signature: str | None, secrets: Iterable[SecretStr]) -> bool:
    """Whether one of `secrets` (the present and the previous ones) signed exactly these bytes."""
    genuine = [_signed(body, signature or "", secret) for secret in secrets]
    return any(genuine)


def checkout_is_genuine(subscription_id: str, payment_id: str, signature: str, key_secret: SecretStr) -> bool:
    """Whether Checkout's answer is Razorpay's; `subscription_id` is the one *we* stored, never the browser's."""
    return _parts_are_signed((payment_id, subscription_id), signature, key_secret)


def link_is_genuine(  # the parts in the order in which they are signed
    link_id: str, reference_id: str, status: str, payment_id: str, signature: str, key_secret: SecretStr
) -> bool:
    """Whether the return from a payment link is Razorpay's."""
    return _parts_are_signed((link_id, reference_id, status, payment_id), signature, key_secret)


def _parts_are_signed(parts: tuple[str, ...], signature: str, secret: SecretStr) -> bool:
    # "a|b" and "c" would be signed like "a" and "b|c".
    unambiguous = all(part and "|" not in part for part in parts)
    return _signed(_bytes("|".join(parts)), signature, secret) and unambiguous


def _signed(message: bytes, signature: str, secret: SecretStr) -> bool:
    key = _bytes(secret.get_secret_value())
    expected = hmac.new(key, message, hashlib.sha256).hexdigest()
    return hmac.compare_digest(_bytes(expected), _bytes(signature)) and bool(key)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
