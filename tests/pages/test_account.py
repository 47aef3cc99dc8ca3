"""The account's pages about money: what they show is what the API says, and nobody else's is ever on them."""

import re
from uuid import UUID

import httpx2
import pytest

from billing.gst.rupees import rupees
from billing.models import Subscription
from billing.rating.overage import PastAllowance, Terms
from core.clock import now_ms
from core.ids import uuid7
from core.tenancy.principal import Scope
from metering.admission.entitlements import project_entitlement
from metering.quota.limits import PlanLimits
from tests.api.conftest import Api
from tests.billing.operator import DAY_MS, PERIOD, TERMS, OperatorSetup
from tests.harness import Account
from tests.pages.conftest import ORIGIN, SignIn, submit

PROFILE = {
    "legal_name": "Nimbus Tools",
    "line1": "2 Marine Drive",
    "line2": "",
    "city": "Mumbai",
    "postal_code": "400020",
    "state": "27",
    "country": "in",
    "email": "billing@nimbus.example",
    "gstin": "",
    "contact": "",
}


@pytest.fixture
async def setup(api: Api) -> OperatorSetup:
    """The desk of the application, with an operator and the plan `team`."""
    return await OperatorSetup.open(api.app.state.runtime.billing)


def words(answer: httpx2.Response) -> str:
    """What a person reads, one blank between words."""
    return " ".join(re.sub(r"<[^>]+>", " ", answer.text).split()).replace("&#39;", "'")


async def read(browser: httpx2.AsyncClient, path: str, status: int = 200) -> str:
    answer = await browser.get(path)
    assert answer.status_code == status, answer.text
    return words(answer)


@pytest.mark.slow
async def test_the_overview_says_what_the_api_says(api: Api, setup: OperatorSetup, sign_in: SignIn) -> None:
    tenant_id = await setup.tenant(plan="team")
    admin = await api.tenant_admin(tenant_id)
    await setup.period(tenant_id, PERIOD, ended_ms=-DAY_MS)
    await setup.add_usage(tenant_id, PERIOD, output_tokens=1_010)
    coming = (await api.http.get("/v1/billing/upcoming", headers=admin.headers)).json()
    browser = await sign_in(admin)
    shown = await read(browser, "/account")
    assert "1,010 of 1,000 output tokens 101 %" in shown
    assert "10 overage, ₹10 before GST" in shown
    assert f"{coming['total']} Upcoming charges, with GST" in shown
    assert [line["component"] for line in coming["tax"]] == ["CGST", "SGST"]
    for line in coming["tax"]:
        assert f"{line['component']} 9 % {rupees(line['tax_paise'])}" in shown
    assert f"Total so far {coming['total']}" in shown
    answer = await browser.get("/account")
    assert 'aria-label="1,010 of 1,000 output tokens, 101 %"' in answer.text
    assert "style=" not in answer.text
    assert "script-src 'self';" in answer.headers["content-security-policy"]


async def test_without_a_profile_gst_is_still_to_come(api: Api, setup: OperatorSetup, sign_in: SignIn) -> None:
    tenant_id = await setup.tenant(plan="team", is_known=False)
    await setup.period(tenant_id, PERIOD, ended_ms=-DAY_MS, terms=Terms(TERMS.meters, PastAllowance.BLOCK))
    await setup.add_usage(tenant_id, PERIOD, output_tokens=250)
    shown = await read(await sign_in(await api.tenant_admin(tenant_id)), "/account")
    assert "250 of 1,000 output tokens 25 %" in shown
    assert "₹0.00 Upcoming charges, plus GST" in shown


async def test_the_overview_names_the_plans_models_and_features(
    api: Api, setup: OperatorSetup, sign_in: SignIn
) -> None:
    admin = await api.tenant_admin(await setup.tenant())
    browser = await sign_in(admin)
    assert "Models and features All models Features such as web search are not included" in await read(
        browser, "/account"
    )
    async with api.books.database.session() as session:
        limits = PlanLimits(features=("url_sources", "web_search"), models=("claude-haiku-*", "claude-sonnet-4-6"))
        await project_entitlement(session, admin.tenant_id, plan_version="team@1", limits=limits)
    api.app.state.runtime.metering.entitlements.forget(admin.tenant_id)
    shown = await read(browser, "/account")
    assert "claude-haiku-*, claude-sonnet-4-6 images and documents by URL web search" in shown


async def test_the_first_day_says_what_to_do(api: Api, sign_in: SignIn) -> None:
    browser = await sign_in(await api.tenant_admin())
    assert "the default limits apply and nothing is billed. Choose a plan" in await read(browser, "/account")
    assert "No plans yet" in await read(browser, "/account/plan")
    assert "No bills yet" in await read(browser, "/account/bills")
    assert "No alerts yet" in await read(browser, "/account/alerts")


@pytest.mark.slow
async def test_bills_are_shown_when_final_and_to_their_tenant_alone(
    api: Api, setup: OperatorSetup, sign_in: SignIn
) -> None:
    tenant_id, other = await setup.tenant_with_usage(7), await setup.tenant_with_usage(9)
    held = await setup.tenant_with_usage(30_000)  # so much that an operator has to look at it first
    await setup.close()
    (bill,), (foreign,), (draft,) = [await setup.bills(one) for one in (tenant_id, other, held)]
    assert bill.number is not None
    assert foreign.number is not None
    browser = await sign_in(await api.tenant_admin(tenant_id))
    listed = await read(browser, "/account/bills")
    assert f"{bill.number} ₹8.26 due ₹8.26 by" in listed
    assert foreign.number not in listed
    assert "None in this state" in await read(browser, "/account/bills?state=paid")
    shown = await read(browser, f"/account/bills/{bill.id}")
    assert "₹8.26 due by" in shown
    assert "Before tax ₹7.00" in shown
    assert "Total ₹8.26" in shown
    for theirs in (foreign.id, draft.id):
        for kind in ("", "/document.html", "/document.pdf"):
            assert "no such bill" in (await read(browser, f"/account/bills/{theirs}{kind}", 404)).lower()
    keeper = await sign_in(await api.tenant_admin(held))
    assert "No bills yet" in await read(keeper, "/account/bills")
    pdf = await browser.get(f"/account/bills/{bill.id}/document.pdf")
    assert pdf.content.startswith(b"%PDF-")
    assert pdf.headers["cache-control"] == "no-store"
    assert bill.number in await read(browser, f"/account/bills/{bill.id}/document.html")
    payment = await setup.pay(bill)
    assert payment in await read(browser, f"/account/bills/{bill.id}")


async def test_a_plan_is_said_with_all_that_it_costs(api: Api, setup: OperatorSetup, sign_in: SignIn) -> None:
    tenant_id = await setup.tenant()
    admin = await api.tenant_admin(tenant_id)
    (offer,) = (await api.http.get("/v1/billing/plans", headers=admin.headers)).json()
    shown = await read(await sign_in(admin), "/account/plan")
    base, gross = (rupees(offer[name]).removesuffix(".00") for name in ("base_paise", "gross_paise"))
    assert f"Team {base} per month, {gross} with GST" in shown
    assert "1,000 output tokens then ₹10,00,000 per million" in shown
    assert "up to ₹1,00,000 before GST; then requests are refused until the next period" in shown


@pytest.mark.slow
async def test_a_profile_is_asked_for_first_and_leads_back(api: Api, setup: OperatorSetup, sign_in: SignIn) -> None:
    tenant_id = await setup.tenant(is_known=False)
    browser = await sign_in(await api.tenant_admin(tenant_id))
    assert "One step left" not in await read(browser, "/account/plan?said=chosen"), "nothing waits"
    assert "Thank you" not in await read(browser, "/account/plan?said=active"), "nothing was authorised"
    asked = await browser.post("/account/plan/subscribe", data={"plan": "team"})
    assert (asked.status_code, asked.headers["location"]) == (303, "/account/profile?next=plan")
    for wrong, field, reason in (
        ({"postal_code": "12"}, "postal_code", "An Indian PIN code has six digits."),
        ({"state": ""}, "state", "A customer in India needs its state."),
        ({"gstin": "29AAGCB7383J1Z4"}, "gstin", "The GSTIN is of another state than the address."),
        ({"email": "nobody"}, "email", "The e-mail address has the form"),
        ({"legal_name": ""}, "legal_name", "The legal name has 1 to 100 printable characters."),
    ):
        answer = await submit(browser, "/account/profile", PROFILE | wrong | {"next": "plan"})
        assert answer.status_code == 422, field
        assert re.search(rf'id="{field}-hint" class="small fault">{re.escape(reason)}', answer.text), field
        assert 'value="2 Marine Drive"' in answer.text
        assert (await browser.get("/v1/billing/profile")).json() is None
    answer = await browser.post("/account/profile", data=PROFILE | {"next": "plan"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/account/plan?said=profile")
    assert (await browser.get("/v1/billing/profile")).json()["country"] == "IN"
    away = await browser.post("/account/profile", data=PROFILE | {"next": "https://evil.example"})
    assert away.headers["location"] == "/account/profile?said=saved"
    assert "evil" not in await read(browser, "/account/profile?next=evil&said=evil")


async def test_checkout_is_let_in_where_something_waits_for_it_alone(
    api: Api, setup: OperatorSetup, sign_in: SignIn
) -> None:
    assert api.app.state.runtime.settings.razorpay_base_url == "https://api.razorpay.com"
    tenant_id = await setup.tenant()
    browser = await sign_in(await api.tenant_admin(tenant_id))
    before = await browser.get("/account/plan")
    assert "razorpay.com" not in before.text + before.headers["content-security-policy"]
    async with setup.context.tenant_transaction(tenant_id) as session:
        session.add(waiting(tenant_id))
    answer = await browser.get("/account/plan?said=chosen")
    assert "One step left" in answer.text
    assert 'href="https://rzp.io/i/abc" target="_blank" rel="noopener noreferrer"' in answer.text
    assert 'data-checkout-subscription="sub_waiting"' in answer.text
    assert "https://checkout.razorpay.com" in answer.headers["content-security-policy"]
    assert "checkout.razorpay.com" not in answer.text, "nothing of it is loaded before the click"
    for other in ("", "/bills", "/profile"):
        answer = await browser.get(f"/account{other}")
        assert "razorpay.com" not in answer.headers["content-security-policy"]


def waiting(tenant_id: UUID) -> Subscription:
    """One that Razorpay has, to be authorised."""
    return Subscription(
        tenant_id=tenant_id,
        id=uuid7(),
        state="submitted",
        is_open=True,
        plan_code="team",
        plan_version=1,
        supply={},
        gross_paise=354_000,
        total_count=12,
        created_ms=now_ms(),
        razorpay_id="sub_waiting",
        short_url="https://rzp.io/i/abc",
        status="created",
    )


async def test_a_wish_that_cannot_be_is_refused_in_words(api: Api, setup: OperatorSetup, sign_in: SignIn) -> None:
    tenant_id = await setup.tenant()
    browser = await sign_in(await api.tenant_admin(tenant_id))
    answer = await submit(browser, "/account/plan/subscribe", {"plan": "NO SUCH"})
    assert answer.status_code == 422
    assert "Choose one of the plans." in answer.text
    for wish in ("cancel", "keep", "pause", "resume"):
        assert (await browser.post(f"/account/plan/{wish}")).status_code == 404
    assert (await browser.get("/v1/billing/subscription")).json() == {"current": None, "waiting": None}


async def test_who_is_no_admin_is_told_so(api: Api, sign_in: SignIn) -> None:
    browser = await sign_in(await api.books.account(scopes=(Scope.CHAT, Scope.USAGE_READ)))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=api.app), base_url=ORIGIN) as stranger:
        for path in ("", "/plan", "/bills", "/keys", "/alerts", "/profile"):
            answer = await browser.get(f"/account{path}")
            assert (answer.status_code, answer.headers["content-type"][:9]) == (403, "text/html"), path
            asked = await stranger.get(f"/account{path}")
            assert asked.status_code == 303
            assert asked.headers["location"].startswith("/sign-in?next=%2Faccount")


async def test_another_site_changes_nothing(api: Api, sign_in: SignIn) -> None:
    admin = await api.tenant_admin()
    browser = await sign_in(admin)
    user = f"/account/keys/{admin.user_id}"
    posts = [
        *(f"/account/plan/{wish}" for wish in ("subscribe", "cancel", "keep", "pause", "resume")),
        "/account/profile",
        "/account/keys",
        user,
        f"{user}/limits",
        f"/account/key/{admin.key_id}/revoke",
        f"/account/key/{admin.key_id}/rotate",
        *(f"/account/alerts/endpoint{what}" for what in ("", "/rotate", "/delete", "/test")),
    ]
    for path in posts:
        for headers in ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}):
            assert (await browser.post(path, headers=headers)).status_code == 403, path
    assert await api.audit(admin.tenant_id) == []


@pytest.mark.slow
async def test_an_operator_sees_its_own_tenant_and_no_other(api: Api, setup: OperatorSetup, sign_in: SignIn) -> None:
    tenant_id = await setup.tenant_with_usage(7)
    await setup.close()
    (bill,) = await setup.bills(tenant_id)
    customer = await api.tenant_admin(tenant_id)
    browser = await sign_in(await api.platform_admin())
    assert "No bills yet" in await read(browser, "/account/bills")
    await _out_of_reach(browser, bill.id, customer)


async def _out_of_reach(browser: httpx2.AsyncClient, bill_id: UUID, theirs: Account) -> None:
    for path in (f"bills/{bill_id}", f"keys/{theirs.user_id}"):
        assert (await browser.get(f"/account/{path}")).status_code == 404
    for path in (f"key/{theirs.key_id}/revoke", f"key/{theirs.key_id}/rotate", f"keys/{theirs.user_id}/limits"):
        assert (await browser.post(f"/account/{path}", data={"overlap": "0"})).status_code == 404
