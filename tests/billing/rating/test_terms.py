"""Bounds of a plan: allowances if it blocks, the ceiling if it bills."""

import pytest

from billing.rating.overage import ImpossibleTerms, Meter, MeterTerms, PastAllowance, Terms
from billing.rating.terms import bounded, unfunded
from metering.quota.limits import Ceiling, Limit, LimitSet, PlanLimits, PricedMeter
from metering.quota.limits import Meter as Limited
from metering.quota.windows import WindowKind

OWN = LimitSet((Limit(Limited.REQUESTS, WindowKind.MINUTE, 60),), concurrency=3)
METERS = (MeterTerms(Meter.INPUT_TOKENS, 1_000, 40_000), MeterTerms(Meter.OUTPUT_TOKENS, 200, 160_000))


def test_a_plan_that_blocks_bounds_each_meter_of_the_period() -> None:
    limits = bounded(PlanLimits(user=OWN, tenant=OWN), Terms(METERS, PastAllowance.BLOCK))
    assert limits.bounds == (
        Limit(Limited.INPUT, WindowKind.PERIOD, 1_000),
        Limit(Limited.OUTPUT, WindowKind.PERIOD, 200),
    )
    assert (limits.ceiling, limits.user, limits.tenant) == (None, OWN, OWN)


def test_a_plan_that_bills_bounds_what_the_meters_come_to() -> None:
    limits = bounded(PlanLimits(user=OWN), Terms(METERS, PastAllowance.BILL, 500_000))
    priced = (PricedMeter(Limited.INPUT, 1_000, 40_000), PricedMeter(Limited.OUTPUT, 200, 160_000))
    assert (limits.bounds, limits.ceiling) == ((), Ceiling(500_000, priced))


def test_a_prepaid_plan_bounds_what_the_meters_come_to_by_the_wallet() -> None:
    funded = bounded(PlanLimits(), Terms(METERS, PastAllowance.PREPAID, 700))
    assert funded.ceiling is not None
    assert funded.ceiling.paise == 700
    for empty in (Terms(METERS, PastAllowance.PREPAID), unfunded(Terms(METERS, PastAllowance.PREPAID, 700))):
        ceiling = bounded(PlanLimits(), empty).ceiling
        assert ceiling is not None, "an unknown wallet is an empty one"
        assert ceiling.paise == 0


def test_a_prepaid_plan_has_a_rate() -> None:
    with pytest.raises(ImpossibleTerms):
        Terms((MeterTerms(Meter.INPUT_TOKENS, 1_000, 0),), PastAllowance.PREPAID)


def test_without_a_meter_nothing_is_bounded() -> None:
    assert bounded(PlanLimits(), Terms((), PastAllowance.BILL, 500_000)) == PlanLimits()


@pytest.mark.parametrize("past", list(PastAllowance))
def test_what_bounded_before_does_not_stay(past: PastAllowance) -> None:
    blocks, bills = Terms(METERS, PastAllowance.BLOCK), Terms(METERS, PastAllowance.BILL, 1)
    before = bounded(PlanLimits(), bills if past is PastAllowance.BLOCK else blocks)
    wanted = blocks if past is PastAllowance.BLOCK else bills
    assert bounded(before, wanted) == bounded(PlanLimits(), wanted)


def test_spend_is_bounded_as_spend() -> None:
    meters = (MeterTerms(Meter.SPEND, 5_000_000, 9_000_000),)
    assert bounded(PlanLimits(), Terms(meters, PastAllowance.BLOCK)).bounds == (
        Limit(Limited.SPEND, WindowKind.PERIOD, 5_000_000),
    )
    ceiling = bounded(PlanLimits(), Terms(meters, PastAllowance.BILL, 7)).ceiling
    assert ceiling == Ceiling(7, (PricedMeter(Limited.SPEND, 5_000_000, 9_000_000),))
