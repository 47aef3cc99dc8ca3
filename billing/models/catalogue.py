"""Plans, their copies at Razorpay, the two parties of a bill, and each tenant's lock row."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, ForeignKeyConstraint, SmallInteger, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from billing.models.states import PlanState, RazorpayPlanState, one_of
from core.postgres.database import Base
from core.tenancy.models import TimestampTz


class Plan(Base):
    """One version of a plan. Never edited: a change is the next version, and tenants stay on theirs until moved.

    `meters`: the allowance and the rate of each priced meter (`billing.rating.overage.MeterTerms`).
    """

    __tablename__ = "plans"
    __table_args__ = (
        CheckConstraint("past_allowance IN ('block', 'bill', 'prepaid')", "past_allowance"),
        CheckConstraint(one_of("state", PlanState), "state"),
        CheckConstraint("threshold_paise > 0", "threshold_paise"),
        CheckConstraint("when_unpaid IN ('block', 'free')", "when_unpaid"),
    )

    code: Mapped[str] = mapped_column(Text, primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    limits: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.now())
    base_paise: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """The base price of a month, before tax. 0: can't be subscribed to."""
    meters: Mapped[list[Any]] = mapped_column(JSONB, server_default="[]")
    past_allowance: Mapped[str] = mapped_column(Text, server_default="block")
    ceiling_paise: Mapped[int | None] = mapped_column(BigInteger)
    when_unpaid: Mapped[str] = mapped_column(Text, server_default="block")
    """An unpaid tenant gets nothing (402), or the limits of its plan without a subscription."""
    trial_days: Mapped[int] = mapped_column(server_default="0")
    state: Mapped[str] = mapped_column(Text, server_default="offered")
    """`PlanState`: the only column that changes."""
    threshold_paise: Mapped[int | None] = mapped_column(BigInteger)
    """Overage is billed within a period each time it reaches this much, before tax."""


def plan_version(plan: Plan) -> str:
    """The name of a version: `team@3`."""
    return f"{plan.code}@{plan.version}"


class RazorpayPlan(Base):
    """A plan's version at Razorpay for one tax treatment. Its price includes GST and can't be changed there."""

    __tablename__ = "razorpay_plans"
    __table_args__ = (
        ForeignKeyConstraint(["code", "version"], ["plans.code", "plans.version"]),
        CheckConstraint(one_of("state", RazorpayPlanState), "state"),
    )

    code: Mapped[str] = mapped_column(Text, primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    treatment: Mapped[str] = mapped_column(Text, primary_key=True)
    gross_paise: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(Text)
    razorpay_id: Mapped[str | None] = mapped_column(Text, unique=True)
    tried_ms: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[str | None] = mapped_column(Text)


class RazorpayAccount(Base):
    """The Razorpay account of this database; one row. A process with another mode's keys refuses to start."""

    __tablename__ = "razorpay_account"
    __table_args__ = (
        CheckConstraint("id = 1", "single"),
        CheckConstraint("mode IN ('sandbox', 'test', 'live')", "mode"),
    )

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    mode: Mapped[str] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(Text)
    account_id: Mapped[str | None] = mapped_column(Text)
    """Taken from the first genuine webhook."""


class OperatorProfile(Base):
    """The supplier on every bill; one row."""

    __tablename__ = "operator_profile"
    __table_args__ = (CheckConstraint("id = 1", "single"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    profile: Mapped[dict[str, Any]] = mapped_column(JSONB)


class BillingProfile(Base):
    """The customer as printed on bills. Copied onto each bill, so a change doesn't alter issued ones."""

    __tablename__ = "billing_profiles"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    profile: Mapped[dict[str, Any]] = mapped_column(JSONB)


class BillingAccount(Base):
    """The tenant's lock: taken before its bills, payments, subscriptions or entitlement are changed."""

    __tablename__ = "billing_accounts"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
