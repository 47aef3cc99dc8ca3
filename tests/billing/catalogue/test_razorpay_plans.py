"""Plans at Razorpay: one per version and treatment, through every fault."""

import asyncio
from typing import Any

import pytest

from api.schemas.billing.plans import warnings_of
from billing.catalogue.razorpay_plans import ensure_razorpay_plan, ensure_razorpay_plans, gross_for, list_razorpay_plans
from billing.gst.tax import Treatment
from billing.models import Plan, RazorpayPlan
from billing.razorpay.errors import RazorpayError
from tests.billing.signup import Signup

MAKE = "POST /v1/plans"
INTER = Treatment.INTER_STATE


@pytest.mark.parametrize(
    ("base", "treatment", "gross"),
    [
        (299_900, Treatment.INTRA_STATE, 353_882),
        (299_900, INTER, 353_882),
        (299_900, Treatment.EXPORT, 299_900),
        (105, Treatment.INTRA_STATE, 123),
        (105, INTER, 124),
    ],
)
def test_the_price_with_its_tax(base: int, treatment: Treatment, gross: int) -> None:
    assert gross_for(base, treatment) == gross


@pytest.mark.parametrize(("base", "warned"), [(1_271_186, False), (1_271_187, True)])
def test_a_price_above_the_mandate_limit_is_warned_of(base: int, warned: bool) -> None:  # noqa: FBT001
    assert bool(warnings_of(Plan(base_paise=base, past_allowance="block"))) is warned


@pytest.mark.parametrize(
    ("ceiling", "threshold", "warned"),
    [
        (1_271_186, None, ""),
        (1_271_187, None, "the ceiling"),
        (1_271_187, 1_271_186, ""),
        (9_000_000, 1_271_187, "the threshold"),
    ],
)
def test_a_bill_above_the_mandate_limit_is_warned_of(ceiling: int, threshold: int | None, warned: str) -> None:
    plan = Plan(base_paise=100, past_allowance="bill", ceiling_paise=ceiling, threshold_paise=threshold)
    assert " ".join(warnings_of(plan)).startswith(warned)
    assert len(warnings_of(plan)) == bool(warned)


async def _copies(signup: Signup) -> list[RazorpayPlan]:
    async with signup.context.database.session() as session:
        return await list_razorpay_plans(session, "solid")


async def test_it_is_made_once(signup: Signup) -> None:
    first = await ensure_razorpay_plan(signup.context, "solid", 1, INTER)
    assert await ensure_razorpay_plan(signup.context, "solid", 1, INTER) == first
    assert len(signup.razorpay.ledger()["plans"]) == 1
    (row,) = await _copies(signup)
    assert (row.state, row.razorpay_id, row.gross_paise) == ("created", first, 354_000)


async def test_two_at_once_go_on_with_the_same(signup: Signup) -> None:
    both = await asyncio.gather(*(ensure_razorpay_plan(signup.context, "solid", 1, INTER) for _ in range(2)))
    assert len(set(both)) == 1


@pytest.mark.parametrize("trouble", [{"kind": "cut", "when": "after"}, {"kind": "html"}])
async def test_one_whose_answer_was_lost_is_found(signup: Signup, trouble: dict[str, Any]) -> None:
    signup.razorpay.fault(route=MAKE, **trouble)
    with pytest.raises(RazorpayError):
        await ensure_razorpay_plan(signup.context, "solid", 1, INTER)
    (row,) = await _copies(signup)
    assert row.state == "submitting"
    assert row.error
    made = await ensure_razorpay_plan(signup.context, "solid", 1, INTER)
    assert len(signup.razorpay.ledger()["plans"]) == 1
    (row,) = await _copies(signup)
    assert (row.razorpay_id, row.state, row.error) == (made, "created", None)


async def test_publishing_goes_on_without_razorpay(signup: Signup) -> None:
    signup.razorpay.fault(route=MAKE, kind="cut", when="after", times=2)
    async with signup.context.database.session() as session:
        plan = await session.get_one(Plan, ("solid", 1))
    await ensure_razorpay_plans(signup.context, plan, (INTER, Treatment.EXPORT))
    assert [row.razorpay_id for row in await _copies(signup)] == [None, None]
