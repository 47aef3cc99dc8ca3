"""A ceiling on the charge: what it counts, how much output fits, and its status."""

import msgspec
import pytest

from api.gateway.ratelimit_headers import policy
from metering.admission.admission import QuotaExceeded, TooLarge
from metering.pricing.tokens import Usage
from metering.quota.counters import WindowState
from metering.quota.limits import (
    MAX_CEILING_PAISE,
    MAX_LIMIT,
    Ceiling,
    Limit,
    LimitSet,
    Meter,
    PlanLimits,
    PricedMeter,
    resolve,
)
from metering.quota.spending import Pending, charge, output_that_fits
from metering.quota.windows import WindowKind
from tests.harness import Books
from tests.metering.process import Process
from tests.metering.scheduled import project

DAY, PERIOD = WindowKind.DAY, WindowKind.PERIOD
PRICES = ((100, 3), (0, 1), (10, 5), (50, 7), (2, 11))
"""Input, cache reads, cache writes, output, web searches."""
CEILING = Ceiling(
    2,
    (
        PricedMeter(Meter.INPUT, 150, 5_000),
        PricedMeter(Meter.OUTPUT, 20, 40_000),
    ),
)
"""200 input tokens over the allowance cost a paisa, or 25 of output."""


def window(*used: int, searches: int = 0, held: tuple[int, ...] = (0, 0, 0, 0, 0)) -> WindowState:
    return WindowState((1, *used, 999, searches, 0), held)  # thinking is in the output already


def test_each_meter_is_charged_over_its_own_allowance() -> None:
    assert charge(PRICES, window(100, 50, 0, 4, 6)) == 0
    assert charge(PRICES, window(101, 52, 3, 5, 6)) == 3 + 14 + 3 + 5  # both cache writes are one meter
    assert charge(PRICES, window(0, 0, 0, 0, 0, searches=2)) == 0
    assert charge(PRICES, window(0, 0, 0, 0, 0, searches=5)) == 3 * 11


def test_what_is_pending_is_charged_at_its_dearest() -> None:
    assert charge(PRICES, window(0, 0, 0, 0, 0), Pending(prompt=30)) == 5 * 20  # as cache writes: not 0, nor 30
    assert charge(PRICES, window(100, 0, 0, 0, 0), Pending(prompt=12)) == 3 * 12  # as input: not 12, nor 5 * 2
    assert charge(PRICES, window(0, 49, 0, 0, 0), Pending(output=3)) == 7 * 2
    assert charge(PRICES, window(0, 0, 0, 0, 0, searches=1), Pending(web_searches=3)) == 11 * 2
    held = window(0, 0, 0, 0, 0, held=(9, 99, 99, 99, 9))
    assert charge(PRICES, held) == 0  # unless it is passed in
    assert charge(PRICES, held, Pending.held_in(held)) == 5 * 89 + 7 * 49 + 11 * 97


@pytest.mark.parametrize(
    ("bound", "used", "prompt", "pending_output", "most"),
    [
        (0, 0, 0, 0, 50),
        (0, 20, 0, 5, 25),
        (13, 0, 0, 0, 51),
        (14, 60, 0, 0, -1),
        (99, 0, 30, 0, -1),
        (100, 0, 30, 0, 50),
    ],
)
def test_the_most_output_that_fits(bound: int, used: int, prompt: int, pending_output: int, most: int) -> None:
    pending = Pending(prompt, pending_output)
    assert output_that_fits(PRICES, bound, window(0, used, 0, 0, 0), pending) == most
    free = (*PRICES[:3], (0, 0), PRICES[4])
    assert output_that_fits(free, bound, window(0, used, 0, 0, 0), pending) == (
        -1 if bound < 5 * max(0, prompt - 10) else None
    )


def test_searches_take_from_the_output_that_fits() -> None:
    searching = Pending(web_searches=4)  # two over the allowance: 22
    assert output_that_fits(PRICES, 21, window(0, 0, 0, 0, 0), searching) == -1
    assert output_that_fits(PRICES, 28, window(0, 0, 0, 0, 0), searching) == 50
    assert output_that_fits(PRICES, 29, window(0, 0, 0, 0, 0), searching) == 51


def test_a_ceiling_is_a_limit_of_the_tenants_period_on_top_of_all() -> None:
    own = LimitSet((Limit(Meter.OUTPUT, PERIOD, 900), Limit(Meter.INPUT, PERIOD, 10)))
    bounds = (Limit(Meter.OUTPUT, PERIOD, 500), Limit(Meter.INPUT, PERIOD, 500), Limit(Meter.CACHE_READ, PERIOD, 5))
    made = resolve(PlanLimits(bounds=bounds, ceiling=CEILING), user=None, tenant=own, plan_version=None)
    assert [(limit.name, limit.limit) for limit in made.limits] == [
        ("tenant-output-tokens-period", 500),
        ("tenant-input-tokens-period", 10),
        ("tenant-cache-read-tokens-period", 5),
        ("tenant-charge-period", 2),
    ]
    last = made.limits[-1]
    assert (last.bound, last.unit, last.in_unit(1), last.room_in_unit(1_999_999)) == (2_000_000, "paise", 1, 1)
    assert msgspec.msgpack.decode(made.packed)[2][-1] == [
        2,
        3,
        11,
        2_000_000,
        [150, 5_000, 0, 0, 0, 0, 20, 40_000, 0, 0],
    ]
    assert policy(made).endswith('"tenant-charge-period";q=2;qu="paise"')


@pytest.mark.parametrize(
    ("ceiling", "expected"),
    [
        (Ceiling(1_000, (PricedMeter(Meter.SPEND, 5, 3),)), 5 + 333_333_333),
        (Ceiling(0, (PricedMeter(Meter.SPEND, 5, 3),)), 5),
        (Ceiling(MAX_CEILING_PAISE, (PricedMeter(Meter.SPEND, 5, 1),)), MAX_LIMIT),
        (Ceiling(1, (PricedMeter(Meter.SPEND, 5, 0),)), None),
        (Ceiling(1, (PricedMeter(Meter.OUTPUT, 5, 0),)), None),
        (Ceiling(1, ()), None),
    ],
)
def test_a_ceiling_on_spend_is_a_limit_on_spend(ceiling: Ceiling, expected: int | None) -> None:
    made = resolve(PlanLimits(ceiling=ceiling), user=None, tenant=LimitSet(), plan_version=None)
    names = [(limit.name, limit.limit) for limit in made.limits]
    assert names == ([] if expected is None else [("tenant-spend-period", expected)])


@pytest.mark.parametrize(
    ("paise", "meters"),
    [
        (-1, ()),
        (MAX_CEILING_PAISE + 1, ()),
        (1, (PricedMeter(Meter.TOKENS, 1, 1),)),
        (1, (PricedMeter(Meter.INPUT, 1, 1),) * 2),
        (1, (PricedMeter(Meter.INPUT, 1, 1), PricedMeter(Meter.SPEND, 1, 1))),
        (1, (PricedMeter(Meter.INPUT, -1, 1),)),
        (1, (PricedMeter(Meter.INPUT, 1, MAX_LIMIT + 1),)),
    ],
)
def test_what_cannot_be_counted_is_no_ceiling(paise: int, meters: tuple[PricedMeter, ...]) -> None:
    with pytest.raises(ValueError, match=r"ceiling|spend|allowances"):
        Ceiling(paise, meters)


async def test_the_last_answer_under_a_ceiling_is_cut_at_it(either: Process, books: Books) -> None:
    account = await books.account(tenant_limits=LimitSet())
    await project(books, account, limits=PlanLimits(ceiling=CEILING))
    first = await either.admit(account)  # a prompt of 100, and what two paise buy of output
    assert (first.request.held_output_tokens, first.room) == (70, (0,))
    with pytest.raises(QuotaExceeded) as refused:
        await either.admit(account)
    assert refused.value.code == "held"
    (status,) = (await either.limit_status.of(account.tenant_id, account.user_id)).limits
    assert (status.used, status.held, status.remaining) == (0, 2, 0)
    await either.settle(first, Usage(100, 21))
    (status,) = (await either.limit_status.of(account.tenant_id, account.user_id)).limits
    assert (status.used, status.held, status.remaining) == (1, 0, 1)  # 0.04 paise: used rounds up, left rounds down
    second = await either.admit(account)  # 50 of its prompt may be input over the allowance: 0.25 paise
    assert (second.request.held_output_tokens, second.room) == (20 + 43 - 21, (30_000,))
    await either.settle(second, Usage(0, 70, 100))
    with pytest.raises(QuotaExceeded) as refused:
        await either.admit(account)
    assert (refused.value.code, refused.value.limit and refused.value.limit.name) == (
        "limit_reached",
        "tenant-charge-period",
    )
    with pytest.raises(TooLarge):
        await either.admit(account, prompt_bytes=700)
