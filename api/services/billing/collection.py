"""Charges, refunds and findings about money, for platform admins: lists, and the operator's decisions.

The link that a charge is paid by is shown to the tenant's admin only (`api.services.billing.bills`).
"""

from uuid import UUID

from api.schemas.billing.collection import ChargeItem, FindingItem, RefundItem
from api.schemas.pages import Page, page
from api.services.accounts.lookups import list_newest
from api.services.context import ServiceContext
from billing.collection import charges
from billing.findings import close_finding as close_row
from billing.findings import list_findings as list_rows
from billing.models import Charge, Refund
from billing.payments import refunds
from core.tenancy.principal import Scope


async def list_charges(
    context: ServiceContext,
    *,
    tenant: UUID | str | None = None,
    bill_id: UUID | None = None,
    state: str | None = None,
    instrument: str | None = None,
    before: UUID | None = None,
    size: int,
) -> Page[ChargeItem]:
    """Attempts to collect bills, newest first. Raises NotFound for the tenant."""
    context.require(Scope.PLATFORM_ADMIN)
    wanted = {"bill_id": bill_id, "state": state, "instrument": instrument}
    return await list_newest(context, ChargeItem, Charge, tenant, before=before, size=size, **wanted)


async def retry_charge(context: ServiceContext, charge_id: UUID, reason: str) -> ChargeItem:
    """Voids a failed charge, so that the next one is created. Raises NotFound, Conflict."""
    context.require(Scope.PLATFORM_ADMIN)
    return ChargeItem.of(await charges.retry_failed_charge(context.billing, context.actor, charge_id, reason=reason))


async def list_refunds(
    context: ServiceContext,
    *,
    tenant: UUID | str | None = None,
    state: str | None = None,
    before: UUID | None = None,
    size: int,
) -> Page[RefundItem]:
    """Refunds, newest first. Raises NotFound for the tenant."""
    context.require(Scope.PLATFORM_ADMIN)
    return await list_newest(context, RefundItem, Refund, tenant, before=before, size=size, state=state)


async def decide_refund(context: ServiceContext, refund_id: UUID, reason: str, *, approve: bool) -> RefundItem:
    """Approves or denies a refund above the cap. Raises NotFound, Conflict."""
    context.require(Scope.PLATFORM_ADMIN)
    decided = await refunds.decide_refund(context.billing, context.actor, refund_id, approve=approve, reason=reason)
    return RefundItem.of(decided)


async def send_refund_again(context: ServiceContext, refund_id: UUID, reason: str) -> RefundItem:
    """Sends a failed refund again, as a new one. Raises NotFound, Conflict."""
    context.require(Scope.PLATFORM_ADMIN)
    return RefundItem.of(await refunds.send_again(context.billing, context.actor, refund_id, reason=reason))


async def list_findings(
    context: ServiceContext, *, closed: bool = False, before: str | None = None, size: int
) -> Page[FindingItem]:
    """Open findings, or closed ones, newest first."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        rows = await list_rows(session, closed=closed, before=before, limit=size + 1)
    return page(rows, size, FindingItem.of, lambda finding: finding.key)


async def close_finding(context: ServiceContext, key: str, reason: str) -> FindingItem:
    """Closes a reviewed finding; idempotent. Raises NotFound."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        return FindingItem.of(await close_row(session, context.actor, key, reason))
