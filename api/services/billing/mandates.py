"""A tenant's mandate: authorise, check, cancel; and the operator's view of all of them.

A wish is stored first and sent to Razorpay at once, so that the answer has the link to authorise. Razorpay down: the
worker sends it later. The operator's cancel is left to the worker.
"""

from uuid import UUID

from api.schemas.billing.mandates import MandateItem, MandateView, NewMandate, TenantMandate
from api.schemas.pages import Page
from api.services.accounts.lookups import list_newest, operated_tenant, own_tenant
from api.services.billing import razorpay_later
from api.services.context import ServiceContext
from billing.mandates import mandates
from billing.mandates.push import push_mandate
from billing.mandates.sync import refresh_mandate
from billing.models import Mandate
from billing.models.states import MandateState
from core.errors import Invalid
from core.logs import get_logger

log = get_logger(__name__)


async def find_mandate(context: ServiceContext) -> MandateView:
    """The active mandate, and the one to authorise."""
    tenant_id = own_tenant(context)
    async with context.transaction() as session:
        active = await mandates.active_mandate(session, tenant_id)
        waiting = await mandates.waiting_mandate(session, tenant_id)
        try:
            allowed_paise = await mandates.allowed_paise(session, tenant_id)
        except Invalid:
            allowed_paise = None
    return MandateView(
        active=None if active is None else MandateItem.of(active, is_own=True),
        waiting=None if waiting is None else MandateItem.of(waiting, is_own=True),
        allowed_paise=allowed_paise,
    )


async def register_mandate(context: ServiceContext, new: NewMandate) -> MandateView:
    """Asks for a mandate; idempotent. Raises Invalid, Conflict.

    Without `pay_url` Razorpay hasn't answered yet: ask again in a minute.
    """
    tenant_id = own_tenant(context)
    row = await mandates.register_mandate(
        context.billing,
        context.actor,
        tenant_id,
        method=new.method,
        contact=new.contact,
        max_paise=new.max_paise,
    )
    await _send(context, row)
    async with context.transaction() as session:
        row = await session.get_one(Mandate, (tenant_id, row.id))
    if row.state == MandateState.VOID:
        log.warning("mandate_refused", mandate=str(row.id), error=row.error)
        raise Invalid("Razorpay refuses this mandate: the operator of this service can see why")
    return await find_mandate(context)


async def check_mandate(context: ServiceContext) -> MandateView:
    """Fetches the mandate to authorise, or else the active one, from Razorpay."""
    tenant_id = own_tenant(context)
    async with context.transaction() as session:
        row = await mandates.waiting_mandate(session, tenant_id) or await mandates.active_mandate(session, tenant_id)
    if row is not None:
        with razorpay_later(mandate=row.id):
            await refresh_mandate(context.billing, tenant_id, row.id)
    return await find_mandate(context)


async def end_mandate(context: ServiceContext) -> MandateView:
    """Cancels the mandate to authorise, or else the active one. Raises NotFound."""
    tenant_id = own_tenant(context)
    row = await mandates.end_mandate(context.billing, context.actor, tenant_id, reason="the tenant's wish")
    await _send(context, row)
    return await find_mandate(context)


async def list_mandates(
    context: ServiceContext,
    *,
    tenant: UUID | str | None = None,
    state: str | None = None,
    before: UUID | None = None,
    size: int,
) -> Page[TenantMandate]:
    """Mandates, ended ones too, newest first. Raises NotFound for the tenant."""
    return await list_newest(context, TenantMandate, Mandate, tenant, before=before, size=size, state=state)


async def end_for_tenant(context: ServiceContext, tenant: UUID | str, reason: str) -> TenantMandate:
    """Cancels a tenant's mandate for its operator. Raises NotFound."""
    tenant_id = await operated_tenant(context, tenant)
    return TenantMandate.of(await mandates.end_mandate(context.billing, context.actor, tenant_id, reason=reason))


async def _send(context: ServiceContext, row: Mandate) -> None:
    """Sends a stored wish to Razorpay; after an error the worker does."""
    with razorpay_later(mandate=row.id):
        await push_mandate(context.billing, row.tenant_id, row.id)
