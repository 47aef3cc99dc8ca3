"""Bills, the last number of each document series, and the charges that collect bills."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.elements import ColumnElement

from billing.models.keys import tenant_key
from billing.models.states import LIVE, BillKind, BillState, ChargeState, Instrument, one_of
from core.postgres.database import Base

SMALLEST_PAISE = 100
"""Razorpay moves no less than a rupee, in either direction."""


class Bill(Base):
    """One document for a tenant; a trigger keeps what is printed on a numbered one.

    A period's second overage bill is its supplement.
    """

    __tablename__ = "bills"
    __table_args__ = (
        CheckConstraint(one_of("kind", BillKind), "kind"),
        CheckConstraint(one_of("state", BillState), "state"),
        CheckConstraint("number IS NULL OR issued_ms IS NOT NULL", "numbered"),
        CheckConstraint("kind <> 'credit_note' OR refers_to IS NOT NULL", "refers_to"),
        CheckConstraint("credited_paise BETWEEN 0 AND greatest(total_paise, 0)", "credited_paise"),
        CheckConstraint("paid_paise >= 0", "paid_paise"),
        CheckConstraint("written_off_paise >= 0", "written_off_paise"),
        CheckConstraint(
            "CASE WHEN kind IN ('credit_note', 'refund_voucher') THEN total_paise <= 0 ELSE total_paise >= 0 END",
            "sign",
        ),
        tenant_key("bills", "refers_to", "bills.id"),
        Index(None, "id"),
        Index(None, "tenant_id", "period_id"),
        Index(None, "state", postgresql_where=one_of("state", (BillState.HELD, BillState.OPEN))),
        Index("uq_bills_razorpay_invoice_id", "tenant_id", "razorpay_invoice_id", unique=True),
        Index("uq_bills_period_seq", "tenant_id", "period_id", "kind", "seq", unique=True),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    period_id: Mapped[str] = mapped_column(Text)
    seq: Mapped[int]
    """Counts the documents of one kind and period, from 1."""
    starts_ms: Mapped[int] = mapped_column(BigInteger)
    ends_ms: Mapped[int] = mapped_column(BigInteger)
    subscription_id: Mapped[UUID | None]
    plan_code: Mapped[str] = mapped_column(Text)
    plan_version: Mapped[int]
    lines: Mapped[list[Any]] = mapped_column(JSONB)
    """`billing.documents.invoice.DocumentLine`s; they add up to `taxable_paise`."""
    taken: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default="{}")
    """`billing.rating.overage.AlreadyBilled` of this bill alone."""
    taxable_paise: Mapped[int] = mapped_column(BigInteger)
    supply: Mapped[dict[str, Any]] = mapped_column(JSONB)
    tax: Mapped[list[Any]] = mapped_column(JSONB)
    total_paise: Mapped[int] = mapped_column(BigInteger)
    credited_paise: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Positive: the part of the total that credit notes cancelled. See `balance_of`."""
    paid_paise: Mapped[int] = mapped_column(BigInteger, server_default="0")
    carried_paise: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Positive: the rest, less than a rupee, that a later bill collects. Negative: rests that this bill collects."""
    written_off_paise: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """The debt that an operator gave up."""
    customer: Mapped[dict[str, Any]] = mapped_column(JSONB)
    supplier: Mapped[dict[str, Any]] = mapped_column(JSONB)
    number: Mapped[str | None] = mapped_column(Text, unique=True)
    """Assigned when the document is final, never while it is held, void or waived."""
    refers_to: Mapped[UUID | None]
    """The bill that a credit note reduces."""
    reason: Mapped[str | None] = mapped_column(Text)
    razorpay_invoice_id: Mapped[str | None] = mapped_column(Text)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    issued_ms: Mapped[int | None] = mapped_column(BigInteger)
    due_ms: Mapped[int | None] = mapped_column(BigInteger)
    paid_ms: Mapped[int | None] = mapped_column(BigInteger)


class DocumentSeries(Base):
    """The last number of a series. Its row is locked from numbering a document to that document's commit."""

    __tablename__ = "document_series"

    series: Mapped[str] = mapped_column(Text, primary_key=True)
    last: Mapped[str] = mapped_column(Text)


class Charge(Base):
    """One attempt to collect a bill. `reference` is ours and never reused: `reference_id` of a payment link."""

    __tablename__ = "charges"
    __table_args__ = (
        CheckConstraint(one_of("state", ChargeState), "state"),
        CheckConstraint(one_of("instrument", Instrument), "instrument"),
        CheckConstraint("amount_paise > 0", "amount_paise"),
        tenant_key("charges", "bill_id", "bills.id"),
        tenant_key("charges", "mandate_id", "mandates.id"),
        Index("uq_charges_live", "tenant_id", "bill_id", unique=True, postgresql_where=one_of("state", LIVE)),
        Index("uq_charges_attempt", "tenant_id", "bill_id", "attempt", unique=True),
        Index(None, "state", postgresql_where=one_of("state", LIVE)),
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
    """The payment link, the QR code, the add-on, or the debit's newest payment."""
    short_url: Mapped[str | None] = mapped_column(Text)
    """The page of a payment link, or the image of a QR code."""
    upi_link: Mapped[str | None] = mapped_column(Text)
    """The link in a QR code, if Razorpay shows it to this account."""
    order_id: Mapped[str | None] = mapped_column(Text)
    mandate_id: Mapped[UUID | None]
    """The mandate that a debit is made on."""
    razorpay_invoice_id: Mapped[str | None] = mapped_column(Text)
    """The invoice that carries an add-on, which can't be deleted from then on."""
    wanted_void: Mapped[str | None] = mapped_column(Text)
    """Why it must be cancelled at Razorpay; None: it need not be."""
    expire_by_ms: Mapped[int | None] = mapped_column(BigInteger)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    tried_ms: Mapped[int | None] = mapped_column(BigInteger)
    checked_ms: Mapped[int | None] = mapped_column(BigInteger)
    ended_ms: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[str | None] = mapped_column(Text)


def balance_of(bill: Bill) -> int:
    """Paise of the total, and of rests it collects, that nobody has paid, credited, carried on or written off.

    Negative where too much was paid.
    """
    return bill.total_paise - bill.credited_paise - bill.paid_paise - bill.carried_paise - bill.written_off_paise


def due_of(bill: Bill) -> int:
    """Paise still to be collected; only an open bill has any."""
    return max(0, balance_of(bill)) if bill.state == BillState.OPEN else 0


def balance_sql() -> ColumnElement[int]:
    """`balance_of` in SQL."""
    return Bill.total_paise - Bill.credited_paise - Bill.paid_paise - Bill.carried_paise - Bill.written_off_paise
