"""Mandates: a tenant's permission to debit bills for usage, so that it need not pay each by hand."""

from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from billing.models.states import MANDATE_OPEN, UNANSWERED, MandateState, one_of
from core.postgres.database import Base


class Mandate(Base):
    """One registration at Razorpay Recurring Payments: our intent, then Razorpay's token.

    A tenant has at most one that waits for authorisation, and one that is active, which the newer one replaces.

    Its amount and expiry are fixed at the registration; others need another mandate.
    """

    __tablename__ = "mandates"
    __table_args__ = (
        CheckConstraint(one_of("state", MandateState), "state"),
        CheckConstraint("max_paise > 0", "max_paise"),
        Index("uq_mandates_open", "tenant_id", unique=True, postgresql_where=one_of("state", MANDATE_OPEN)),
        Index("uq_mandates_active", "tenant_id", unique=True, postgresql_where="state = 'active'"),
        Index(None, "state", postgresql_where=one_of("state", UNANSWERED)),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(Text)
    method: Mapped[str] = mapped_column(Text)
    """`upi` or `card`."""
    max_paise: Mapped[int] = mapped_column(BigInteger)
    """The most of one debit, with tax."""
    reference: Mapped[str] = mapped_column(Text, unique=True)
    """Ours, never reused: the receipt of the registration."""
    contact: Mapped[str] = mapped_column(Text)
    """The phone number that Razorpay requires."""
    created_ms: Mapped[int] = mapped_column(BigInteger)
    tried_ms: Mapped[int | None] = mapped_column(BigInteger)
    checked_ms: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[str | None] = mapped_column(Text)

    razorpay_id: Mapped[str | None] = mapped_column(Text, unique=True)
    """The registration (`inv_...`)."""
    short_url: Mapped[str | None] = mapped_column(Text)
    order_id: Mapped[str | None] = mapped_column(Text)
    customer_id: Mapped[str | None] = mapped_column(Text)
    token_id: Mapped[str | None] = mapped_column(Text, unique=True)
    expires_ms: Mapped[int | None] = mapped_column(BigInteger)
    authorised_ms: Mapped[int | None] = mapped_column(BigInteger)
    paused_ms: Mapped[int | None] = mapped_column(BigInteger)
    """Since when the customer has paused it in its app; None: it hasn't."""
    ended_ms: Mapped[int | None] = mapped_column(BigInteger)
    end_reason: Mapped[str | None] = mapped_column(Text)
    wanted_end: Mapped[str | None] = mapped_column(Text)
    """Why it must be cancelled at Razorpay; None: it need not be."""
