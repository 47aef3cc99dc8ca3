"""Limits that apply: set ones before the plan's, their units, and their encoding for Redis."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.features import Feature
from core.money import MAX_EXACT_DOUBLE
from core.tenancy.principal import Forbidden
from metering.quota.counters import WindowState
from metering.quota.decision import count
from metering.quota.limits import (
    MAX_LIMIT,
    METERS,
    NO_LIMITS,
    WINDOWS,
    EffectiveLimit,
    Limit,
    LimitScope,
    LimitSet,
    Meter,
    PlanLimits,
    resolve,
)
from metering.quota.windows import WindowKind

MINUTE, DAY, PERIOD = WindowKind.MINUTE, WindowKind.DAY, WindowKind.PERIOD
PLAN = PlanLimits(
    user=LimitSet((Limit(Meter.TOKENS, DAY, 1_000),), concurrency=2),
    tenant=LimitSet((Limit(Meter.SPEND, PERIOD, 5_000_000),), concurrency=10),
)
limits = st.builds(Limit, st.sampled_from(METERS), st.sampled_from(WINDOWS), st.integers(0, MAX_LIMIT))
limit_sets = st.builds(LimitSet, st.lists(limits, max_size=4).map(tuple), st.none() | st.integers(0, 99))


def test_the_plan_holds_where_nothing_was_set() -> None:
    entitlement = resolve(PLAN, user=None, tenant=None, plan_version="pro-3")
    assert [limit.name for limit in entitlement.limits] == ["user-tokens-day", "tenant-spend-period"]
    assert (entitlement.user_concurrency, entitlement.tenant_concurrency) == (2, 10)
    assert entitlement.plan_version == "pro-3"


def test_what_was_set_replaces_the_plan_whole_and_only_its_own_side() -> None:
    own = LimitSet((Limit(Meter.REQUESTS, MINUTE, 3),))
    entitlement = resolve(PLAN, user=own, tenant=None, plan_version=None)
    assert [limit.name for limit in entitlement.limits] == ["user-requests-minute", "tenant-spend-period"]
    assert (entitlement.user_concurrency, entitlement.tenant_concurrency) == (None, 10)
    lifted = resolve(PLAN, user=None, tenant=NO_LIMITS, plan_version=None)
    assert [limit.name for limit in lifted.limits] == ["user-tokens-day"]
    assert lifted.tenant_concurrency is None


def test_without_a_plan_nothing_is_bounded() -> None:
    entitlement = resolve(PlanLimits(), user=None, tenant=None, plan_version=None)
    assert entitlement.limits == ()
    assert msgspec.msgpack.decode(entitlement.packed) == [-1, -1, []]


def test_a_plan_names_its_features_and_models() -> None:
    plan = PlanLimits(features=("web_search", "mcp"), models=("claude-haiku-*", "claude-sonnet-4-6"))
    entitlement = resolve(plan, user=None, tenant=None, plan_version="pro-3")
    entitlement.require("claude-haiku-4-5", {"mcp", "web_search"})
    entitlement.require("claude-sonnet-4-6", ())
    for model in ("claude-sonnet-4-6-20990101", "claude-sonnet-4-5", "claude-haiku", ""):
        with pytest.raises(Forbidden, match="does not include the model") as refused:
            entitlement.require(model, ())
        assert refused.value.code == "model_not_in_plan"
    with pytest.raises(Forbidden, match="does not include advisor, web_fetch") as refused:
        entitlement.require("claude-sonnet-4-6", {"web_fetch", "mcp", "advisor"})
    assert refused.value.code == "feature_not_in_plan"


def test_a_plan_that_names_neither_has_no_feature_and_every_model() -> None:
    entitlement = resolve(PlanLimits(), user=None, tenant=None, plan_version=None)
    entitlement.require("any", ())
    with pytest.raises(Forbidden, match="web_search"):
        entitlement.require("any", {Feature.WEB_SEARCH})


def test_rows_of_plans_without_features_are_as_an_older_process_reads_them() -> None:
    assert msgspec.to_builtins(PLAN).keys() == {"user", "tenant"}
    assert (
        msgspec.convert({"user": {"limits": []}, "tenant": {}, "bounds": [], "ceiling": None}, PlanLimits)
        == PlanLimits()
    )
    plan = PlanLimits(features=("mcp",), models=())
    assert msgspec.convert(msgspec.to_builtins(plan), PlanLimits) == plan


def test_spend_is_set_in_micro_usd_and_counted_in_nano_usd() -> None:
    limit = EffectiveLimit(LimitScope.USER, Meter.SPEND, DAY, 5)
    assert limit.bound == 5_000
    assert [limit.in_unit(nano) for nano in (0, 1, 1_000, 1_001)] == [0, 1, 1, 2]  # used: rounded up
    assert [limit.room_in_unit(nano) for nano in (999, 1_000, 1_999, -1)] == [0, 1, 1, -1]  # left: rounded down
    tokens = EffectiveLimit(LimitScope.USER, Meter.TOKENS, DAY, 5)
    assert (tokens.bound, tokens.in_unit(1_001), tokens.room_in_unit(1_001)) == (5, 1_001, 1_001)
    assert EffectiveLimit(LimitScope.USER, Meter.SPEND, DAY, MAX_LIMIT).bound <= MAX_EXACT_DOUBLE


@given(st.integers(0, 10**15), st.integers(0, MAX_LIMIT))
def test_used_and_left_never_promise_more_than_the_limit(nano: int, most: int) -> None:
    limit = EffectiveLimit(LimitScope.TENANT, Meter.SPEND, PERIOD, most)
    assert limit.in_unit(nano) + limit.room_in_unit(limit.bound - nano) == most


@pytest.mark.parametrize(
    ("meter", "name", "unit"),
    [
        (Meter.REQUESTS, "user-requests-minute", "requests"),
        (Meter.SPEND, "user-spend-minute", "micro-usd"),
        (Meter.CACHE_WRITE_5M, "user-cache-write-5m-tokens-minute", "tokens"),
        (Meter.TOKENS, "user-tokens-minute", "tokens"),
    ],
)
def test_names_and_units_of_the_headers(meter: Meter, name: str, unit: str) -> None:
    limit = EffectiveLimit(LimitScope.USER, meter, MINUTE, 1)
    assert (limit.name, limit.unit) == (name, unit)


@given(limit_sets, limit_sets)
def test_redis_is_told_the_same_in_the_same_order(user: LimitSet, tenant: LimitSet) -> None:
    entitlement = resolve(PLAN, user=user, tenant=tenant, plan_version=None)
    user_concurrency, tenant_concurrency, packed = msgspec.msgpack.decode(entitlement.packed)
    told = [
        EffectiveLimit(LimitScope.USER if scope == 1 else LimitScope.TENANT, METERS[meter - 1], WINDOWS[window - 1], 0)
        for scope, window, meter, _ in packed
    ]
    assert [limit.name for limit in told] == [limit.name for limit in entitlement.limits]
    assert [bound for *_, bound in packed] == [limit.bound for limit in entitlement.limits]
    assert user_concurrency == (-1 if user.concurrency is None else user.concurrency)
    assert tenant_concurrency == (-1 if tenant.concurrency is None else tenant.concurrency)


def test_what_each_meter_counts_of_a_window() -> None:
    window = WindowState((1, 20, 300, 4_000, 50_000, 600_000, 250, 8, 7), (2, 30, 400, 3, 5))
    assert {meter: count(meter, window) for meter in Meter} == {
        Meter.REQUESTS: (1, 2),
        Meter.INPUT: (20, 30),
        Meter.OUTPUT: (300, 400),
        Meter.CACHE_READ: (4_000, 30),
        Meter.CACHE_WRITE_5M: (50_000, 30),
        Meter.CACHE_WRITE_1H: (600_000, 30),
        Meter.SPEND: (7, 5),
        Meter.TOKENS: (654_320, 430),
        Meter.CACHE_WRITE: (650_000, 30),
        Meter.WEB_SEARCHES: (8, 3),
    }
