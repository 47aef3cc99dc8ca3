"""What `naka up` puts into a database that is new, or that an earlier version made."""

from collections.abc import AsyncIterator
from zoneinfo import ZoneInfo

import pytest

from api.cli.processes.demo import demo_keys
from billing.catalogue.plans import find_plan, list_plans, publish_plan, put_on_plan
from billing.catalogue.profiles import find_profile, find_supplier
from core.postgres.database import Database
from core.tenancy.accounts import create_tenant, find_tenant
from core.tenancy.audit import Actor
from metering.quota.limits import PlanLimits

ACTOR, ZONE = Actor("test"), ZoneInfo("Asia/Kolkata")
CATALOGUE = [("free", 1), ("metered", 1), ("prepaid", 1), ("starter", 1), ("team", 1)]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    yield made
    await made.close()


async def _seen(database: Database) -> tuple[list[tuple[str, int]], str | None, bool]:
    """The plans, the demo's own, and whether there are both parties of a bill."""
    async with database.session() as session:
        demo = await find_tenant(session, "demo")
        parties = (await find_supplier(session), await find_profile(session, demo.id))
        return [(plan.code, plan.version) for plan in await list_plans(session)], demo.plan_code, None not in parties


@pytest.mark.slow
async def test_a_new_database_has_the_catalogue_once(database: Database) -> None:
    keys = await demo_keys(database, {}, ZONE)
    assert await _seen(database) == (CATALOGUE, "free", True)
    assert await demo_keys(database, keys, ZONE) == keys
    assert (await demo_keys(database, {}, ZONE)).keys() == keys.keys()
    assert await _seen(database) == (CATALOGUE, "free", True)


@pytest.mark.slow
async def test_an_older_home_gets_the_catalogue_and_keeps_its_plan(database: Database) -> None:
    async with database.session() as session:
        plan = await publish_plan(session, ACTOR, code="demo", name="Demo", limits=PlanLimits())
        tenant = await create_tenant(session, ACTOR, slug="demo", name="Demo")
        await put_on_plan(session, ACTOR, tenant.id, plan, ZONE)
    await demo_keys(database, {}, ZONE)
    assert await _seen(database) == ([("demo", 1), *CATALOGUE], "demo", True)


async def test_a_plan_of_the_operators_own_is_left_alone(database: Database) -> None:
    async with database.session() as session:
        await publish_plan(session, ACTOR, code="free", name="Mine", limits=PlanLimits())
    await demo_keys(database, {}, ZONE)
    async with database.session() as session:
        assert (await find_plan(session, "free")).name == "Mine"
    assert await _seen(database) == (CATALOGUE, "free", True)
