"""What Razorpay told us, as it came; and what the checks against Razorpay found."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, LargeBinary, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from core.postgres.database import Base


class WebhookEvent(Base):
    """One genuine delivery, stored once by its signed body. No tenant in its key: whose it is, is found out later.

    `event_id` is Razorpay's, from a header that nobody signs: two bodies may claim one id, and the second is then kept
    under its own hash. `body_sha256` is None only for what an earlier version stored twice.

    `state`: `received`, `applied`, `ignored` (nothing of ours, or a kind we do not use), `parked` (an operator looks).
    """

    __tablename__ = "webhook_events"
    __table_args__ = (
        CheckConstraint("state IN ('received', 'applied', 'ignored', 'parked')", "state"),
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
    """When it is tried (again)."""
    ended_ms: Mapped[int | None] = mapped_column(BigInteger)
    tenant_id: Mapped[UUID | None]
    reason: Mapped[str | None] = mapped_column(Text)


class RazorpayReconciliation(Base):
    """One comparison of Razorpay's books with ours: what it healed, what it cannot explain."""

    __tablename__ = "razorpay_reconciliations"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    ran_ms: Mapped[int] = mapped_column(BigInteger)
    healed: Mapped[int]
    unexplained: Mapped[int]
    report: Mapped[dict[str, Any]] = mapped_column(JSONB)


class BillingFinding(Base):
    """Something about money that a person should know: an extra subscription, a refund that failed, a dispute.

    `key` makes it once only. It stays until an operator closes it.
    """

    __tablename__ = "billing_findings"
    __table_args__ = (Index(None, "closed_ms", postgresql_where="closed_ms IS NULL"),)

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    tenant_id: Mapped[UUID | None]
    kind: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB)
    seen_ms: Mapped[int] = mapped_column(BigInteger)
    closed_ms: Mapped[int | None] = mapped_column(BigInteger)
