"""Wallets of tenants on prepaid plans. A balance is the sum of entries, less the price of periods not closed yet."""

from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from billing.models.keys import tenant_key
from billing.models.states import WalletEntryKind, one_of
from core.postgres.database import Base


class WalletEntry(Base):
    """A movement of a wallet, before tax; never changed. Positive: added."""

    __tablename__ = "wallet_entries"
    __table_args__ = (
        CheckConstraint(one_of("kind", WalletEntryKind), "kind"),
        tenant_key("wallet_entries", "bill_id", "bills.id"),
        tenant_key("wallet_entries", "of_id", "wallet_entries.id"),
        Index("uq_wallet_entries_reference", "tenant_id", "reference", unique=True),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    paise: Mapped[int] = mapped_column(BigInteger)
    reference: Mapped[str] = mapped_column(Text)
    """Its cause, once per tenant: `top-up:<bill>`, `usage:<period>:<bill>`, `coupon:<code>` ..."""
    expires_ms: Mapped[int | None] = mapped_column(BigInteger)
    of_id: Mapped[UUID | None]
    """The entry that an expiry or a refund takes from."""
    bill_id: Mapped[UUID | None]
    period_id: Mapped[str | None] = mapped_column(Text)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(Text, server_default="")


class WalletSettings(Base):
    """The bounds of a tenant's low-balance alert and automatic top-ups. Amounts before tax."""

    __tablename__ = "wallet_settings"
    __table_args__ = (
        CheckConstraint("low_paise >= 0", "low_paise"),
        CheckConstraint("(top_up_below_paise IS NULL) = (top_up_paise IS NULL)", "top_up"),
        CheckConstraint("top_up_below_paise >= 0 AND top_up_paise > 0", "top_up_amounts"),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    low_paise: Mapped[int | None] = mapped_column(BigInteger)
    """An alert is sent below this balance. None: no alert."""
    top_up_below_paise: Mapped[int | None] = mapped_column(BigInteger)
    top_up_paise: Mapped[int | None] = mapped_column(BigInteger)


class Coupon(Base):
    """A code that gives promotional credit, once per tenant. `credit_days`: its credit expires so many days later."""

    __tablename__ = "coupons"
    __table_args__ = (
        CheckConstraint("paise > 0", "paise"),
        CheckConstraint("credit_days > 0", "credit_days"),
        CheckConstraint("uses >= 0 AND uses <= coalesce(max_uses, uses)", "uses"),
    )

    code: Mapped[str] = mapped_column(Text, primary_key=True)
    paise: Mapped[int] = mapped_column(BigInteger)
    credit_days: Mapped[int | None]
    expires_ms: Mapped[int | None] = mapped_column(BigInteger)
    max_uses: Mapped[int | None]
    uses: Mapped[int] = mapped_column(server_default="0")
    created_ms: Mapped[int] = mapped_column(BigInteger)
