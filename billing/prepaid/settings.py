"""The bounds of a tenant's low-balance alert and of its automatic top-ups. Postgres down: Unavailable."""

from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from billing.catalogue.profiles import supply_for
from billing.catalogue.razorpay_plans import MANDATE_PAISE
from billing.gst.tax import gross_of
from billing.models import WalletSettings
from billing.prepaid.top_ups import MIN_PAISE
from core.errors import Invalid
from core.tenancy.audit import Actor, record


async def find_settings(session: AsyncSession, tenant_id: UUID) -> WalletSettings:
    """The tenant's settings; nothing is set by default."""
    found = await session.get(WalletSettings, tenant_id, populate_existing=True)
    return found or WalletSettings(tenant_id=tenant_id, low_paise=None, top_up_below_paise=None, top_up_paise=None)


async def set_settings(
    session: AsyncSession,
    actor: Actor,
    tenant_id: UUID,
    *,
    low_paise: int | None,
    top_up_below_paise: int | None,
    top_up_paise: int | None,
) -> WalletSettings:
    """Replaces them. Raises Invalid for an automatic top-up that no mandate can pay without the customer."""
    if (top_up_below_paise is None) is not (top_up_paise is None):
        raise Invalid("an automatic top-up needs both amounts: below which balance, and how much")
    if top_up_paise is not None:
        gross_paise = gross_of(top_up_paise, await supply_for(session, tenant_id))
        if top_up_paise < MIN_PAISE or gross_paise > MANDATE_PAISE:
            most = f"{MANDATE_PAISE // 100} rupees with GST"
            raise Invalid(f"an automatic top-up is of {MIN_PAISE // 100} rupees or more, and at most {most}")
    values = {"low_paise": low_paise, "top_up_below_paise": top_up_below_paise, "top_up_paise": top_up_paise}
    statement = insert(WalletSettings).values(tenant_id=tenant_id, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["tenant_id"], set_=values))
    record(session, actor, "wallet.settings", tenant_id=tenant_id, target=f"tenant:{tenant_id}", after=values)
    return await find_settings(session, tenant_id)
