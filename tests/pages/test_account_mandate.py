"""The mandate on the account's page, in the API and at the command line's service: authorise, check, cancel."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from billing.collection.collection import collect
from billing.context import BillingContext
from billing.mandates.push import push_mandates
from billing.models import Mandate
from billing.standing.words import money
from core.settings import Settings
from tests.api.conftest import Api
from tests.billing.operator import OperatorSetup, profile
from tests.harness import Account
from tests.pages.conftest import SignIn
from tests.pages.test_account import read
from tests.simulated_razorpay import Razorpay

CONTACT = {"contact": "+919812345670"}


@pytest.fixture
def settings(database_url: str, redis_url: str, razorpay: Razorpay) -> Settings:
    """Settings with a simulated Razorpay, without a reachable provider."""
    given: dict[str, Any] = {
        name.lower(): value for name, value in razorpay.env.items() if name.startswith("RAZORPAY_")
    }
    given |= {"database_url": database_url, "redis_url": redis_url, "store_deadline_s": 30}
    return Settings(_env_file=None, anthropic_api_key="never-used", **given)


@pytest.fixture
async def setup(api: Api) -> OperatorSetup:
    """The application's operator, with the plan `team`."""
    return await OperatorSetup.open(api.app.state.runtime.billing)


@pytest.fixture
async def admin(api: Api, setup: OperatorSetup) -> Account:
    """The admin of a tenant on a plan that bills."""
    return await api.tenant_admin(await setup.tenant(named=profile(), plan="team"))


def context_of(api: Api) -> BillingContext:
    context: BillingContext = api.app.state.runtime.billing
    return context


async def stored(api: Api, tenant_id: UUID) -> list[Mandate]:
    async with context_of(api).database.session() as session:
        return list(await session.scalars(select(Mandate).where(Mandate.tenant_id == tenant_id).order_by(Mandate.id)))


@pytest.mark.slow
async def test_a_mandate_is_authorised_and_cancelled_on_the_page(
    api: Api, admin: Account, razorpay: Razorpay, sign_in: SignIn
) -> None:
    browser = await sign_in(admin)
    assert "bills for overage are paid automatically: up to ₹15,000 each" in await read(browser, "/account/plan")
    for contact, sentence in (("", "phone number"), ("call me", "8 to 15 digits")):
        answer = await browser.post("/account/mandate", data={"method": "upi", "contact": contact})
        assert answer.status_code == 303
        assert sentence in await read(browser, answer.headers["location"], 422)

    answer = await browser.post("/account/mandate", data={"method": "upi"} | CONTACT)
    assert (answer.status_code, answer.headers["location"]) == (303, "/account/plan?said=mandate#mandate")
    waiting = await read(browser, "/account/plan")
    assert "You pay ₹1 to authorise it, which is refunded" in waiting
    [row] = await stored(api, admin.tenant_id)
    assert row.short_url is not None
    assert row.short_url in (await browser.get("/account/plan")).text
    razorpay.register(str(row.razorpay_id))
    await browser.post("/account/mandate/check")
    assert "debited by UPI. You are told a day before each debit" in await read(browser, "/account/plan")

    answer = await browser.post("/account/mandate/cancel")
    assert answer.status_code == 303
    assert "The mandate is cancelled" in await read(browser, answer.headers["location"].partition("#")[0])
    [row] = await stored(api, admin.tenant_id)
    assert (row.state, row.wanted_end) == ("ended", None)


async def test_the_api_shows_the_mandate_to_its_tenant(api: Api, admin: Account, razorpay: Razorpay) -> None:
    async def call(verb: str, path: str = "", status: int = 200, **body: Any) -> Any:
        url = f"/v1/billing/mandate{path}"
        answer = await api.http.request(verb, url, headers=admin.headers, json=body or None)
        assert answer.status_code == status, answer.text
        return answer.json()

    assert await call("GET") == {"active": None, "waiting": None, "allowed_paise": 1_500_000}
    await call("POST", status=422, method="cash")
    made = (await call("POST", status=201, max_paise=500_000, **CONTACT))["waiting"]
    assert (made["state"], made["max_paise"], made["method"]) == ("submitted", 500_000, "upi")
    assert made["pay_url"]
    assert (await call("POST", status=201, **CONTACT))["waiting"]["id"] == made["id"]
    await call("POST", status=409, method="card", **CONTACT)
    [row] = await stored(api, admin.tenant_id)
    razorpay.register(str(row.razorpay_id))
    assert (await call("POST", "/check"))["active"]["id"] == made["id"]

    platform = await api.platform_admin()
    listed = (await api.call(platform, "GET", "/mandates", expect=200)).json()["items"]
    assert [(one["tenant_id"], one["pay_url"]) for one in listed] == [(str(admin.tenant_id), None)]
    path = f"/tenants/{admin.tenant_id}/mandate/cancel"
    ended = (await api.call(platform, "POST", path, expect=200, json={"reason": "fraud"})).json()
    assert (ended["state"], ended["end_reason"], ended["ends_soon"]) == ("ended", "fraud", True)
    await push_mandates(context_of(api))
    await call("POST", "/cancel", status=404)


async def test_a_plan_that_blocks_shows_no_mandate(api: Api, setup: OperatorSetup, sign_in: SignIn) -> None:
    admin = await api.tenant_admin(await setup.tenant(named=profile()))
    assert "Automatic payment" not in await read(await sign_in(admin), "/account/plan")
    answer = await api.http.post("/v1/billing/mandate", headers=admin.headers, json=CONTACT)
    assert answer.status_code == 409


@pytest.mark.slow
async def test_a_bill_that_is_debited_says_so(
    api: Api, setup: OperatorSetup, admin: Account, razorpay: Razorpay, sign_in: SignIn
) -> None:
    await api.http.post("/v1/billing/mandate", headers=admin.headers, json=CONTACT)
    [row] = await stored(api, admin.tenant_id)
    razorpay.register(str(row.razorpay_id))
    await api.http.post("/v1/billing/mandate/check", headers=admin.headers)
    await setup.period(admin.tenant_id)
    await setup.add_usage(admin.tenant_id, "2026-01-05-abcdef", output_tokens=1_100)
    await setup.close()
    await collect(context_of(api))
    listed = (await api.http.get("/v1/billing/bills", headers=admin.headers)).json()["items"]
    assert [(one["collected_by"], one["pay_url"]) for one in listed] == [("mandate", None)]
    shown = await read(await sign_in(admin), f"/account/bills/{listed[0]['id']}")
    assert "It is debited by your mandate: you don't need to pay it" in shown
    assert money(listed[0]["due_paise"]) in shown
