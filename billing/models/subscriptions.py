"""Subscriptions, and the periods that usage is metered and billed in."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from core.postgres.database import Base


class Subscription(Base):
    """One subscription: first what we want (the intent), then what Razorpay says of it.

    `state`: `intended` (stored, nothing called), `submitting` (a call went out and its answer is not known),
    `submitted` (Razorpay has it: `razorpay_id`), `void` (it was never made, and never will be).
    `status` and what follows it are Razorpay's, as of the last fetch that was applied (`applied` counts those).
    """

    __tablename__ = "subscriptions"
    __table_args__ = (
        CheckConstraint("state IN ('intended', 'submitting', 'submitted', 'void')", "state"),
        Index(
            "uq_subscriptions_open",
            "tenant_id",
            unique=True,
            postgresql_where="is_open",
        ),
        Index(None, "state", postgresql_where="state IN ('intended', 'submitting')"),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(Text)
    is_open: Mapped[bool] = mapped_column(Boolean)
    """Waits for the customer to authorise it: a tenant has one such at the most."""
    plan_code: Mapped[str] = mapped_column(Text)
    plan_version: Mapped[int]
    supply: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """`billing.gst.tax.Supply` at the time of subscribing: the base fee is taxed by it until the subscription ends."""
    gross_paise: Mapped[int] = mapped_column(BigInteger)
    replaces: Mapped[UUID | None]
    """The tenant's subscription that ends when this one is authorised (a change of plan, or a renewal)."""
    total_count: Mapped[int]
    wanted_start_ms: Mapped[int | None] = mapped_column(BigInteger)
    expire_by_ms: Mapped[int | None] = mapped_column(BigInteger)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    tried_ms: Mapped[int | None] = mapped_column(BigInteger)
    """When the last call went out: an answer that was lost is looked for from here on."""
    error: Mapped[str | None] = mapped_column(Text)

    razorpay_id: Mapped[str | None] = mapped_column(Text, unique=True)
    short_url: Mapped[str | None] = mapped_column(Text)
    applied: Mapped[int] = mapped_column(BigInteger, server_default="0")
    fetched_ms: Mapped[int | None] = mapped_column(BigInteger)
    status: Mapped[str | None] = mapped_column(Text)
    payment_method: Mapped[str | None] = mapped_column(Text)
    international: Mapped[bool | None] = mapped_column(Boolean)
    """Whether its last captured payment was by an international card: only then an add-on may work."""
    current_start_ms: Mapped[int | None] = mapped_column(BigInteger)
    current_end_ms: Mapped[int | None] = mapped_column(BigInteger)
    charge_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    start_ms: Mapped[int | None] = mapped_column(BigInteger)
    ended_ms: Mapped[int | None] = mapped_column(BigInteger)
    paid_count: Mapped[int] = mapped_column(server_default="0")
    remaining_count: Mapped[int | None]
    authorised_ms: Mapped[int | None] = mapped_column(BigInteger)
    """When we first saw it authorised."""
    paid_through_ms: Mapped[int | None] = mapped_column(BigInteger)
    """The end of the last cycle that is paid."""

    cancel_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    """By our own clock: it serves until then, and is cancelled at Razorpay before the next cycle is charged."""
    cancel_state: Mapped[str | None] = mapped_column(Text)
    """`intended`, `submitting`, `done`: of the call that cancels it at Razorpay."""
    cancel_reason: Mapped[str | None] = mapped_column(Text)
    wanted: Mapped[str | None] = mapped_column(Text)
    """`pause` or `resume`, until Razorpay has done or refused it."""


class BillingPeriod(Base):
    """A stretch of time that a tenant's usage is metered and priced in; usage names it (`period_id`).

    `cycle`: one of a subscription, with the boundaries that Razorpay says; `trial`: before the first; `month`: the
    operator's calendar month, for a tenant without a subscription. Terms are the plan's, when the period began.
    `foreseen` cycles are not Razorpay's word yet, but usage may already be metered in them.
    """

    __tablename__ = "billing_periods"
    __table_args__ = (
        CheckConstraint("kind IN ('cycle', 'trial', 'month')", "kind"),
        CheckConstraint("state IN ('open', 'closed')", "state"),
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
    """The meters at the last close: a meter that reads otherwise now closes the period again."""
