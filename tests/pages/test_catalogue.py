"""Plans on offer: the operator offers and withdraws versions, and a tenant's page shows what is on offer."""

import json
import re

import httpx2
import pytest

from core.clock import now_ms
from core.ids import uuid7
from tests.api.conftest import Api
from tests.billing.operator import OperatorSetup
from tests.pages.conftest import SignIn, submit

_LIVE = """INSERT INTO subscriptions (tenant_id, id, state, is_open, plan_code, plan_version, supply, gross_paise,
    total_count, created_ms, authorised_ms, status, razorpay_id, paid_through_ms, current_start_ms, current_end_ms,
    start_ms, cancel_at_ms, cancel_state, applied)
    VALUES ($1, $2, 'submitted', false, 'team', 1, '{}', 354000, 12, $3, $3, 'active', 'sub_X', $4, $3, $4, $3, $4,
    'intended', 1)"""
HAIKU = "claude-haiku-4-5"


@pytest.fixture
async def setup(api: Api) -> OperatorSetup:
    """An operator with the plan `team`."""
    return await OperatorSetup.open(api.app.state.runtime.billing)


def words(answer: httpx2.Response) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", answer.text).split())


async def test_the_operator_offers_and_withdraws_a_version(api: Api, setup: OperatorSetup, sign_in: SignIn) -> None:
    operator = await sign_in(await api.platform_admin())
    buyer = await sign_in(await api.tenant_admin(await setup.tenant()))
    assert "Subscribe to Team" in words(await buyer.get("/account/plan"))
    done = await operator.post("/operator/plans/team/1/withdraw")
    assert done.headers["location"] == "/operator/plans?said=withdrawn"
    shown = words(await operator.get(done.headers["location"]))
    assert "Tenants that have it keep it." in shown
    assert "Team team 1 withdrawn" in shown
    assert "No plans yet" in words(await buyer.get("/account/plan"))
    refused = await submit(buyer, "/account/plan/subscribe", {"plan": "team", "version": "1"})
    assert refused.status_code == 409
    assert "not offered any more" in words(refused)
    done = await operator.post("/operator/plans/team/1/offer")
    assert "Team team 1 offered" in words(await operator.get(done.headers["location"]))
    assert (await operator.post("/operator/plans/team/7/offer")).status_code == 404
    done_so_far = await api.books.fetch("SELECT action FROM audit_log WHERE action LIKE 'plan.%' ORDER BY id")
    assert [row["action"] for row in done_so_far] == ["plan.withdraw", "plan.offer"]


async def test_the_operator_alone_is_warned_of_models_with_different_prices(
    api: Api, setup: OperatorSetup, sign_in: SignIn
) -> None:
    warning = "costs 5 times as much as one of claude-haiku-4-5: price spend, or name models of one price"
    operator = await sign_in(await api.platform_admin())
    buyer = await sign_in(await api.tenant_admin(await setup.tenant()))
    for models, is_warned in (([HAIKU], False), ([HAIKU, "claude-opus-5"], True)):
        await api.books.fetch("UPDATE plans SET limits = $1 WHERE code = 'team'", json.dumps({"models": models}))
        assert (warning in words(await operator.get("/operator/plans"))) is is_warned
    assert warning not in words(await buyer.get("/account/plan"))


async def test_a_withdrawn_version_is_shown_to_who_may_renew_it(
    api: Api, setup: OperatorSetup, sign_in: SignIn
) -> None:
    tenant_id, at_ms = await setup.tenant(), now_ms()
    await api.books.fetch(_LIVE, tenant_id, uuid7(), at_ms, at_ms + 10 * 86_400_000)
    await api.books.fetch("UPDATE plans SET state = 'withdrawn' WHERE code = 'team'")
    holder, other = await api.tenant_admin(tenant_id), await api.tenant_admin(await setup.tenant())
    page = await (await sign_in(holder)).get("/account/plan")
    assert "Subscribe again to Team" in words(page)
    assert 'name="version" value="1"' in page.text
    assert "No plans yet" in words(await (await sign_in(other)).get("/account/plan"))
