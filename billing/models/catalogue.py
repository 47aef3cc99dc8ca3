"""What is sold, by whom, and to whom: plans, Razorpay's copies of them, the two parties of a bill."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, ForeignKeyConstraint, SmallInteger, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from core.postgres.database import Base
from core.tenancy.models import TimestampTz


class Plan(Base):
    """One version of a plan. Never edited: a change is the next version, and tenants move to it by a decision.

    `meters`: the allowance and the rate of each priced meter (`billing.rating.overage.MeterTerms`).
    """

    __tablename__ = "plans"
    __table_args__ = (
        CheckConstraint("past_allowance IN ('block', 'bill')", "past_allowance"),
        CheckConstraint("when_unpaid IN ('block', 'free')", "when_unpaid"),
    )

    code: Mapped[str] = mapped_column(Text, primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    limits: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.now())
    base_paise: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """The base price of a month, before tax. 0: there is nothing to subscribe to."""
    meters: Mapped[list[Any]] = mapped_column(JSONB, server_default="[]")
    past_allowance: Mapped[str] = mapped_column(Text, server_default="block")
    ceiling_paise: Mapped[int | None] = mapped_column(BigInteger)
    when_unpaid: Mapped[str] = mapped_column(Text, server_default="block")
    """What a tenant that does not pay has: nothing (402), or what the plan it has without a subscription gives."""
    trial_days: Mapped[int] = mapped_column(server_default="0")


class RazorpayPlan(Base):
    """A plan's version at Razorpay, for one tax treatment: its price there includes GST and can never change."""

    __tablename__ = "razorpay_plans"
    __table_args__ = (
        ForeignKeyConstraint(["code", "version"], ["plans.code", "plans.version"]),
        CheckConstraint("state IN ('intended', 'submitting', 'created')", "state"),
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
    """Whose money this database speaks of; one row. A process with another account's keys refuses to start."""

    __tablename__ = "razorpay_account"
    __table_args__ = (
        CheckConstraint("id = 1", "single"),
        CheckConstraint("mode IN ('sandbox', 'test', 'live')", "mode"),
    )

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    mode: Mapped[str] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(Text)
    account_id: Mapped[str | None] = mapped_column(Text)
    """Learned from the first genuine webhook."""


class OperatorProfile(Base):
    """The supplier on every bill; one row."""

    __tablename__ = "operator_profile"
    __table_args__ = (CheckConstraint("id = 1", "single"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    profile: Mapped[dict[str, Any]] = mapped_column(JSONB)


class BillingProfile(Base):
    """The customer as printed on bills; copied onto each bill, so a later change alters no issued one."""

    __tablename__ = "billing_profiles"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    profile: Mapped[dict[str, Any]] = mapped_column(JSONB)


class BillingAccount(Base):
    """What is locked while a tenant's bills, money, subscriptions and entitlement move: always first, always whole."""

    __tablename__ = "billing_accounts"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
