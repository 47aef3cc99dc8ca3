"""Bills, their numbers, and how each is collected."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from core.postgres.database import Base


class Bill(Base):
    """One document towards a tenant; its amounts are never edited.

    `kind`: `base` (a cycle's fee, issued when it is paid), `overage` (usage past the allowance; a period's second one
    is its supplement), `credit_note` (negative amounts).
    `state`: `held` (an operator has to look), `open` (to be collected), `paid`, `void` (an operator let a held one go),
    `waived` (less than can be collected), `issued` (a credit note), `credited` (credit notes took all of it).
    """

    __tablename__ = "bills"
    __table_args__ = (
        CheckConstraint("kind IN ('base', 'overage', 'credit_note')", "kind"),
        CheckConstraint("state IN ('held', 'open', 'paid', 'void', 'waived', 'issued', 'credited')", "state"),
        Index(None, "id"),
        Index(None, "tenant_id", "period_id"),
        Index(None, "state", postgresql_where="state IN ('held', 'open')"),
        Index("uq_bills_razorpay_invoice_id", "tenant_id", "razorpay_invoice_id", unique=True),
        Index("uq_bills_period_seq", "tenant_id", "period_id", "kind", "seq", unique=True),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    period_id: Mapped[str] = mapped_column(Text)
    seq: Mapped[int]
    """Counts the documents of its kind and period, from 1."""
    starts_ms: Mapped[int] = mapped_column(BigInteger)
    ends_ms: Mapped[int] = mapped_column(BigInteger)
    subscription_id: Mapped[UUID | None]
    plan_code: Mapped[str] = mapped_column(Text)
    plan_version: Mapped[int]
    lines: Mapped[list[Any]] = mapped_column(JSONB)
    """`billing.documents.invoice.DocumentLine`, one by one: they add up to `taxable_paise`."""
    taken: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default="{}")
    """`billing.rating.overage.AlreadyBilled` of this bill alone."""
    taxable_paise: Mapped[int] = mapped_column(BigInteger)
    supply: Mapped[dict[str, Any]] = mapped_column(JSONB)
    tax: Mapped[list[Any]] = mapped_column(JSONB)
    total_paise: Mapped[int] = mapped_column(BigInteger)
    credited_paise: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """What credit notes took of the total (positive). Due is `total - credited - paid`."""
    paid_paise: Mapped[int] = mapped_column(BigInteger, server_default="0")
    customer: Mapped[dict[str, Any]] = mapped_column(JSONB)
    supplier: Mapped[dict[str, Any]] = mapped_column(JSONB)
    number: Mapped[str | None] = mapped_column(Text, unique=True)
    """Assigned when it is final: never for a held, void or waived one."""
    refers_to: Mapped[UUID | None]
    """The bill that a credit note takes back of."""
    reason: Mapped[str | None] = mapped_column(Text)
    razorpay_invoice_id: Mapped[str | None] = mapped_column(Text)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    issued_ms: Mapped[int | None] = mapped_column(BigInteger)
    due_ms: Mapped[int | None] = mapped_column(BigInteger)
    paid_ms: Mapped[int | None] = mapped_column(BigInteger)


class DocumentSeries(Base):
    """The last number of a series: whoever numbers a document holds this row until that document is committed."""

    __tablename__ = "document_series"

    series: Mapped[str] = mapped_column(Text, primary_key=True)
    last: Mapped[str] = mapped_column(Text)


class Charge(Base):
    """One attempt to collect a bill. `reference` is ours and unique for ever: `reference_id` of a payment link.

    `state`: `intended`, `submitting` (a call went out, its answer is not known), `submitted` (Razorpay has it), `paid`,
    `failed` (refused: an operator has to look), `void` (expired, cancelled or deleted, and read back as such).
    """

    __tablename__ = "charges"
    __table_args__ = (
        CheckConstraint("state IN ('intended', 'submitting', 'submitted', 'paid', 'failed', 'void')", "state"),
        CheckConstraint("instrument IN ('payment_link', 'addon')", "instrument"),
        Index(
            "uq_charges_live",
            "tenant_id",
            "bill_id",
            unique=True,
            postgresql_where="state IN ('intended', 'submitting', 'submitted')",
        ),
        Index("uq_charges_attempt", "tenant_id", "bill_id", "attempt", unique=True),
        Index(None, "state", postgresql_where="state IN ('intended', 'submitting', 'submitted')"),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    bill_id: Mapped[UUID]
    attempt: Mapped[int]
    instrument: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    amount_paise: Mapped[int] = mapped_column(BigInteger)
    reference: Mapped[str] = mapped_column(Text, unique=True)
    subscription_id: Mapped[UUID | None]
    razorpay_id: Mapped[str | None] = mapped_column(Text, unique=True)
    short_url: Mapped[str | None] = mapped_column(Text)
    order_id: Mapped[str | None] = mapped_column(Text)
    razorpay_invoice_id: Mapped[str | None] = mapped_column(Text)
    """The invoice that carries an add-on: from then on there is no switching."""
    wanted_void: Mapped[str | None] = mapped_column(Text)
    """Why it is to be cancelled at Razorpay, if it is."""
    expire_by_ms: Mapped[int | None] = mapped_column(BigInteger)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    tried_ms: Mapped[int | None] = mapped_column(BigInteger)
    checked_ms: Mapped[int | None] = mapped_column(BigInteger)
    ended_ms: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[str | None] = mapped_column(Text)


LIVE = ("intended", "submitting", "submitted")
"""States of a charge that may still collect."""


def due_of(bill: Bill) -> int:
    """Paise that are still to be collected: of an open bill only."""
    if bill.state != "open":
        return 0
    return max(0, bill.total_paise - bill.credited_paise - bill.paid_paise)
