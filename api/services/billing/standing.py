"""The status of a tenant's money, for its pages, the API and the command line, and of all that are late."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select

from api.schemas.billing.standing import AccountStatus
from api.services.accounts.lookups import own_tenant, reach_tenant
from api.services.context import ServiceContext
from billing.razorpay.errors import RazorpayError
from billing.standing.reader import money_status, tenants_in_arrears
from billing.standing.refresh import refresh_payments
from billing.standing.status import MoneyStatus
from billing.standing.words import Said, say
from billing.subscriptions.intents import live_of, subscriptions_of
from core.clock import now_ms
from core.logs import get_logger
from core.tenancy.models import Tenant
from core.tenancy.principal import Scope

log = get_logger(__name__)

_ARREARS = 50
"""Tenants that the operator's overview lists."""


@dataclass(frozen=True, slots=True)
class Arrears:
    """A tenant that is late, and the words of its status."""

    tenant: Tenant
    status: MoneyStatus
    said: Said


async def find_status(context: ServiceContext) -> AccountStatus:
    """The status of the caller's tenant. Raises NotFound for an operator without one, Unavailable."""
    tenant_id = own_tenant(context)
    return _item(tenant_id, await standing_of(context, tenant_id), context)


async def find_tenant_status(context: ServiceContext, tenant: UUID | str) -> AccountStatus:
    """The status of a tenant within the caller's reach. Raises NotFound, Forbidden, Unavailable."""
    async with context.transaction() as session:
        tenant_id = (await reach_tenant(context, session, tenant)).id
        status = await money_status(session, tenant_id, now_ms())
    return _item(tenant_id, status, context)


async def standing_of(context: ServiceContext, tenant_id: UUID) -> MoneyStatus:
    """The status of a tenant that the caller belongs to, whatever its scopes. Raises Unavailable."""
    async with context.own.transaction() as session:
        return await money_status(session, tenant_id, now_ms())


async def check_payments(context: ServiceContext, tenant_id: UUID) -> MoneyStatus:
    """Asks Razorpay about what the caller's tenant owes, and returns the status after that.

    So a payment shows at once, also when its webhook is late. Razorpay down: the status as it was. Raises Unavailable.
    """
    await refresh_payments(context.billing, tenant_id)
    return await standing_of(context, tenant_id)


async def find_fee_page(context: ServiceContext) -> str | None:
    """Razorpay's page of the unpaid fee: of its invoice, else of the subscription. None: nothing is unpaid.

    Raises Unavailable.
    """
    tenant_id = own_tenant(context)
    async with context.transaction() as session:
        row = live_of(await subscriptions_of(session, tenant_id))
    if row is None or row.razorpay_id is None:
        return None
    try:
        invoices = await context.billing.razorpay.invoices_of(row.razorpay_id)
    except RazorpayError as error:
        log.info("invoices_not_read", tenant_id=str(tenant_id), error=str(error))
        return row.short_url
    unpaid = [one for one in invoices if one.status == "issued" and one.short_url]
    newest = max(unpaid, key=lambda one: one.billing_start or 0, default=None)
    return row.short_url if newest is None else newest.short_url


async def list_arrears(context: ServiceContext) -> list[Arrears]:
    """Tenants that are late, the largest sum first; at most 50."""
    at_ms = now_ms()
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        ids = await tenants_in_arrears(session, at_ms, limit=_ARREARS, largest_first=True)
        found = await session.scalars(select(Tenant).where(Tenant.id.in_(ids)))
        late = [(tenant, await money_status(session, tenant.id, at_ms)) for tenant in found.all()]
    late = [(tenant, status) for tenant, status in late if status.needs_payment]
    late.sort(key=lambda one: -one[1].overdue_paise)
    return [Arrears(tenant, status, say(status, context.zone)) for tenant, status in late]


def _item(tenant_id: UUID, status: MoneyStatus, context: ServiceContext) -> AccountStatus:
    return AccountStatus(
        tenant_id=tenant_id,
        state=status.state,
        text=say(status, context.zone).whole,
        plan=status.plan,
        since=status.since_ms,
        until=status.until_ms,
        due_paise=status.due_paise,
        overdue_paise=status.overdue_paise,
        due_by=status.due_by_ms,
        access=status.now.access.value,
        refusal=status.now.code,
        limits_of=status.now.plan,
        limited_from=None if status.later is None else status.later.from_ms,
        retries_at=status.retry_ms,
        balance_paise=status.balance_paise,
        pay_url=status.pay_url,
    )
