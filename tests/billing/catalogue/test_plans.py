"""Versions of plans: one on offer at a time, kept by those who have it."""

import pytest
from sqlalchemy import select

from billing.catalogue.plans import (
    PlanNotOffered,
    Price,
    find_plan,
    give_default_plan,
    list_plans,
    offer_plan,
    offered_plans,
    publish_plan,
    put_on_plan,
    withdraw_plan,
)
from billing.rating.overage import Meter, MeterTerms, PastAllowance, Terms
from billing.subscriptions.intents import cancel_subscription, subscribe
from core.errors import Invalid, NotFound
from core.tenancy.accounts import create_tenant
from core.tenancy.models import AuditEntry, Tenant
from metering.quota.limits import PlanLimits
from tests.billing.signup import ACTOR, Signup

PRICE = Price(300_000, Terms((), PastAllowance.BLOCK))


async def _publish(signup: Signup, *, draft: bool = False, code: str = "team") -> int:
    async with signup.context.database.session() as session:
        plan = await publish_plan(session, ACTOR, code=code, name="Team", limits=PlanLimits(), price=PRICE, draft=draft)
        return plan.version


async def _states(signup: Signup, code: str = "team") -> list[str]:
    async with signup.context.database.session() as session:
        return [plan.state for plan in await list_plans(session) if plan.code == code]


async def test_publishing_withdraws_the_version_on_offer(signup: Signup) -> None:
    assert await _states(signup) == ["offered"]
    await _publish(signup)
    assert await _states(signup) == ["withdrawn", "offered"]
    async with signup.context.database.session() as session:
        assert [plan.version for plan in await offered_plans(session) if plan.code == "team"] == [2]


async def test_a_draft_changes_no_offer_until_it_is_offered(signup: Signup) -> None:
    await _publish(signup, draft=True)
    assert await _states(signup) == ["offered", "draft"]
    async with signup.context.database.session() as session:
        assert (await find_plan(session, "team")).version == 1, "the default is what is on offer"
        await offer_plan(session, ACTOR, "team", 2)
        await offer_plan(session, ACTOR, "team", 2)
    assert await _states(signup) == ["withdrawn", "offered"]
    async with signup.context.database.session() as session:
        await offer_plan(session, ACTOR, "team", 1)
        done = list(await session.scalars(select(AuditEntry.action).where(AuditEntry.action == "plan.offer")))
    assert await _states(signup) == ["offered", "withdrawn"]
    assert len(done) == 2, "the repeat changed nothing"


async def test_what_is_not_offered_cannot_be_chosen_by_newcomers(signup: Signup) -> None:
    await _publish(signup, draft=True)
    with pytest.raises(PlanNotOffered, match="not offered yet"):
        await subscribe(signup.context, ACTOR, signup.tenant_id, "team", 2)
    async with signup.context.database.session() as session:
        await withdraw_plan(session, ACTOR, "team", 1)
    with pytest.raises(PlanNotOffered, match="not offered any more"):
        await subscribe(signup.context, ACTOR, signup.tenant_id, "team", 1)
    assert await signup.subscriptions() == []


async def test_a_tenant_renews_the_withdrawn_version_that_it_has(signup: Signup) -> None:
    await signup.subscribed()
    async with signup.context.database.session() as session:
        await withdraw_plan(session, ACTOR, "team", 1)
    await cancel_subscription(signup.context, ACTOR, signup.tenant_id, at_period_end=True, reason="a wish")

    again = await subscribe(signup.context, ACTOR, signup.tenant_id, "team", 1)

    assert again.is_new
    assert again.subscription_id


async def test_a_wish_from_before_the_withdrawal_can_still_be_authorised(signup: Signup) -> None:
    row = await signup.request()
    async with signup.context.database.session() as session:
        await withdraw_plan(session, ACTOR, "team", 1)
    assert (await subscribe(signup.context, ACTOR, signup.tenant_id, "team", 1)).subscription_id == row.id


async def test_a_tenant_gets_the_default_plan_once_and_keeps_another(signup: Signup) -> None:
    await _publish(signup, code="basic")
    async with signup.context.database.session() as session:
        tenant = await create_tenant(session, ACTOR, slug="new", name="New")
        await give_default_plan(session, ACTOR, tenant.id, "", signup.context.zone)
        assert tenant.plan_code is None
        with pytest.raises(NotFound):
            await give_default_plan(session, ACTOR, tenant.id, "nowhere", signup.context.zone)
        await give_default_plan(session, ACTOR, tenant.id, "basic", signup.context.zone)
        await put_on_plan(session, ACTOR, tenant.id, await find_plan(session, "team"), signup.context.zone)
        await give_default_plan(session, ACTOR, tenant.id, "basic", signup.context.zone)
        found = await session.get_one(Tenant, tenant.id, populate_existing=True)
        assert (found.plan_code, found.plan_version) == ("team", 1)


@pytest.mark.parametrize(
    ("price", "says"),
    [
        (Price(0, Terms((), PastAllowance.BLOCK), threshold_paise=100_000), "bills overage"),
        (
            Price(0, Terms((MeterTerms(Meter.SPEND, 0, 1),), PastAllowance.BILL, 1_000), threshold_paise=99),
            "at least 100 paise",
        ),
    ],
)
async def test_a_threshold_that_cannot_be_is_refused(signup: Signup, price: Price, says: str) -> None:
    async with signup.context.database.session() as session:
        with pytest.raises(Invalid, match=says):
            await publish_plan(session, ACTOR, code="odd", name="Odd", limits=PlanLimits(), price=price)
