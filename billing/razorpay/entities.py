"""What Razorpay answers, as far as billing reads it. Pure.

The rule: fields we do not know are ignored, fields that are documented as absent, null, `0` or `"NA"` may be so,
and one that a decision needs (an id, a status, an amount) must be there: without it the answer is no answer
(`Misshapen`). Amounts are paise, times are Unix seconds. Empty `notes` come as `[]`, `captured` as `"1"` in some
events, unset times of a payment link as `0`. Source: facts/razorpay.md, sections 1 and 2.
"""

from typing import Any, TypeVar

import msgspec


class Misshapen(ValueError):
    """An answer that is JSON, but not what was asked for."""


class _Entity(msgspec.Struct, frozen=True, kw_only=True):
    id: str


class Plan(_Entity, frozen=True, kw_only=True):
    """A price, which can never be changed; `item["amount"]` includes GST."""

    period: str
    interval: int
    item: dict[str, Any]
    notes: dict[str, str] = {}


class Customer(_Entity, frozen=True, kw_only=True):
    """Whom Razorpay knows; never the link to a tenant (facts, 2.1)."""

    email: str | None = None
    contact: str | None = None
    notes: dict[str, str] = {}


class Subscription(_Entity, frozen=True, kw_only=True):
    """A mandate and its cycles. A cancel at cycle end leaves no trace in it (facts, 2.4)."""

    plan_id: str
    status: str
    current_start: int | None = None
    current_end: int | None = None
    charge_at: int | None = None
    start_at: int | None = None
    end_at: int | None = None
    ended_at: int | None = None
    expire_by: int | None = None
    created_at: int
    quantity: int = 1
    auth_attempts: int = 0
    total_count: int = 0
    paid_count: int = 0
    remaining_count: int | None = None
    has_scheduled_changes: bool = False
    short_url: str | None = None
    payment_method: str | None = None
    customer_id: str | None = None
    notes: dict[str, str] = {}


class Invoice(_Entity, frozen=True, kw_only=True):
    """One of Razorpay's; `billing_start` and `billing_end` are the cycle that it opens."""

    status: str
    amount: int
    amount_paid: int = 0
    subscription_id: str | None = None
    payment_id: str | None = None
    order_id: str | None = None
    billing_start: int | None = None
    billing_end: int | None = None
    issued_at: int | None = None
    paid_at: int | None = None
    created_at: int | None = None
    line_items: list[dict[str, Any]] = []
    notes: dict[str, str] = {}


class Payment(_Entity, frozen=True, kw_only=True):
    """Money that came, or did not."""

    status: str
    amount: int
    currency: str
    amount_refunded: int = 0
    captured: bool = False
    international: bool | None = None
    method: str | None = None
    invoice_id: str | None = None
    order_id: str | None = None
    error_code: str | None = None
    error_description: str | None = None
    error_reason: str | None = None
    created_at: int
    notes: dict[str, str] = {}


class Refund(_Entity, frozen=True, kw_only=True):
    """Money on its way back: `pending`, `processed` or `failed`."""

    payment_id: str
    amount: int
    status: str
    receipt: str | None = None
    created_at: int
    notes: dict[str, str] = {}


class PaymentLink(_Entity, frozen=True, kw_only=True):
    """A bill that a person can pay. `payments` name the payments once there are some."""

    status: str
    amount: int
    amount_paid: int = 0
    reference_id: str | None = None
    short_url: str | None = None
    order_id: str | None = None
    expire_by: int = 0
    cancelled_at: int = 0
    expired_at: int = 0
    created_at: int
    payments: list[dict[str, Any]] | None = None
    notes: dict[str, str] = {}


class Addon(_Entity, frozen=True, kw_only=True):
    """Something on top of the next invoice; from `invoice_id` on it cannot be deleted. It has no notes."""

    subscription_id: str
    item: dict[str, Any]
    quantity: int = 1
    invoice_id: str | None = None
    created_at: int


E = TypeVar("E", bound=_Entity)


def entity(kind: type[E], answer: object) -> E:
    """One entity out of an answer. Raises Misshapen."""
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
    """A page of a list; payment links come under a name of their own. Raises Misshapen."""
    page = answer.get("payment_links" if kind is PaymentLink else "items") if isinstance(answer, dict) else None
    if not isinstance(page, list):
        raise Misshapen(f"no list of {kind.__name__}")
    return [entity(kind, one) for one in page]


def _notes(notes: object) -> dict[str, str]:
    return {str(key): str(value) for key, value in notes.items()} if isinstance(notes, dict) else {}
