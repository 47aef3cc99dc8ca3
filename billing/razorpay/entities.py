"""Razorpay's entities, with the fields that billing reads. Pure.

Unknown fields are ignored. Fields documented as absent, null, `0` or `"NA"` may be so; a field that a decision needs
(id, status, amount) is required, and its absence raises `Misshapen`. Amounts are paise, times Unix seconds. Empty
`notes` come as `[]`, `captured` as `"1"` in some events, unset times of a payment link as `0`.
Source: Razorpay's API reference.
"""

import re
from typing import Any, TypeVar

import msgspec

ENTITY_ID = re.compile(r"[a-z]+_[A-Za-z0-9]{1,40}")
"""Any entity's id, safe in a URL path."""
MAX_UPI_LINK = 1_000
"""Characters; NPCI's links are far shorter, and a longer one makes no code that a camera reads."""


class Misshapen(ValueError):
    """An answer that is JSON of an unexpected shape."""


class _Entity(msgspec.Struct, frozen=True, kw_only=True):
    id: str


class Plan(_Entity, frozen=True, kw_only=True):
    """A price, immutable at Razorpay; `item["amount"]` includes GST."""

    item: dict[str, Any]
    notes: dict[str, str] = {}


class Subscription(_Entity, frozen=True, kw_only=True):
    """A mandate and its cycles. A cancellation at cycle end doesn't show in it."""

    plan_id: str
    status: str
    current_start: int | None = None
    current_end: int | None = None
    charge_at: int | None = None
    start_at: int | None = None
    ended_at: int | None = None
    created_at: int
    total_count: int = 0
    paid_count: int = 0
    remaining_count: int | None = None
    short_url: str | None = None
    payment_method: str | None = None
    notes: dict[str, str] = {}


class Invoice(_Entity, frozen=True, kw_only=True):
    """An invoice of Razorpay's; `billing_start` and `billing_end` bound the cycle that it opens."""

    status: str
    amount: int
    subscription_id: str | None = None
    payment_id: str | None = None
    order_id: str | None = None
    billing_start: int | None = None
    billing_end: int | None = None
    created_at: int | None = None
    short_url: str | None = None
    line_items: list[dict[str, Any]] = []


class Payment(_Entity, frozen=True, kw_only=True):
    """A payment or an attempt at one."""

    status: str
    amount: int
    currency: str
    amount_refunded: int = 0
    captured: bool = False
    international: bool | None = None
    method: str | None = None
    invoice_id: str | None = None
    order_id: str | None = None
    customer_id: str | None = None
    token_id: str | None = None
    error_description: str | None = None
    created_at: int
    notes: dict[str, str] = {}


class Refund(_Entity, frozen=True, kw_only=True):
    """A refund: `pending`, `processed` or `failed`."""

    payment_id: str
    amount: int
    status: str
    created_at: int
    notes: dict[str, str] = {}


class Dispute(_Entity, frozen=True, kw_only=True):
    """A dispute: `open`, `under_review`, `won`, `lost` or `closed`."""

    payment_id: str
    amount: int
    status: str


class PaymentLink(_Entity, frozen=True, kw_only=True):
    """A payment link. `payments` name its payments once there are some."""

    status: str
    amount: int
    reference_id: str | None = None
    short_url: str | None = None
    order_id: str | None = None
    expire_by: int = 0
    created_at: int
    payments: list[dict[str, Any]] | None = None
    notes: dict[str, str] = {}


class QrCode(_Entity, frozen=True, kw_only=True):
    """A UPI QR code: `active` or `closed`. `image_content` is the link in it, which not every account is shown."""

    status: str
    image_url: str | None = None
    image_content: str | None = None
    payment_amount: int | None = None
    payments_count_received: int = 0
    close_by: int | None = None
    close_reason: str | None = None
    created_at: int
    notes: dict[str, str] = {}

    @property
    def upi_link(self) -> str | None:
        """The link in the code, if it is one that a UPI app pays."""
        said = self.image_content or ""
        return said if said.startswith("upi://pay?") and said.isascii() and len(said) <= MAX_UPI_LINK else None


class Addon(_Entity, frozen=True, kw_only=True):
    """An amount on a later invoice. Once it has an `invoice_id` it can't be deleted. It has no notes."""

    subscription_id: str
    item: dict[str, Any]
    invoice_id: str | None = None
    created_at: int


class Registration(_Entity, frozen=True, kw_only=True):
    """A link at which a customer authorises a mandate: `issued`, `paid`, `cancelled` or `expired`."""

    status: str
    receipt: str | None = None
    customer_id: str | None = None
    order_id: str | None = None
    payment_id: str | None = None
    short_url: str | None = None
    created_at: int
    notes: dict[str, str] = {}


class Order(_Entity, frozen=True, kw_only=True):
    """An order: the amount that its payments pay, at most once."""

    status: str
    amount: int
    receipt: str | None = None
    created_at: int
    notes: dict[str, str] = {}


class Token(_Entity, frozen=True, kw_only=True):
    """A mandate. `recurring_details["status"]`: `initiated`, `confirmed`, `rejected`, `cancelled` or `paused`."""

    method: str | None = None
    max_amount: int | None = None
    expired_at: int | None = None
    recurring_details: dict[str, Any] | None = None

    @property
    def status(self) -> str:
        """The mandate's status; empty if Razorpay doesn't say it."""
        return str((self.recurring_details or {}).get("status") or "")


E = TypeVar("E", bound=_Entity)


def entity(kind: type[E], answer: object) -> E:
    """Converts an answer to an entity. Raises Misshapen."""
    if not isinstance(answer, dict):
        raise Misshapen(f"no {kind.__name__}")
    try:
        found = msgspec.convert({**answer, "notes": _notes(answer.get("notes"))}, kind, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Misshapen(f"no {kind.__name__}: {error}") from None
    if not found.id:
        raise Misshapen(f"a {kind.__name__} without an id")
    return found


def entities(kind: type[E], answer: object) -> list[E]:
    """Converts a page of a list; payment links have a key of their own. Raises Misshapen."""
    page = answer.get("payment_links" if kind is PaymentLink else "items") if isinstance(answer, dict) else None
    if not isinstance(page, list):
        raise Misshapen(f"no list of {kind.__name__}")
    return [entity(kind, one) for one in page]


def debited_payment(answer: object) -> str:
    """The id of the payment that a debit created. Raises Misshapen."""
    found = answer.get("razorpay_payment_id") if isinstance(answer, dict) else None
    if not isinstance(found, str) or not ENTITY_ID.fullmatch(found):
        raise Misshapen("no payment of a debit")
    return found


def _notes(notes: object) -> dict[str, str]:
    return {str(key): str(value) for key, value in notes.items()} if isinstance(notes, dict) else {}
