"""The tenant's billing profile, and what it may subscribe to."""

from typing import Self
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.access import RuntimeDep, TenantAdmin, actor_of
from api.routes.admin.plans import MeterPrice
from api.routes.admin.profiles import ProfileBody, ProfileItem
from billing.catalogue.plans import list_plans
from billing.catalogue.profiles import find_profile, set_profile, supply_for
from billing.gst.tax import Supply, gross_of
from billing.models import Plan
from billing.rating.overage import PastAllowance
from core.errors import Invalid
from core.tenancy.audit import record_read

router = APIRouter()


class Offer(BaseModel):
    """The newest version of a plan. `gross_paise`: with the tenant's tax, once its profile is known."""

    code: str
    version: int
    name: str
    base_paise: int
    gross_paise: int | None
    meters: list[MeterPrice]
    past_allowance: PastAllowance
    ceiling_paise: int | None
    trial_days: int

    @classmethod
    def of(cls, plan: Plan, supply: Supply | None) -> Self:
        """As it is answered."""
        shown = {name: getattr(plan, name) for name in cls.model_fields if hasattr(plan, name)}
        gross_paise = None if supply is None else gross_of(plan.base_paise, supply)
        return cls.model_validate(shown | {"gross_paise": gross_paise})


@router.get("/profile")
async def my_profile(principal: TenantAdmin, runtime: RuntimeDep, request: Request) -> ProfileItem | None:
    """What stands on your bills as the customer; null before it was set."""
    async with runtime.database.session(tenant_id=principal.tenant_id) as session:
        profile = await find_profile(session, principal.tenant_id)
        target = f"tenant:{principal.tenant_id}"
        actor = actor_of(request, principal)
        record_read(session, actor, "profile", tenant_id=principal.tenant_id, target=target)
    return None if profile is None else ProfileItem.of(profile)


@router.put("/profile")
async def put_profile(body: ProfileBody, principal: TenantAdmin, runtime: RuntimeDep, request: Request) -> ProfileItem:
    """Set what stands on your bills. It is copied onto each bill when that is made: earlier bills stay as they are."""
    async with runtime.database.session(tenant_id=principal.tenant_id) as session:
        actor = actor_of(request, principal)
        return ProfileItem.of(await set_profile(session, actor, principal.tenant_id, body.as_profile()))


@router.get("/plans")
async def offers(principal: TenantAdmin, runtime: RuntimeDep) -> list[Offer]:
    """The plans that cost something, each in its newest version."""
    async with runtime.database.session(tenant_id=principal.tenant_id) as session:
        newest = {plan.code: plan for plan in await list_plans(session)}
        supply = await _supply_or_none(session, principal.tenant_id)
    return [Offer.of(plan, supply) for plan in newest.values() if plan.base_paise]


async def _supply_or_none(session: AsyncSession, tenant_id: UUID) -> Supply | None:
    try:
        return await supply_for(session, tenant_id)
    except Invalid:
        return None
