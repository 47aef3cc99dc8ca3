"""Razorpay's entities. Field names are those of the API; the ones hidden by `wire` are never sent.

Amounts are paise, times Unix seconds of the simulator's clock, unless a name says otherwise.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from sandbox.razorpay.instruments.entities import Terms

Json = dict[str, Any]
Method = Literal["upi", "card_domestic", "card_international", "emandate"]
METHODS: tuple[Method, ...] = ("upi", "card_domestic", "card_international", "emandate")
PaymentKind = Literal["authorisation", "recurring", "link", "invoice", "order", "qr"]
LIVE = ("created", "authenticated", "active", "pending", "halted", "paused")


@dataclass(kw_only=True)
class Item:
    """A price: a template, or the item of a plan or an add-on."""

    id: str
    active: bool = True
    name: str
    description: str | None = None
    amount: int
    currency: str = "INR"
    type: str = "invoice"
    created_at: int


@dataclass(kw_only=True)
class Plan:
    """A price and a period; immutable."""

    id: str
    interval: int
    period: str
    item: Item
    notes: dict[str, str]
    created_at: int


@dataclass(kw_only=True)
class Customer:
    """A payer."""

    id: str
    name: str | None
    email: str | None
    contact: str | None
    gstin: str | None = None
    notes: dict[str, str] = field(default_factory=dict)
    created_at: int


@dataclass(kw_only=True)
class Subscription:
    """A recurring payment of a plan."""

    id: str
    plan_id: str
    customer_id: str | None = None
    customer_email: str | None = None
    customer_contact: str | None = None
    status: str = "created"
    current_start: int | None = None
    current_end: int | None = None
    ended_at: int | None = None
    quantity: int = 1
    notes: dict[str, str] = field(default_factory=dict)
    charge_at: int | None = None
    start_at: int | None = None
    end_at: int | None = None
    auth_attempts: int = 0
    total_count: int
    paid_count: int = 0
    customer_notify: bool = True
    created_at: int
    expire_by: int | None = None
    short_url: str
    has_scheduled_changes: bool = False
    change_scheduled_at: int | None = None
    source: str = "api"
    payment_method: str | None = None
    halted_at: int | None = None
    offer_id: str | None = None
    paused_at: int | None = None
    pause_initiated_by: str | None = None
    cancel_initiated_by: str | None = None
    # Known to Razorpay, but not shown.
    method: Method | None = None
    token_id: str | None = None
    card_id: str | None = None
    cycles: int = 0
    """Cycles begun; all are invoiced, except those skipped by a pause."""
    swallowed: int = 0
    invoice_id: str | None = None
    """The invoice of the current cycle."""
    cancel_at_cycle_end: bool = False
    changes: Json = field(default_factory=dict)
    outcomes: list[str] = field(default_factory=list)
    """Outcomes of the next charges: `ok` or an error's reason."""


@dataclass(kw_only=True)
class Addon:
    """An extra on the next invoice."""

    id: str
    item: Item
    quantity: int
    created_at: int
    subscription_id: str
    invoice_id: str | None = None


@dataclass(kw_only=True)
class LineItem:
    """One line of an invoice."""

    id: str
    name: str
    amount: int
    currency: str
    quantity: int
    type: str
    description: str | None = None
    item_id: str | None = None


@dataclass(kw_only=True)
class Invoice:
    """An invoice: for a cycle of a subscription, a single one, or the registration of a mandate (`link`)."""

    id: str
    subscription_id: str | None
    type: Literal["invoice", "link"] = "invoice"
    receipt: str | None = None
    customer_id: str | None
    customer: Json
    order_id: str | None
    line_items: list[LineItem]
    payment_id: str | None = None
    status: str = "issued"
    expire_by: int | None = None
    issued_at: int | None
    paid_at: int | None = None
    cancelled_at: int | None = None
    expired_at: int | None = None
    amount: int
    currency: str
    description: str | None = None
    notes: dict[str, str] = field(default_factory=dict)
    terms: str | None = None
    comment: str | None = None
    short_url: str
    billing_start: int | None = None
    billing_end: int | None = None
    created_at: int


@dataclass(kw_only=True)
class Order:
    """An amount to be paid once."""

    id: str
    amount: int
    amount_paid: int = 0
    currency: str
    receipt: str | None = None
    status: str = "created"
    attempts: int = 0
    notes: dict[str, str] = field(default_factory=dict)
    created_at: int
    mandate: Terms | None = None
    """The mandate that it registers."""
    customer_id: str | None = None
    """Whose mandate it registers; not shown."""
    notification: Json | None = None
    """The notice of a debit in two steps."""


@dataclass(kw_only=True)
class Payment:
    """A payment or an attempt at one."""

    id: str
    amount: int
    currency: str
    status: str
    order_id: str | None
    invoice_id: str | None = None
    international: bool
    method: str
    amount_refunded: int = 0
    refund_status: str | None = None
    description: str
    card_id: str | None = None
    vpa: str | None = None
    bank: str | None = None
    email: str | None = None
    contact: str | None = None
    customer_id: str | None = None
    token_id: str | None = None
    notes: dict[str, str] = field(default_factory=dict)
    fee: int | None = None
    tax: int | None = None
    error_code: str | None = None
    error_description: str | None = None
    error_source: str | None = None
    error_step: str | None = None
    error_reason: str | None = None
    created_at: int
    # Known to Razorpay, but not shown.
    kind: PaymentKind
    subscription_id: str | None = None
    link_id: str | None = None
    qr_code_id: str | None = None


@dataclass(kw_only=True)
class Refund:
    """A refund."""

    id: str
    amount: int
    currency: str
    payment_id: str
    notes: dict[str, str]
    receipt: str | None = None
    created_at: int
    status: str = "processed"
    speed_requested: str = "normal"
    by: str = "api"
    """Hidden: `api`, `dashboard`, or `razorpay` (a token payment)."""


@dataclass(kw_only=True)
class Link:
    """A page where an amount can be paid once."""

    id: str
    amount: int
    amount_paid: int = 0
    currency: str
    accept_partial: bool = False
    callback_method: str = ""
    callback_url: str = ""
    cancelled_at: int = 0
    created_at: int
    customer: Json
    description: str
    expire_by: int
    expired_at: int = 0
    first_min_partial_amount: int = 0
    notes: dict[str, str]
    notify: Json
    payment_ids: list[str] = field(default_factory=list)
    reference_id: str
    reminder_enable: bool
    short_url: str
    status: str = "created"
    updated_at: int
    order_id: str | None = None


@dataclass(kw_only=True)
class Dispute:
    """A chargeback."""

    id: str
    payment_id: str
    amount: int
    currency: str
    reason_code: str
    phase: str = "chargeback"
    status: str = "open"
    respond_by: int
    created_at: int


@dataclass(kw_only=True)
class Event:
    """An event: its bytes are a snapshot, signed with the secret of its time."""

    id: str
    name: str
    body: bytes
    secret: str
    old_secret: str
    created_at: int
