"""Parsing of a webhook body: the event's kind, its account, and the entity that it names. Pure.

The place of keys varies by product, so the body is read leniently, and only the entity's id is used; its state comes
from a fetch. A value that can't be stored or requested safely (a control character, a malformed id) counts as missing.
Source: Razorpay's documentation of webhooks.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from billing.razorpay.entities import ENTITY_ID

UNREADABLE = "unreadable"
"""The kind of a body without an event name."""

_KIND = re.compile(r"[a-z0-9_.]{1,64}")
_ACCOUNT = re.compile(r"[A-Za-z0-9_]{1,64}")
_MAX_MOMENT = 1 << 40
_SUBJECTS: dict[str, "Subject"] = {
    "subscription": "subscription",
    "payment_link": "payment_link",
    "qr_code": "qr_code",
    "payment.dispute": "dispute",
    "payment": "payment",
    "refund": "refund",
    "invoice": "invoice",
    "order": "order",
    "token": "token",
}

Subject = Literal[
    "subscription", "payment_link", "qr_code", "dispute", "payment", "refund", "invoice", "order", "token"
]


@dataclass(frozen=True, slots=True)
class Envelope:
    """`kind` is UNREADABLE without an event name; `created_at` is in Unix seconds, 0 if missing."""

    kind: str
    account_id: str | None = None
    created_at: int = 0
    payload: dict[str, Any] | None = None

    @property
    def subject(self) -> Subject | None:
        """The type of entity that the event is about; None for an unused kind."""
        return _SUBJECTS.get(self.kind.rpartition(".")[0])

    def entity(self, name: str) -> dict[str, Any]:
        """An entity in the payload; empty if missing."""
        shown = (self.payload or {}).get(name)
        found = shown.get("entity") if isinstance(shown, dict) else None
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Target:
    """An entity to fetch, once for all events that name it."""

    subject: Subject
    id: str


def read_envelope(body: bytes) -> Envelope:
    """Parses a body. Never raises."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return Envelope(UNREADABLE)
    if not isinstance(said, dict):
        return Envelope(UNREADABLE)
    inner = said.get("payload")
    payload = inner if isinstance(inner, dict) else {}
    moment = _either(said, payload, "created_at")
    return Envelope(
        kind=_matching(_KIND, _either(said, payload, "event")) or UNREADABLE,
        account_id=_matching(_ACCOUNT, _either(said, payload, "account_id")),
        created_at=moment if isinstance(moment, int) and 0 <= moment < _MAX_MOMENT else 0,
        payload=payload,
    )


def target_of(envelope: Envelope) -> Target | None:
    """The entity that the event names; None if it can't be fetched. Refunds and orders: through their payment."""
    subject = envelope.subject
    if subject is None:
        return None
    entity = envelope.entity(subject)
    named = entity.get("id")
    if subject == "refund":
        subject, named = "payment", entity.get("payment_id") or envelope.entity("payment").get("id")
    if subject == "order":
        subject, named = "payment", envelope.entity("payment").get("id")
    found = _matching(ENTITY_ID, named)
    return None if found is None else Target(subject, found)


def invoice_named(envelope: Envelope) -> str | None:
    """The id of an invoice that the event mentions; the list of invoices may not have it yet."""
    return _matching(ENTITY_ID, envelope.entity("invoice").get("id") or envelope.entity("payment").get("invoice_id"))


def _either(said: dict[str, Any], payload: dict[str, Any], name: str) -> object:
    return said.get(name) or payload.get(name)


def _matching(form: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and form.fullmatch(value) else None
