"""The double-entry ledger: one row per movement of money or debt, a column per account."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from billing.models.keys import tenant_key
from billing.models.states import LedgerEntryKind, one_of
from core.postgres.database import Base

ACCOUNTS = ("receivable", "revenue", "gst_payable", "cash", "customer_credit", "write_off")
"""`cash`: money at Razorpay. `customer_credit`: the customer's money that no bill has used, to be used or refunded."""


class LedgerEntry(Base):
    """One movement, in paise: debits are positive, credits negative, and the accounts add up to zero. Never changed."""

    __tablename__ = "ledger_entries"
    __table_args__ = (
        CheckConstraint(one_of("kind", LedgerEntryKind), "kind"),
        CheckConstraint(f"{' + '.join(ACCOUNTS)} = 0", "balanced"),
        tenant_key("ledger_entries", "bill_id", "bills.id"),
        tenant_key("ledger_entries", "payment_id", "payments.razorpay_id"),
        tenant_key("ledger_entries", "refund_id", "refunds.id"),
        Index("uq_ledger_entries_reference", "tenant_id", "reference", unique=True),
        Index(None, "tenant_id", "bill_id"),
        Index(None, "at_ms"),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(Text)
    reference: Mapped[str] = mapped_column(Text)
    """The movement that it explains, once per tenant: `bill:<id>`, `payment:<id>:<bill>`, `refund:<id>` ..."""
    bill_id: Mapped[UUID | None]
    payment_id: Mapped[str | None] = mapped_column(Text)
    refund_id: Mapped[UUID | None]
    receivable: Mapped[int] = mapped_column(BigInteger, server_default="0")
    revenue: Mapped[int] = mapped_column(BigInteger, server_default="0")
    gst_payable: Mapped[int] = mapped_column(BigInteger, server_default="0")
    cash: Mapped[int] = mapped_column(BigInteger, server_default="0")
    customer_credit: Mapped[int] = mapped_column(BigInteger, server_default="0")
    write_off: Mapped[int] = mapped_column(BigInteger, server_default="0")
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default="{}")
