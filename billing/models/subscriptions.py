"""Subscriptions, and the periods in which usage is metered and billed."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from billing.models.states import UNANSWERED, PeriodKind, PeriodState, SubscriptionState, one_of
from core.postgres.database import Base


class Subscription(Base):
    """One subscription: our intent, then Razorpay's view of it.

    `state` is ours. `status` and the fields after it are Razorpay's, from the last applied fetch (`applied` counts
    those).
    """

    __tablename__ = "subscriptions"
    __table_args__ = (
        CheckConstraint(one_of("state", SubscriptionState), "state"),
        Index("uq_subscriptions_open", "tenant_id", unique=True, postgresql_where="is_open"),
        Index(None, "state", postgresql_where=one_of("state", UNANSWERED)),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(Text)
    is_open: Mapped[bool] = mapped_column(Boolean)
    """Awaits the customer's authorisation. At most one per tenant."""
    plan_code: Mapped[str] = mapped_column(Text)
    plan_version: Mapped[int]
    supply: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """`billing.gst.tax.Supply` at the time of subscribing; it taxes the base fee until the subscription ends."""
    gross_paise: Mapped[int] = mapped_column(BigInteger)
    replaces: Mapped[UUID | None]
    """The subscription that ends when this one is authorised (a change of plan, or a renewal)."""
    total_count: Mapped[int]
    wanted_start_ms: Mapped[int | None] = mapped_column(BigInteger)
    expire_by_ms: Mapped[int | None] = mapped_column(BigInteger)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    tried_ms: Mapped[int | None] = mapped_column(BigInteger)
    """Time of the last call; a lost answer is searched for from here on."""
    error: Mapped[str | None] = mapped_column(Text)

    razorpay_id: Mapped[str | None] = mapped_column(Text, unique=True)
    short_url: Mapped[str | None] = mapped_column(Text)
    applied: Mapped[int] = mapped_column(BigInteger, server_default="0")
    fetched_ms: Mapped[int | None] = mapped_column(BigInteger)
    status: Mapped[str | None] = mapped_column(Text)
    payment_method: Mapped[str | None] = mapped_column(Text)
    international: Mapped[bool | None] = mapped_column(Boolean)
    """Whether its last captured payment used an international card; Razorpay takes add-ons for those alone."""
    current_start_ms: Mapped[int | None] = mapped_column(BigInteger)
    current_end_ms: Mapped[int | None] = mapped_column(BigInteger)
    charge_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    start_ms: Mapped[int | None] = mapped_column(BigInteger)
    ended_ms: Mapped[int | None] = mapped_column(BigInteger)
    paid_count: Mapped[int] = mapped_column(server_default="0")
    remaining_count: Mapped[int | None]
    authorised_ms: Mapped[int | None] = mapped_column(BigInteger)
    """The time at which it was first seen authorised."""
    paid_through_ms: Mapped[int | None] = mapped_column(BigInteger)
    """End of the last paid cycle."""

    cancel_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    """End of service by our own clock. Razorpay is told before it charges the next cycle."""
    cancel_state: Mapped[str | None] = mapped_column(Text)
    """`CancelState` of the call that cancels it at Razorpay."""
    cancel_reason: Mapped[str | None] = mapped_column(Text)
    wanted: Mapped[str | None] = mapped_column(Text)
    """`pause` or `resume`, until Razorpay did or refused it."""


class BillingPeriod(Base):
    """A time span in which a tenant's usage is metered and priced; usage names it by `period_id`.

    Terms are the plan's when the period began. Razorpay hasn't confirmed `foreseen` cycles yet, but usage may already
    be metered in them.
    """

    __tablename__ = "billing_periods"
    __table_args__ = (
        CheckConstraint(one_of("kind", PeriodKind), "kind"),
        CheckConstraint(one_of("state", PeriodState), "state"),
        Index(None, "ends_ms", postgresql_where="state = 'open'"),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    period_id: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    starts_ms: Mapped[int] = mapped_column(BigInteger)
    ends_ms: Mapped[int] = mapped_column(BigInteger)
    foreseen: Mapped[bool] = mapped_column(Boolean, server_default="false")
    subscription_id: Mapped[UUID | None]
    razorpay_invoice_id: Mapped[str | None] = mapped_column(Text)
    paid: Mapped[bool] = mapped_column(Boolean, server_default="false")
    plan_code: Mapped[str] = mapped_column(Text)
    plan_version: Mapped[int]
    terms: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """`billing.rating.overage.Terms`."""
    state: Mapped[str] = mapped_column(Text, server_default="open")
    closed_ms: Mapped[int | None] = mapped_column(BigInteger)
    reading: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    """The meters at the last close. A period whose meters changed since is closed again."""
