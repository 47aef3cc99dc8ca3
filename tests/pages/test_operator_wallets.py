"""The operator's pages of wallets, coupons and mandates."""

from uuid import UUID

import httpx2
import pytest

from billing.models import Bill, Charge, Mandate, Plan, WalletEntry
from core.clock import now_ms
from core.ids import uuid7
from tests.api.conftest import Api
from tests.billing.operator import METERS, OperatorSetup
from tests.pages.conftest import SignIn, submit
from tests.pages.test_account import words

EVIL = "<script>alert(1)</script>"


@pytest.fixture
async def setup(api: Api) -> OperatorSetup:
    """An operator with a plan that bills and one that is prepaid."""
    made = await OperatorSetup.open(api.app.state.runtime.billing)
    async with made.context.database.session() as session:
        session.add(Plan(code="pre", version=1, name="Pre", limits={}, meters=METERS, past_allowance="prepaid"))
    return made


@pytest.fixture
async def operator(api: Api, sign_in: SignIn) -> httpx2.AsyncClient:
    """The operator at a browser."""
    return await sign_in(await api.platform_admin())


@pytest.mark.slow
async def test_credit_is_given_on_a_tenants_wallet(
    api: Api, setup: OperatorSetup, operator: httpx2.AsyncClient
) -> None:
    tenant_id = await setup.tenant(plan="pre")
    here = f"/operator/tenants/{tenant_id}/wallet"
    assert f'href="{here}"' in (await operator.get(f"/operator/tenants/{tenant_id}")).text
    for fields, said in (
        ({"amount": "a lot", "reason": "x"}, "is not an amount in rupees"),
        ({"amount": "0", "reason": "x"}, "not an amount that a wallet takes"),
        ({"amount": "5", "days": "often", "reason": "x"}, "number of days"),
        ({"amount": "5", "reason": " "}, "reason is needed"),
    ):
        refused = await submit(operator, f"{here}/credits", fields)
        assert (refused.status_code, said in refused.text) == (422, True), fields
    done = await submit(operator, f"{here}/credits", {"amount": "499.50", "days": "30", "reason": EVIL})
    assert "The credit is in the wallet" in done.text
    assert EVIL not in done.text
    shown = words(await operator.get(here))
    assert "₹499.50 unused, before GST" in shown
    assert "Promotional credit ₹499.50 ₹499.50" in shown
    assert await api.audit(tenant_id) == ["wallet.credit"]
    refused = await submit(operator, f"{here}/refunds", {"reason": "leaves"})
    assert (refused.status_code, "0 paise of unused money" in refused.text) == (422, True)


async def test_a_wallet_of_another_plan_takes_no_credit_there(
    setup: OperatorSetup, operator: httpx2.AsyncClient
) -> None:
    shown = (await operator.get(f"/operator/tenants/{await setup.tenant(plan='team')}/wallet")).text
    assert "The plan is not prepaid" in shown
    assert "/wallet/credits" not in shown
    assert (await operator.get(f"/operator/tenants/{uuid7()}/wallet")).status_code == 404


async def test_movements_are_paged(setup: OperatorSetup, operator: httpx2.AsyncClient) -> None:
    tenant_id = await setup.tenant(plan="pre")
    async with setup.context.database.session() as session:
        for at in range(30):
            session.add(
                WalletEntry(
                    tenant_id=tenant_id,
                    id=uuid7(now_ms() + at),
                    kind="promotion",
                    paise=100 + at,
                    reference=f"credit:{at}",
                    created_ms=now_ms(),
                    reason="",
                )
            )
    first = await operator.get(f"/operator/tenants/{tenant_id}/wallet")
    older = first.text.split(f'href="/operator/tenants/{tenant_id}/wallet?cursor=')[1].split('"')[0]
    second = await operator.get(f"/operator/tenants/{tenant_id}/wallet?cursor={older}")
    movements = [page.text.split("newest first")[-1] for page in (first, second)]
    assert [("₹1.29" in part, "₹1.00" in part, "Older" in part) for part in movements] == [
        (True, False, True),
        (False, True, False),
    ]


@pytest.mark.slow
async def test_coupons_are_made_paged_and_ended(api: Api, operator: httpx2.AsyncClient) -> None:
    new = {"code": "hello-5", "amount": "5", "days": "30", "until": "2099-01-31", "uses": "2"}
    for wrong, said in (
        ({"code": "!"}, "A code is 3 to 40"),
        ({"amount": "much"}, "is not an amount in rupees"),
        ({"amount": "0"}, "at least"),
        ({"days": "ten"}, "number of days"),
        ({"until": "soon"}, "The last day is a date"),
        ({"uses": "0"}, "number of uses"),
    ):
        refused = await submit(operator, "/operator/coupons", new | wrong)
        assert (refused.status_code, said in refused.text) == (422, True), wrong
        assert 'value="2"' in refused.text or "uses" in wrong, "what was typed stays"
    made = await submit(operator, "/operator/coupons", new)
    assert "can be used from now on" in made.text
    assert "HELLO-5 active ₹5.00 30 days" in words(made)
    assert "a coupon with this code" in (await submit(operator, "/operator/coupons", new)).text
    admin = await api.platform_admin()
    for at in range(60):
        body = {"code": f"MORE-{at:02}", "paise": 100}
        assert (await api.http.post("/v1/admin/coupons", json=body, headers=admin.headers)).status_code == 201
    first = (await operator.get("/operator/coupons")).text
    assert ("MORE-59" in first, "HELLO-5" in first) == (True, False)
    older = first.split('href="/operator/coupons?cursor=')[1].split('"')[0]
    second = await operator.get(f"/operator/coupons?cursor={older}")
    assert ("MORE-59" in second.text, "HELLO-5" in second.text) == (False, True)
    ended = await submit(operator, "/operator/coupons/HELLO-5/end")
    assert "Credit that it gave stays" in ended.text
    assert "HELLO-5 ended" in words(await operator.get(f"/operator/coupons?cursor={older}"))


async def test_the_api_pages_coupons(api: Api) -> None:
    admin = await api.platform_admin()
    for at in range(5):
        body = {"code": f"CODE-{at}", "paise": 100}
        assert (await api.http.post("/v1/admin/coupons", json=body, headers=admin.headers)).status_code == 201
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        params = {"limit": "2"} | ({} if cursor is None else {"cursor": cursor})
        found = (await api.http.get("/v1/admin/coupons", params=params, headers=admin.headers)).json()
        seen += [one["code"] for one in found["items"]]
        cursor = found["next"]
    assert (sorted(seen), cursor) == ([f"CODE-{at}" for at in range(5)], None)


async def mandate_of(setup: OperatorSetup, tenant_id: UUID) -> None:
    """An active mandate with a debit that failed."""
    at = now_ms()
    mandate = Mandate(
        tenant_id=tenant_id,
        id=uuid7(),
        state="active",
        method="upi",
        max_paise=1_500_000,
        reference=f"m-{tenant_id.hex}",
        contact="+919812345670",
        created_ms=at,
        token_id=f"token_{tenant_id.hex[:14]}",
        authorised_ms=at,
    )
    async with setup.context.database.session() as session:
        session.add(mandate)
        bill = Bill(
            tenant_id=tenant_id,
            id=uuid7(),
            kind="overage",
            state="open",
            period_id="2027-01",
            seq=1,
            starts_ms=at,
            ends_ms=at + 1,
            plan_code="team",
            plan_version=1,
            lines=[],
            taxable_paise=11_800,
            supply={},
            tax=[],
            total_paise=11_800,
            customer={},
            supplier={},
            created_ms=at,
        )
        session.add(bill)
        await session.flush()
        session.add(
            Charge(
                tenant_id=tenant_id,
                id=uuid7(),
                bill_id=bill.id,
                attempt=1,
                instrument="mandate",
                state="void",
                amount_paise=11_800,
                reference=f"{bill.id.hex}-1",
                mandate_id=mandate.id,
                created_ms=at,
                ended_ms=at,
                error="insufficient funds",
            )
        )


async def test_mandates_with_their_latest_debits(api: Api, setup: OperatorSetup, operator: httpx2.AsyncClient) -> None:
    one, other = await setup.tenant(), await setup.tenant()
    await mandate_of(setup, one)
    await mandate_of(setup, other)
    every = words(await operator.get("/operator/mandates"))
    assert every.count("₹15,000.00") == 2
    assert every.count("insufficient funds") == 2
    its = words(await operator.get(f"/operator/mandates?tenant={one}"))
    assert (its.count("₹15,000.00"), its.count("insufficient funds")) == (1, 1)
    assert "None in this state." in words(await operator.get("/operator/mandates?state=ended"))
    assert (await operator.post(f"/operator/mandates/{one}/end", data={"reason": " "})).status_code == 422
    ended = await submit(operator, f"/operator/mandates/{one}/end", {"reason": "fraud"})
    assert "is being cancelled at Razorpay" in ended.text
    its = words(await operator.get(f"/operator/mandates?tenant={one}"))
    assert "ended" in its
    assert await api.audit(one) == ["mandate.end"]
