"""20,000 payments in 60 days at Razorpay, 200 of them ours: all compared, in memory for a few pages."""

import tracemalloc
from collections import Counter

import pytest
from sqlalchemy import insert

from billing.models import Payment
from billing.reconciliation import WINDOW_DAYS, reconcile_razorpay
from core.clock import now_ms
from tests.billing.signup import DAY_S, Signup

PAYMENTS, OURS, PAISE = 20_000, 200, 10_000
REFUNDED = 3
MOST_BYTES = 6_000_000
"""One list of all 20,000 payments takes many times as much."""


@pytest.mark.slow
async def test_a_large_account_is_compared_in_full_and_in_bounded_memory(signup: Signup) -> None:
    now_s = now_ms() // 1000
    begin = now_s - (WINDOW_DAYS - 1) * DAY_S
    signup.razorpay.sim("POST", "/strangers", count=PAYMENTS, since=begin, until=now_s)
    ours = [row["payment_id"] for row in signup.razorpay.money()["payments"][:: PAYMENTS // OURS]]
    rows = [
        {"tenant_id": signup.tenant_id, "razorpay_id": key, "status": "captured", "amount_paise": PAISE} for key in ours
    ]
    async with signup.context.database.session() as session:
        await session.execute(insert(Payment), rows)
    for key in ours[:REFUNDED]:
        signup.razorpay.refund_payment(key, 1_000)
    notes = {"tenant_id": str(signup.tenant_id)}
    signup.razorpay.sim("POST", "/strangers", count=1, since=begin, until=begin, notes=notes)
    before = len(signup.razorpay.ledger()["calls"])

    tracemalloc.start()
    found = await reconcile_razorpay(signup.context)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert found.compared["payments"] == PAYMENTS + 1
    assert found.foreign == PAYMENTS - OURS
    assert (found.collected_paise, found.refunded_paise) == (OURS * PAISE, REFUNDED * 1_000)
    assert sorted(one["id"] for one in found.healed) == sorted(ours[:REFUNDED])
    assert [one["kind"] for one in found.unexplained] == ["payment"]
    assert found.days_compared == found.days >= WINDOW_DAYS
    asked = Counter(call["route"] for call in signup.razorpay.ledger()["calls"][before:])
    assert asked["GET /v1/payments"] <= PAYMENTS // 100 + 2 * found.days
    assert asked["GET /v1/payments/:id"] == REFUNDED, "a stranger is never fetched"
    assert asked["GET /v1/invoices/:id"] == 0
    assert peak < MOST_BYTES, f"{peak:,} bytes"
