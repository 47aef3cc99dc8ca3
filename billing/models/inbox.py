"""Stored webhooks of Razorpay, reconciliations with Razorpay, and findings for operators."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, LargeBinary, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from billing.models.states import EventState, one_of
from core.postgres.database import Base


class WebhookEvent(Base):
    """One genuine delivery, stored once by its signed body. Its tenant is known only after processing.

    `event_id` comes from an unsigned header, so two bodies may claim one id; the second is stored under its own hash.
    `body_sha256` is None only for duplicates that an earlier version stored.
    """

    __tablename__ = "webhook_events"
    __table_args__ = (
        CheckConstraint(one_of("state", EventState), "state"),
        Index(None, "due_ms", postgresql_where="state = 'received'"),
        Index("ix_webhook_events_parked", "state", postgresql_where="state = 'parked'"),
        Index(None, "received_ms"),
        Index("uq_webhook_events_body_sha256", "body_sha256", unique=True),
    )

    event_id: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    account_id: Mapped[str | None] = mapped_column(Text)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    body_sha256: Mapped[bytes | None] = mapped_column(LargeBinary)
    received_ms: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(Text)
    tries: Mapped[int] = mapped_column(server_default="0")
    due_ms: Mapped[int] = mapped_column(BigInteger)
    """Time of the next attempt."""
    ended_ms: Mapped[int | None] = mapped_column(BigInteger)
    tenant_id: Mapped[UUID | None]
    reason: Mapped[str | None] = mapped_column(Text)


class RazorpayReconciliation(Base):
    """One comparison of Razorpay's records with ours: differences repaired, and differences left."""

    __tablename__ = "razorpay_reconciliations"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    ran_ms: Mapped[int] = mapped_column(BigInteger)
    healed: Mapped[int]
    unexplained: Mapped[int]
    report: Mapped[dict[str, Any]] = mapped_column(JSONB)


class ComparedDay(Base):
    """The last comparison of a day's payments and links. A comparison that stopped is continued from these."""

    __tablename__ = "compared_days"

    starts_ms: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    compared_ms: Mapped[int] = mapped_column(BigInteger)


class BillingFinding(Base):
    """A billing problem for an operator: an extra subscription, a failed refund, a dispute. `key` is unique.

    It stays open until an operator closes it, or its cause is gone (`resolved`), after which it may open again.
    """

    __tablename__ = "billing_findings"
    __table_args__ = (Index(None, "closed_ms", postgresql_where="closed_ms IS NULL"),)

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    tenant_id: Mapped[UUID | None]
    kind: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB)
    seen_ms: Mapped[int] = mapped_column(BigInteger)
    closed_ms: Mapped[int | None] = mapped_column(BigInteger)
    resolved: Mapped[bool] = mapped_column(server_default="false")
