"""The status of an account on its pages, by the API and to the operator; and errors that keep the navigation."""

from uuid import UUID

import httpx2
import pytest

from billing.access.projection import project
from billing.alerts.alerts import store_alerts
from billing.standing.reader import tenants_in_arrears
from core.clock import now_ms
from core.tenancy.principal import Scope
from tests.api.conftest import Api
from tests.billing.operator import DAY_MS, OperatorSetup
from tests.pages.conftest import ORIGIN, SignIn
from tests.pages.test_account import read, words

TEXT = "₹8.26 for usage is overdue since"
BROWSER = {"accept": "text/html,application/xhtml+xml"}


@pytest.fixture
async def setup(api: Api) -> OperatorSetup:
    return await OperatorSetup.open(api.app.state.runtime.billing)


@pytest.fixture
async def late(api: Api, setup: OperatorSetup) -> UUID:
    """A tenant whose bill for usage was due two days ago."""
    tenant_id = await setup.tenant_with_usage(7)
    await setup.close()
    await api.books.fetch("UPDATE bills SET due_ms = $2 WHERE tenant_id = $1", tenant_id, now_ms() - 2 * DAY_MS)
    async with setup.context.tenant_transaction(tenant_id) as session:
        await project(session, setup.context.zone, tenant_id, now_ms())
    return tenant_id


@pytest.mark.slow
async def test_an_overdue_account_says_so_everywhere_in_the_same_words(api: Api, late: UUID, sign_in: SignIn) -> None:
    admin = await api.books.account(scopes=(Scope.TENANT_ADMIN, Scope.CHAT), tenant_id=late)
    browser = await sign_in(admin)
    status = (await browser.get("/v1/billing/status")).json()
    assert (status["state"], status["overdue_paise"], status["access"]) == ("overdue", 826, "refused")
    assert status["refusal"] == "bill_overdue"
    assert status["text"].startswith(TEXT)
    for path in ("/account", "/account/plan", "/account/bills", "/account/keys", "/account/alerts",
                 "/account/profile", "/reports", "/reports/requests", "/"):  # fmt: skip
        shown = await browser.get(path)
        assert status["text"] in words(shown), path
        assert ">Pay ₹8.26</a>" in shown.text, path
    asked = (await browser.post("/account-status")).json()
    assert (asked["banner"]["text"], asked["fingerprint"]) == (status["text"], "826-0")
    assert 'data-waits="826-0"' in (await browser.get("/account/bills")).text
    operator = await api.platform_admin()
    theirs = await api.http.get(f"/v1/admin/tenants/{late}/status", headers=operator.headers)
    assert theirs.json() == status
    assert status["text"] in await read(await sign_in(operator), f"/operator/tenants/{late}")


async def test_a_user_is_told_to_ask_an_admin(api: Api, late: UUID, sign_in: SignIn) -> None:
    browser = await sign_in(await api.books.account(scopes=(Scope.CHAT,), tenant_id=late))
    shown = await browser.get("/")
    assert "A payment of your account is overdue. Requests are refused. Ask your admin to pay it." in words(shown)
    assert "8.26" not in shown.text
    assert (await browser.post("/account-status")).json()["fingerprint"] is None
    assert (await browser.get("/v1/billing/status")).status_code == 403


@pytest.mark.slow
async def test_a_paid_account_has_no_banner(api: Api, setup: OperatorSetup, late: UUID, sign_in: SignIn) -> None:
    (bill,) = await setup.bills(late)
    await setup.pay(bill)
    async with setup.context.tenant_transaction(late) as session:
        await project(session, setup.context.zone, late, now_ms())
    browser = await sign_in(await api.tenant_admin(late))
    assert "overdue" not in await read(browser, "/account/bills")
    assert (await browser.post("/account-status")).json() == {"banner": None, "fingerprint": "0-0"}


@pytest.mark.slow
async def test_the_operator_sees_who_is_late_and_each_is_alerted_once(
    api: Api, setup: OperatorSetup, late: UUID, sign_in: SignIn
) -> None:
    shown = await read(await sign_in(await api.platform_admin()), "/operator")
    assert "overdue ₹8.26" in shown
    assert "usage Requests are refused." in shown
    assert (await store_alerts(setup.context), await store_alerts(setup.context)) == (1, 0)
    browser = await sign_in(await api.tenant_admin(late))
    (alert,) = (await browser.get("/v1/billing/alerts")).json()["items"]
    assert (alert["type"], alert["data"]["overdue_paise"]) == ("account.overdue", 826)
    assert alert["data"]["text"] in await read(browser, "/account/alerts")


async def test_of_those_who_are_late_the_largest_sums_are_listed(api: Api, setup: OperatorSetup, late: UUID) -> None:
    larger = await setup.tenant_with_usage(9)
    await setup.close()
    await api.books.fetch("UPDATE bills SET due_ms = $2 WHERE tenant_id = $1", larger, now_ms() - DAY_MS)
    async with setup.context.database.session() as session:
        assert await tenants_in_arrears(session, now_ms(), limit=1) == [late]
        assert await tenants_in_arrears(session, now_ms(), limit=1, largest_first=True) == [larger]


async def test_an_address_without_a_page_is_a_page_for_a_browser(api: Api, sign_in: SignIn) -> None:
    browser = await sign_in(await api.platform_admin())
    for path in ("/nowhere", "/operator/nowhere", "/account/bills/nowhere"):
        shown = await browser.get(path, headers=BROWSER)
        assert shown.headers["content-type"].startswith("text/html"), path
        assert 'aria-label="Main"' in shown.text, path
        assert 'href="/operator"' in shown.text, path
    assert "There is no page at this address." in words(await browser.get("/nowhere", headers=BROWSER))
    for path in ("/nowhere", "/v1/nowhere"):
        answer = await browser.get(path, headers={} if path == "/nowhere" else BROWSER)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), path
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=api.app), base_url=ORIGIN) as stranger:
        shown = await stranger.get("/nowhere", headers=BROWSER)
        assert (shown.status_code, 'href="/sign-in"' in shown.text) == (404, True)


async def test_a_refused_page_and_a_refused_form_lead_on(api: Api, sign_in: SignIn) -> None:
    browser = await sign_in(await api.books.account(scopes=(Scope.CHAT,)))
    refused = await browser.get("/account")
    assert (refused.status_code, 'aria-label="Main"' in refused.text) == (403, True)
    operator = await sign_in(await api.platform_admin())
    form = await operator.post("/operator/findings/close", data={"key": "x", "reason": ""})
    assert form.status_code == 422
    assert 'data-page="/operator/findings"' in form.text, "a reload opens the list, and posts nothing again"
    assert "/static/once.js" in form.text


async def test_a_key_that_cannot_chat_is_led_to_where_it_can_go(api: Api, sign_in: SignIn) -> None:
    admin = await api.books.account(scopes=(Scope.TENANT_ADMIN,))
    for account, path in ((await api.platform_admin(), "/operator"), (admin, "/account")):
        answer = await (await sign_in(account)).get("/")
        assert (answer.status_code, answer.headers["location"]) == (303, path)
    reader = await sign_in(await api.books.account(scopes=(Scope.USAGE_READ,)))
    assert (await reader.get("/")).status_code == 403
