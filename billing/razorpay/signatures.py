"""Verification of Razorpay's signatures: of webhooks, and of Checkout's answer in the browser. Pure.

HMAC-SHA256 in lower-case hex over the received bytes, compared in constant time. All secrets are always tried, and an
empty secret verifies nothing. Never raises; the SDK's own check takes text only and fails on a missing header.
Source: Razorpay's documentation of webhooks, Checkout and payment links.
"""

import hashlib
import hmac
from collections.abc import Iterable

from pydantic import SecretStr


def webhook_is_genuine(body: bytes, signature: str | None, secrets: Iterable[SecretStr]) -> bool:
    """Whether one of `secrets` (current and previous) signed exactly these bytes."""
    genuine = [_signed(body, signature or "", secret) for secret in secrets]
    return any(genuine)


def checkout_is_genuine(subscription_id: str, payment_id: str, signature: str, key_secret: SecretStr) -> bool:
    """Whether Razorpay signed Checkout's answer. `subscription_id` must be the stored one, never the browser's."""
    # "a|b" and "c" would have the signature of "a" and "b|c".
    is_unambiguous = all(part and "|" not in part for part in (payment_id, subscription_id))
    return _signed(_bytes(f"{payment_id}|{subscription_id}"), signature, key_secret) and is_unambiguous


def _signed(message: bytes, signature: str, secret: SecretStr) -> bool:
    key = _bytes(secret.get_secret_value())
    expected = hmac.new(key, message, hashlib.sha256).hexdigest()
    return hmac.compare_digest(_bytes(expected), _bytes(signature)) and bool(key)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
