"""The operator's view of tenants: this month's figures, and everything that billing knows of one tenant."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from api.schemas.accounts.privacy import AuditItem
from api.schemas.accounts.tenants import TenantItem
from billing.models import Bill, BillingFinding, BillingPeriod, Payment, Subscription
from billing.standing.status import MoneyStatus


@dataclass(frozen=True, slots=True)
class MonthFigures:
    """Requests, provider's cost and amounts billed before tax, in the current month."""

    requests: int = 0
    cost_nano_usd: int = 0
    billed_paise: int = 0


@dataclass(frozen=True, slots=True)
class TenantSummary:
    """A tenant in a list; `subscription`: Razorpay's status of its newest one."""

    tenant: TenantItem
    subscription: str | None
    month: MonthFigures


@dataclass(frozen=True, slots=True)
class TenantSummaries:
    """A page of tenants, newest first, and the codes of the plans on offer."""

    items: list[TenantSummary]
    next: UUID | None
    plans: list[str]


@dataclass(frozen=True, slots=True)
class TenantOverview:
    """A tenant with its latest rows of each kind. `margin_paise`: billed less cost, None without an exchange rate."""

    tenant: TenantItem
    users: int
    month: MonthFigures
    margin_paise: int | None
    standing: MoneyStatus
    subscriptions: Sequence[Subscription]
    periods: Sequence[BillingPeriod]
    bills: Sequence[Bill]
    payments: Sequence[Payment]
    findings: Sequence[BillingFinding]
    """Open ones."""
    audit: list[AuditItem]
    plans: list[str]
