"""Plans: versions that are published and never edited. The operator's alone."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from api.routes.access import PlatformAdmin, RuntimeDep, actor_of
from api.routes.admin.fields import Body, Slug, Text, example
from api.routes.admin.limits import LimitItem, Limits
from api.routes.admin.pages import DEFAULT_SIZE, Page, PageSize, page
from billing.models import Plan
from billing.plans import list_plans, plan_version, publish_plan
from metering.limits import PlanLimits

router = APIRouter()


class NewPlan(Body):
    """The next version of plan `code`: the default limits of each user, and of the tenant as a whole."""

    model_config = example(
        code="team",
        name="Team",
        user={"limits": [{"meter": "tokens", "window": "day", "limit": 200_000}], "concurrency": 2},
        tenant={"limits": [{"meter": "spend", "window": "period", "limit": 100_000_000}], "concurrency": 20},
    )

    code: Slug
    name: Text
    user: Limits = Limits(limits=[])
    tenant: Limits = Limits(limits=[])

    def as_limits(self) -> PlanLimits:
        """As metering takes it."""
        return PlanLimits(user=self.user.as_set(), tenant=self.tenant.as_set())


class PlanLimitsItem(BaseModel):
    """A set of limits that a plan gives."""

    limits: list[LimitItem]
    concurrency: int | None


class PlanItem(BaseModel):
    """A version of a plan."""

    code: str
    version: int
    name: str
    user: PlanLimitsItem
    tenant: PlanLimitsItem
    created_at: datetime

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """As it is answered."""
        limits = msgspec.to_builtins(msgspec.convert(plan.limits, PlanLimits))
        return cls.model_validate(
            {"code": plan.code, "version": plan.version, "name": plan.name, "created_at": plan.created_at, **limits}
        )


PlanCursor = Annotated[
    str | None,
    Query(
        description="`next` of the page before",
        pattern=r"^[a-z0-9-]{1,63}@[1-9][0-9]{0,8}$",
        examples=["team@2"],
    ),
]


@router.get("/plans")
async def all_plans(
    _: PlatformAdmin, runtime: RuntimeDep, cursor: PlanCursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[PlanItem]:
    """Every version of every plan, by code and version."""
    async with runtime.database.session() as session:
        rows = await list_plans(session)
    return page(_after(rows, cursor)[: size + 1], size, PlanItem.of, plan_version)


def _after(plans: Sequence[Plan], cursor: str | None) -> list[Plan]:
    ordered = sorted(plans, key=_place)
    if cursor is None:
        return ordered
    code, _, version = cursor.rpartition("@")
    return [plan for plan in ordered if _place(plan) > (code, int(version))]


def _place(plan: Plan) -> tuple[str, int]:
    return plan.code, plan.version


@router.post("/plans", status_code=201)
async def new_plan(body: NewPlan, principal: PlatformAdmin, runtime: RuntimeDep, request: Request) -> PlanItem:
    """Publish a plan, or its next version. Tenants stay on the version they are on."""
    actor = actor_of(request, principal)
    async with runtime.database.session() as session:
        plan = await publish_plan(session, actor, code=body.code, name=body.name, limits=body.as_limits())
    await runtime.changes.publish(None)
    return PlanItem.of(plan)
