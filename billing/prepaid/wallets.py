"""The duty WALLETS: gives up unpaid top-ups, expires credit, divides balances at boundaries, tops up automatically.

Every step is idempotent, and a failing tenant doesn't stop the others. Postgres down: Unavailable.
"""

from uuid import UUID

from sqlalchemy import Select, and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.projection import project
from billing.catalogue.profiles import supply_for
from billing.context import BillingContext
from billing.gst.tax import gross_of
from billing.invoicing.prepaid_bills import AUTOMATIC
from billing.mandates.mandates import mandate_for
from billing.models import Bill, BillingPeriod, Charge, WalletSettings
from billing.models.states import BillKind, BillState, PeriodState
from billing.prepaid.expiry import expire_credit, with_expired_credit
from billing.prepaid.top_ups import give_up_unpaid, open_top_ups, prepaid_plan, top_up
from billing.wallet.bounds import IS_PREPAID, unused_paise
from billing.wallet.funds import NEAR_MS
from billing.writes import for_each_key
from core.clock import DAY_MS, now_ms
from core.tenancy.audit import Actor

AFTER_FAILURE_MS = DAY_MS
"""Time after an automatic top-up that failed until the next is tried."""
_ACTOR = Actor("worker:wallets")


async def run_wallets(context: BillingContext) -> None:
    """One run. Raises Unavailable."""
    await give_up_unpaid(context)
    await for_each_key(context, with_expired_credit(now_ms()), expire_credit, "wallet_expiry")
    await for_each_key(context, _near_a_boundary(now_ms()), _divide, "wallet_division")
    refilled = select(WalletSettings.tenant_id).where(WalletSettings.top_up_paise.is_not(None))
    await for_each_key(context, refilled, _refill, "wallet_refill")


def _near_a_boundary(at_ms: int) -> Select[UUID]:
    """Tenants whose running prepaid period ends soon, or has ended and isn't closed."""
    return (
        select(BillingPeriod.tenant_id)
        .distinct()
        .where(IS_PREPAID, BillingPeriod.state == PeriodState.OPEN, BillingPeriod.ends_ms < at_ms + NEAR_MS)
    )


async def _divide(context: BillingContext, tenant_id: UUID) -> None:
    """Projects, which divides what is left between the ending period and the next."""
    async with context.tenant_transaction(tenant_id) as session:
        await project(session, context.zone, tenant_id, now_ms())


async def _refill(context: BillingContext, tenant_id: UUID) -> None:
    """Tops up by the mandate, if the balance is below the tenant's bound and nothing is on its way."""
    at_ms = now_ms()
    async with context.database.session() as session:
        wanted = await session.get_one(WalletSettings, tenant_id)
        paise, below_paise = wanted.top_up_paise or 0, wanted.top_up_below_paise or 0
        if await unused_paise(session, tenant_id, at_ms) >= below_paise:
            return
        if any(bill.reason == AUTOMATIC for bill in await open_top_ups(session, tenant_id)):
            return
        if await prepaid_plan(session, tenant_id, at_ms) is None:
            return
        gross_paise = gross_of(paise, await supply_for(session, tenant_id))
        mandate = await mandate_for(session, tenant_id, gross_paise)
        if mandate is None or await _failed_lately(session, tenant_id, at_ms):
            return
    await top_up(context, _ACTOR, tenant_id, paise, automatic=True, below_paise=below_paise)


async def _failed_lately(session: AsyncSession, tenant_id: UUID, at_ms: int) -> bool:
    its = and_(Charge.tenant_id == Bill.tenant_id, Charge.bill_id == Bill.id)
    query = (
        select(Bill.id)
        .outerjoin(Charge, its)
        .where(Bill.tenant_id == tenant_id, Bill.kind == BillKind.RECEIPT_VOUCHER, Bill.state == BillState.VOID)
        .where(Bill.reason.startswith(AUTOMATIC))
        .where(func.coalesce(Charge.ended_ms, Bill.created_ms) > at_ms - AFTER_FAILURE_MS)
    )
    return await session.scalar(query.limit(1)) is not None
