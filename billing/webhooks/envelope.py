"""What a delivery of Razorpay's says: which event of whose, and which thing it points at. Pure.

The rule: the body is read leniently, for the order and the place of its keys vary by product, and nothing of it is
believed but what to look at: the state comes from a fetch. What cannot be stored or asked for safely (a name with a
control character, an id that is none) counts as not said. Source: facts/razorpay.md, section 5.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

UNREADABLE = "unreadable"
"""The kind of a body that names no event."""

_KIND = re.compile(r"[a-z0-9_.]{1,64}")
_ACCOUNT = re.compile(r"[A-Za-z0-9_]{1,64}")
_ID = re.compile(r"[a-z]+_[A-Za-z0-9]{1,40}")
_MAX_MOMENT = 1 << 40
_SUBJECTS: dict[str, "Subject"] = {
    "subscription": "subscription",
    "payment_link": "payment_link",
    "payment.dispute": "dispute",
    "payment": "payment",
    "refund": "refund",
    "invoice": "invoice",
}

Subject = Literal["subscription", "payment_link", "dispute", "payment", "refund", "invoice"]


@dataclass(frozen=True, slots=True)
class Envelope:
    """`kind` is UNREADABLE when the body names none; `created_at` is in Unix seconds, 0 when the body does not say."""

    kind: str
    account_id: str | None = None
    created_at: int = 0
    payload: dict[str, Any] | None = None

    @property
    def subject(self) -> Subject | None:
        """What this kind of event is about; None for a kind that we have no use for."""
        return _SUBJECTS.get(self.kind.rpartition(".")[0])

    def entity(self, name: str) -> dict[str, Any]:
        """One of the things that the payload shows; empty when it does not."""
        shown = (self.payload or {}).get(name)
        found = shown.get("entity") if isinstance(shown, dict) else None
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Target:
    """The thing that is to be fetched, once, for all events that point at it."""

    subject: Subject
    id: str


def read_envelope(body: bytes) -> Envelope:
    """Never raises."""
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
    """What the event points at; None when it names nothing that could be fetched.

    Refunds and disputes of a payment are looked at by the payment.
    """
    subject = envelope.subject
    if subject is None:
        return None
    entity = envelope.entity(subject)
    named = entity.get("id")
    if subject == "refund":
        subject, named = "payment", entity.get("payment_id") or envelope.entity("payment").get("id")
    found = _matching(_ID, named)
    return None if found is None else Target(subject, found)


def invoice_named(envelope: Envelope) -> str | None:
    """The invoice that an event shows by the way: the list of invoices may not have it yet."""
    return _matching(_ID, envelope.entity("invoice").get("id") or envelope.entity("payment").get("invoice_id"))


def _either(said: dict[str, Any], payload: dict[str, Any], name: str) -> object:
    return said.get(name) or payload.get(name)


def _matching(form: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and form.fullmatch(value) else None
