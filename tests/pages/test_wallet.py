"""The account page *Wallet*: balance, top-ups, coupons and settings."""

import httpx2
import pytest
from sqlalchemy import update

from billing.models import Charge, Plan
from billing.prepaid.credit import new_coupon
from core.tenancy.audit import Actor
from tests.api.conftest import Api
from tests.billing.operator import METERS, OperatorSetup
from tests.pages.conftest import SignIn
from tests.pages.test_account import read, words


@pytest.fixture
async def setup(api: Api) -> OperatorSetup:
    """An operator with a plan that bills and one that is prepaid."""
    made = await OperatorSetup.open(api.app.state.runtime.billing)
    async with made.context.database.session() as session:
        session.add(Plan(code="pre", version=1, name="Pre", limits={}, meters=METERS, past_allowance="prepaid"))
        await new_coupon(
            session, Actor("test"), code="HELLO", paise=5_000, credit_days=30, expires_ms=None, max_uses=None
        )
    return made


async def post(browser: httpx2.AsyncClient, what: str, status: int = 200, **fields: str) -> str:
    """Sends a form, and reads the page that it leads to."""
    answer = await browser.post(f"/account/wallet/{what}", data=fields)
    assert answer.status_code == 303, answer.text
    answer = await browser.get(answer.headers["location"])
    assert answer.status_code == status, answer.text
    return words(answer)


@pytest.mark.slow
async def test_the_page_of_a_prepaid_tenant(api: Api, setup: OperatorSetup, sign_in: SignIn) -> None:
    tenant_id = await setup.tenant(plan="pre")
    browser = await sign_in(await api.tenant_admin(tenant_id))
    assert "requests are refused until you add money" in await read(browser, "/account/wallet")
    assert "not a coupon" in await post(browser, "coupons", 422, code="!")
    assert "This code is not valid" in await post(browser, "coupons", 422, code="NOBODY")
    await post(browser, "coupons", code="hello")
    shown = await read(browser, "/account/wallet?said=redeemed")
    assert "₹50.00 Balance, before GST" in shown
    assert "The coupon's credit is added." in shown
    assert "used before" in await post(browser, "coupons", 409, code="hello")

    assert "An amount in rupees" in await post(browser, "top-ups", 422, paise="a lot")
    assert "An amount of 10 to" in await post(browser, "top-ups", 422, paise="1")
    await post(browser, "top-ups", paise="1,000")
    assert "₹1,000.00 waits for your payment of ₹1,180.00 with GST" in await read(browser, "/account/wallet")

    assert "needs both amounts" in await post(browser, "settings", 422, low_paise="200", top_up_paise="500")
    await post(browser, "settings", low_paise="200", top_up_below_paise="499.50", top_up_paise="500")
    page = (await browser.get("/account/wallet")).text
    assert 'value="499.50"' in page


@pytest.mark.slow
async def test_a_top_up_by_qr_code_shows_the_code(api: Api, setup: OperatorSetup, sign_in: SignIn) -> None:
    tenant_id = await setup.tenant(plan="pre")
    browser = await sign_in(await api.tenant_admin(tenant_id))
    await post(browser, "top-ups", paise="500", by_qr="yes")
    answered = {"state": "submitted", "short_url": "https://razorpay.example/qr.png", "expire_by_ms": 1_900_000_000_000}
    async with setup.context.database.session() as session:
        assert await session.scalar(update(Charge).values(**answered).returning(Charge.instrument)) == "qr_code"
    page = (await browser.get("/account/wallet")).text
    assert "Show QR code at Razorpay" in page
    assert 'href="https://razorpay.example/qr.png"' in page
    assert "<svg" not in page.split("Add money")[1].split("<form")[0], "no code without its link"
    async with setup.context.database.session() as session:
        await session.execute(update(Charge).values(upi_link="upi://pay?pa=naka@example&am=590.00"))
    page = (await browser.get("/account/wallet")).text
    assert 'aria-label="UPI QR code"' in page
    assert 'href="upi://pay?pa=naka@example&amp;am=590.00"' in page


async def test_a_tenant_that_is_not_prepaid(api: Api, setup: OperatorSetup, sign_in: SignIn) -> None:
    browser = await sign_in(await api.tenant_admin(await setup.tenant(plan="team")))
    assert "Your plan is not prepaid" in await read(browser, "/account/wallet")
    assert "/account/wallet/coupons" not in (await browser.get("/account/wallet")).text
    await read(browser, "/account/bills")
