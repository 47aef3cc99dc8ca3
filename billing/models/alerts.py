"""Alerts to tenants, their endpoints, and the log of deliveries."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, CheckConstraint, ForeignKey, Index, LargeBinary, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from billing.models.states import AlertState, one_of
from core.postgres.database import Base


class AlertEndpoint(Base):
    """A tenant's endpoint for alerts. `secret` signs them (Standard Webhooks) and is shown once."""

    __tablename__ = "alert_endpoints"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    secret: Mapped[bytes] = mapped_column(LargeBinary)
    previous_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    enabled: Mapped[bool] = mapped_column(Boolean, server_default="true")
    created_ms: Mapped[int] = mapped_column(BigInteger)


class Alert(Base):
    """A level that was reached, stored once: `key` names subject, meter, window, level and the limit's version."""

    __tablename__ = "alerts"
    __table_args__ = (
        Index("uq_alerts_key", "tenant_id", "key", unique=True),
        CheckConstraint(one_of("state", AlertState), "state"),
        Index(None, "due_ms", postgresql_where="state = 'pending'"),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    """The type sent to the endpoint, such as `usage.threshold_reached`."""
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(Text)
    """`AlertState` of its delivery."""
    tries: Mapped[int] = mapped_column(server_default="0")
    due_ms: Mapped[int | None] = mapped_column(BigInteger)


class AlertDelivery(Base):
    """One attempt to deliver an alert."""

    __tablename__ = "alert_deliveries"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    alert_id: Mapped[UUID] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[int | None]
    """The HTTP status; None when there was no answer."""
    error: Mapped[str | None] = mapped_column(Text)
    took_ms: Mapped[int] = mapped_column(BigInteger)
