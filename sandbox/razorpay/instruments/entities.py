"""Tokens, debits and QR codes. Field names are those of the API; what `shapes` leaves out is known to Razorpay only."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Terms:
    """The limits of a mandate; fixed once it is registered."""

    method: str
    """`upi`, `card` or `emandate`."""
    max_amount: int
    """The most of one debit."""
    expire_at: int
    frequency: str
    """`as_presented`: any number of debits; `monthly`: one in a month."""


@dataclass(kw_only=True)
class Token:
    """A mandate of a customer."""

    id: str
    token: str
    customer_id: str
    terms: Terms
    status: str = "initiated"
    """`initiated`, `confirmed`, `rejected`, `cancelled` or `paused`."""
    failure_reason: str | None = None
    by: str
    """The payment method that authorised it."""
    card_id: str | None = None
    payment_id: str
    created_at: int
    used_at: int | None = None
    answer_at: int | None
    """The time of the bank's answer to the registration; None once it is there."""
    answer: str = "confirmed"
    deleted: bool = False
    outcomes: list[str] = field(default_factory=list)
    """Outcomes of the next tries: `ok`, `late`, or an error's reason."""


@dataclass(kw_only=True)
class Debit:
    """One debit by a token: its notice to the customer, then its tries. Its payment is `created` until the last."""

    payment_id: str
    token_id: str
    amount: int
    notice_id: str
    notified_at: int
    due_at: int | None
    """The next try; None once it succeeded or failed for good."""
    tries: int = 0
    retries: int
    """The number of tries that may follow the first."""
    opted_out_at: int | None = None
    late_at: int | None = None
    """The time when a payment that failed is authorised after all."""


@dataclass(kw_only=True)
class QrCode:
    """A code that is scanned to pay by UPI."""

    id: str
    name: str | None
    usage: str
    type: str = "upi_qr"
    image_url: str
    image_content: str
    payment_amount: int | None
    status: str = "active"
    description: str | None
    fixed_amount: bool
    payments_amount_received: int = 0
    payments_count_received: int = 0
    notes: dict[str, str]
    customer_id: str | None
    close_by: int | None
    closed_at: int | None = None
    close_reason: str | None = None
    created_at: int
