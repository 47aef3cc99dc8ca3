"""Payments, refunds and disputes at Razorpay."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from billing.models.keys import tenant_key
from billing.models.states import RefundState, one_of
from core.postgres.database import Base


class Payment(Base):
    """A payment as last fetched, and the bill it paid. `applied + excess = amount` once captured."""

    __tablename__ = "payments"
    __table_args__ = (
        CheckConstraint(
            "applied_paise >= 0 AND excess_paise >= 0 AND applied_paise + excess_paise <= amount_paise", "amounts"
        ),
        CheckConstraint("refunded_paise BETWEEN 0 AND amount_paise", "refunded_paise"),
        tenant_key("payments", "bill_id", "bills.id"),
        tenant_key("payments", "charge_id", "charges.id"),
        Index(None, "tenant_id", "bill_id"),
        Index("uq_payments_razorpay_id", "razorpay_id", unique=True),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    razorpay_id: Mapped[str] = mapped_column(Text, primary_key=True)
    status: Mapped[str] = mapped_column(Text)
    amount_paise: Mapped[int] = mapped_column(BigInteger)
    method: Mapped[str | None] = mapped_column(Text)
    international: Mapped[bool | None] = mapped_column(Boolean)
    order_id: Mapped[str | None] = mapped_column(Text)
    razorpay_invoice_id: Mapped[str | None] = mapped_column(Text)
    charge_id: Mapped[UUID | None]
    subscription_id: Mapped[UUID | None]
    bill_id: Mapped[UUID | None]
    """The bill it was applied to; for an invoice with add-ons, the base bill."""
    applied_paise: Mapped[int] = mapped_column(BigInteger, server_default="0")
    excess_paise: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Paid in excess, and refunded."""
    refunded_paise: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Refunded so far, according to Razorpay."""
    captured_ms: Mapped[int | None] = mapped_column(BigInteger)


class Refund(Base):
    """A refund. Ours has a row before the call; one made in Razorpay's dashboard is recorded when seen."""

    __tablename__ = "refunds"
    __table_args__ = (
        CheckConstraint(one_of("state", RefundState), "state"),
        CheckConstraint("amount_paise > 0", "amount_paise"),
        tenant_key("refunds", "payment_id", "payments.razorpay_id"),
        Index(None, "tenant_id", "payment_id"),
        Index("uq_refunds_cause", "tenant_id", "cause", unique=True),
        Index(
            None,
            "state",
            postgresql_where=one_of("state", (RefundState.INTENDED, RefundState.SUBMITTING, RefundState.PENDING)),
        ),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    payment_id: Mapped[str] = mapped_column(Text)
    amount_paise: Mapped[int] = mapped_column(BigInteger)
    cause: Mapped[str] = mapped_column(Text)
    """Unique per tenant: `excess:<payment>`, `credit:<note>:<bill>`, `extra:<payment>`, `mandate:<payment>` for what
    authorised a mandate, or `razorpay:<refund>` for one made in Razorpay's dashboard. `<cause>:again:<refund>` sends
    one that failed again."""
    state: Mapped[str] = mapped_column(Text)
    razorpay_id: Mapped[str | None] = mapped_column(Text, unique=True)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    tried_ms: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[str | None] = mapped_column(Text)


class Dispute(Base):
    """A payment disputed by the customer's bank."""

    __tablename__ = "disputes"
    __table_args__ = (tenant_key("disputes", "payment_id", "payments.razorpay_id"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    razorpay_id: Mapped[str] = mapped_column(Text, primary_key=True)
    payment_id: Mapped[str] = mapped_column(Text)
    amount_paise: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(Text)
    entity: Mapped[dict[str, Any]] = mapped_column(JSONB)
    seen_ms: Mapped[int] = mapped_column(BigInteger)
