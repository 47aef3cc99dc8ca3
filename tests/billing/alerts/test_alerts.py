"""Alerts from the rollup, meters, terms and limits, each stored once."""

import asyncio
from dataclasses import replace
from datetime import date
from uuid import UUID

import pytest
from sqlalchemy import select, update

from billing.alerts.alerts import store_alerts
from billing.context import BillingContext
from billing.models import Alert, BillingPeriod, WalletSettings
from billing.models.states import WalletEntryKind
from billing.rating.overage import Meter, MeterTerms, PastAllowance, Terms
from billing.wallet.entries import add_entry
from core.clock import now_ms, to_datetime
from core.ids import uuid7
from core.tenancy.audit import Actor
from metering.admission.entitlements import project_entitlement, set_limits
from metering.models import UsageDaily
from metering.quota.limits import Limit, LimitSet, PlanLimits
from metering.quota.limits import Meter as Limited
from metering.quota.schedule import Period, Refusal, Schedule, Segment
from metering.quota.windows import Calendar, WindowKind
from tests.billing.operator import DAY_MS, OperatorSetup

PERIOD = "2026-11-05-abcdef"
TERMS = Terms((MeterTerms(Meter.OUTPUT_TOKENS, 1_000, 100_000_000),), PastAllowance.BILL, 100_000)
DEFAULT_MICRO_USD = 2_000_000


class Watch:
    """A tenant in a running period."""

    def __init__(self, setup: OperatorSetup, tenant_id: UUID) -> None:
        self.setup, self.context, self.tenant_id = setup, setup.context, tenant_id
        self.day = Calendar(setup.context.settings.timezone).date_of(now_ms())

    async def use(self, user_id: UUID, **counts: int) -> None:
        """Adds usage to the rollup and the meters, as a settlement does."""
        async with self.context.database.session() as session:
            key = {"tenant_id": self.tenant_id, "user_id": user_id, "day": self.day, "period_id": PERIOD}
            row = await session.get(UsageDaily, key | {"key_id": user_id, "model": "m"})
            if row is None:
                session.add(UsageDaily(**key, key_id=user_id, model="m", **counts))
            else:
                for name, count in counts.items():
                    setattr(row, name, getattr(row, name) + count)
        await self.setup.add_usage(self.tenant_id, PERIOD, **counts)

    async def told(self) -> list[tuple[str, str, int]]:
        """Runs the duty; bound, meter and level of all alerts so far."""
        await store_alerts(self.context)
        return sorted((one.data["kind"], one.data["meter"], one.data["level"]) for one in await self.alerts())

    async def alerts(self) -> list[Alert]:
        """Alerts by level; those of one run may share a timestamp."""
        async with self.context.database.session() as session:
            query = select(Alert).where(Alert.tenant_id == self.tenant_id).order_by(Alert.id)
            return sorted(await session.scalars(query), key=lambda one: int(one.data["level"]))


@pytest.fixture
async def watch(setup: OperatorSetup) -> Watch:
    """A tenant in the middle of a cycle of plan `team`."""
    tenant_id = await setup.tenant()
    await setup.period(tenant_id, PERIOD, terms=TERMS, ended_ms=-10 * DAY_MS)
    period = Period(PERIOD, now_ms() - 20 * DAY_MS, now_ms() + 10 * DAY_MS)
    async with setup.context.database.session() as session:
        schedule = Schedule(periods=(period,))
        await project_entitlement(session, tenant_id, plan_version="team@1", limits=PlanLimits(), schedule=schedule)
    return Watch(setup, tenant_id)


@pytest.fixture
async def limited(watch: Watch) -> Watch:
    """A tenant whose spend per day the settings limit, unless it has a plan."""
    settings = watch.context.settings
    settings = settings.model_copy(update={"default_tenant_spend_per_day_micro_usd": DEFAULT_MICRO_USD})
    watch.context = replace(watch.context, settings=settings)
    return watch


async def _limit(context: BillingContext, tenant_id: UUID, subject_id: UUID, *limits: Limit) -> None:
    async with context.database.session() as session:
        await set_limits(session, Actor("test"), tenant_id, subject_id, LimitSet(limits))


async def test_an_allowance_level_by_level_and_never_twice(watch: Watch) -> None:
    user = uuid7()
    await watch.use(user, output_tokens=499)
    assert await watch.told() == []
    await watch.use(user, output_tokens=1)
    assert await watch.told() == [("allowance", "output_tokens", 50)]
    assert await watch.told() == [("allowance", "output_tokens", 50)]
    await watch.use(user, output_tokens=-400)
    assert len(await watch.told()) == 1
    await watch.use(user, output_tokens=450)
    assert len(await watch.told()) == 1, "it fell and rose again"
    await watch.use(user, output_tokens=900)
    assert [level for _, _, level in await watch.told() if level != 50] == [80, 100]
    (first, *_) = await watch.alerts()
    assert (first.state, first.data["used"], first.data["limit"]) == ("none", 500, 1_000)
    assert (first.kind, first.data["window_name"]) == ("usage.threshold_reached", PERIOD)


async def test_a_ceiling_is_approached_in_paise_before_tax(watch: Watch) -> None:
    user = uuid7()
    await watch.use(user, output_tokens=1_000 + 799)
    told = await watch.told()
    assert [level for bound, _, level in told if bound == "ceiling"] == [50]
    await watch.use(user, output_tokens=1)
    ceiling = [(one.data["level"], one.data["used"]) for one in await watch.alerts() if one.data["kind"] == "ceiling"]
    assert ceiling == [(50, 79_900)]
    assert [level for bound, _, level in await watch.told() if bound == "ceiling"] == [50, 80]


async def test_limits_of_users_and_of_the_tenant_by_day_and_period(watch: Watch) -> None:
    ada, grace = uuid7(), uuid7()
    await _limit(watch.context, watch.tenant_id, ada, Limit(Limited.TOKENS, WindowKind.DAY, 100))
    await _limit(watch.context, watch.tenant_id, watch.tenant_id, Limit(Limited.SPEND, WindowKind.PERIOD, 1_000))
    await watch.use(ada, input_tokens=60, output_tokens=20, cost_nano_usd=499_999)
    await watch.use(grace, input_tokens=90)
    await store_alerts(watch.context)
    names = ("user_id", "meter", "window", "level")
    found = [tuple(one.data[name] for name in names) for one in await watch.alerts()]
    assert found == [(str(ada), "tokens", "day", 50), (str(ada), "tokens", "day", 80)]
    await watch.use(grace, cost_nano_usd=1)
    assert ("limit", "spend", 50) in await watch.told()

    await _limit(watch.context, watch.tenant_id, ada, Limit(Limited.TOKENS, WindowKind.DAY, 160))
    await store_alerts(watch.context)
    again = sorted(one.data["limit"] for one in await watch.alerts() if one.data["meter"] == "tokens")
    assert again == [100, 100, 160], "another limit tells anew"


async def _project(watch: Watch, *, segments: tuple[Segment, ...] = (), periods: tuple[Period, ...] = ()) -> None:
    """The entitlement of a tenant without a plan of its own."""
    async with watch.context.database.session() as session:
        schedule = Schedule(segments, periods)
        await project_entitlement(session, watch.tenant_id, plan_version="", limits=PlanLimits(), schedule=schedule)


async def test_default_limits_are_watched_where_admission_applies_them(limited: Watch) -> None:
    unlimited, later = Segment(0, None, PlanLimits()), Segment(now_ms() + DAY_MS, "team@1", PlanLimits())
    await _project(limited, segments=(unlimited, later))
    await limited.use(uuid7(), cost_nano_usd=DEFAULT_MICRO_USD * 1_000)
    assert await limited.told() == [("limit", "spend", 50), ("limit", "spend", 80), ("limit", "spend", 100)]
    assert [one.data["limit"] for one in await limited.alerts()] == [DEFAULT_MICRO_USD] * 3


async def test_amounts_of_spend_are_hidden_from_tenants(limited: Watch) -> None:
    settings = limited.context.settings.model_copy(update={"show_provider_cost": False})
    limited.context = replace(limited.context, settings=settings)
    unlimited, later = Segment(0, None, PlanLimits()), Segment(now_ms() + DAY_MS, "team@1", PlanLimits())
    await _project(limited, segments=(unlimited, later))
    await limited.use(uuid7(), cost_nano_usd=DEFAULT_MICRO_USD * 500)
    assert await limited.told() == [("limit", "spend", 50)]
    (alert,) = await limited.alerts()
    assert (alert.data["level"], alert.data["limit"], alert.data["used"]) == (50, None, None)


@pytest.mark.parametrize("segment", [("team@1", None), (None, Refusal("subscription_required", "It has ended."))])
async def test_default_limits_are_not_watched_on_a_plan_or_once_refused(
    limited: Watch, segment: tuple[str | None, Refusal | None]
) -> None:
    version, refusal = segment
    await _project(limited, segments=(Segment(0, version, PlanLimits(), refusal),))
    await limited.use(uuid7(), cost_nano_usd=DEFAULT_MICRO_USD * 1_000)
    assert await limited.told() == []


async def test_of_overlapping_periods_the_last_started_is_watched(watch: Watch) -> None:
    at_ms = now_ms()
    earlier = Period("2026-11-01-ghijkl", at_ms - 25 * DAY_MS, at_ms + 5 * DAY_MS)
    later = Period(PERIOD, at_ms - 20 * DAY_MS, at_ms + 10 * DAY_MS)
    await _project(watch, segments=(Segment(0, "team@1", PlanLimits()),), periods=(earlier, later))
    await _limit(watch.context, watch.tenant_id, watch.tenant_id, Limit(Limited.INPUT, WindowKind.PERIOD, 100))
    await watch.use(uuid7(), input_tokens=50)
    assert await watch.told() == [("limit", "input_tokens", 50)]
    assert [one.data["window_name"] for one in await watch.alerts()] == [PERIOD]


async def test_who_used_nothing_today_is_not_looked_at(watch: Watch) -> None:
    watch.day = date.fromordinal(to_datetime(now_ms()).date().toordinal() - 3)
    await watch.use(uuid7(), output_tokens=5_000)
    assert await watch.told() == []


async def test_a_tenant_that_fails_stops_no_other_alert(watch: Watch) -> None:
    broken = await watch.setup.tenant()
    await watch.setup.period(broken, PERIOD, terms=TERMS, ended_ms=-10 * DAY_MS)
    async with watch.context.database.session() as session:
        session.add(WalletSettings(tenant_id=broken, low_paise=1))
        await add_entry(session, broken, WalletEntryKind.PROMOTION, 1, "coupon:a", now_ms())
        of_broken = update(BillingPeriod).where(BillingPeriod.tenant_id == broken)
        await session.execute(of_broken.values(terms={"past_allowance": "prepaid"}))
    await watch.use(uuid7(), output_tokens=500)
    assert await watch.told() == [("allowance", "output_tokens", 50)]


async def test_two_that_look_at_once_tell_once(watch: Watch) -> None:

    await watch.use(uuid7(), output_tokens=1_000)
    await asyncio.gather(*(store_alerts(watch.context) for _ in range(4)))
    assert len(await watch.alerts()) == 3
