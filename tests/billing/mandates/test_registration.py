"""Registering, authorising, replacing and ending a mandate, with lost answers and lost webhooks."""

import asyncio

import pytest

from billing.mandates.mandates import end_mandate, register_mandate
from billing.models import Mandate
from billing.reconciliation import reconcile_razorpay
from core.errors import Conflict, Invalid, NotFound
from tests.billing.mandated import CONTACT, MandatedTenant
from tests.billing.signup import ACTOR, Signup


@pytest.fixture
async def tenant(signup: Signup) -> MandatedTenant:
    """A tenant on a plan whose ceiling is above what may be debited."""
    return await MandatedTenant.start(signup)


async def test_a_mandate_is_authorised_and_its_payment_given_back(tenant: MandatedTenant) -> None:
    wish = await tenant.wish()
    assert (wish.state, wish.max_paise, wish.short_url is not None) == ("submitted", 1_500_000, True)
    assert (await tenant.wish()).id == wish.id  # asked twice
    tenant.razorpay.register(str(wish.razorpay_id))
    for _ in range(2):
        await tenant.fetch(wish)
    active = await tenant.mandate(wish.id)
    assert (active.state, active.wanted_end, active.paused_ms) == ("active", None, None)
    [token] = tenant.tokens()
    assert (active.token_id, token["max_amount"]) == (token["id"], 1_500_000)
    assert active.expires_ms == token["expired_at"] * 1000
    await tenant.work()
    [payment], [refund] = await tenant.payments(), await tenant.refunds()
    assert (payment.amount_paise, payment.excess_paise, payment.bill_id) == (100, 100, None)
    assert (refund.amount_paise, refund.cause) == (100, f"mandate:{payment.razorpay_id}")
    assert tenant.net_collected() == 0
    assert await tenant.findings() == []


async def test_the_maximum_is_the_ceiling_with_gst_or_less(signup: Signup) -> None:
    tenant = await MandatedTenant.start(signup, "solid")
    with pytest.raises(Conflict, match="nothing to debit"):
        await tenant.wish()
    await MandatedTenant.start(signup, "small")
    with pytest.raises(Invalid, match="maximum"):
        await tenant.wish(max_paise=472_001)
    assert (await tenant.wish(max_paise=100_000)).max_paise == 100_000
    await end_mandate(tenant.context, ACTOR, tenant.tenant_id, reason="too small")
    await tenant.work()
    assert (await tenant.wish()).max_paise == 472_000


async def test_a_mandate_needs_a_phone_number(tenant: MandatedTenant) -> None:
    with pytest.raises(Invalid, match="phone"):
        await register_mandate(tenant.context, ACTOR, tenant.tenant_id, method="upi")
    with pytest.raises(Invalid, match="upi, card"):
        await register_mandate(tenant.context, ACTOR, tenant.tenant_id, method="emandate", contact=CONTACT)


@pytest.mark.parametrize("kind", ["html", "cut"])
async def test_a_lost_answer_makes_one_registration(tenant: MandatedTenant, kind: str) -> None:
    tenant.razorpay.fault(route="POST /v1/subscription_registration/auth_links", kind=kind, when="after")
    wish = await tenant.wish()
    assert wish.state == "submitting"
    await tenant.work()
    found = await tenant.mandate(wish.id)
    assert (found.state, found.razorpay_id is not None) == ("submitted", True)
    await tenant.pass_time(lag=True)
    assert len(links(tenant)) == 1


async def test_a_call_without_effect_is_made_again_once_lists_have_caught_up(tenant: MandatedTenant) -> None:
    tenant.razorpay.fault(route="POST /v1/subscription_registration/auth_links", kind="html", when="before")
    wish = await tenant.wish()
    await tenant.work()
    assert (await tenant.mandate(wish.id)).state == "submitting"
    await tenant.pass_time(lag=True)
    await tenant.work()
    assert (await tenant.mandate(wish.id)).state == "submitted"
    assert len(links(tenant)) == 1


async def test_a_lost_webhook_is_made_up_for_by_the_duty(tenant: MandatedTenant) -> None:
    wish = await tenant.wish()
    tenant.razorpay.register(str(wish.razorpay_id))
    await tenant.work()
    assert (await tenant.mandate(wish.id)).state == "submitted"  # it was just created
    await tenant.pass_time(lag=True)
    assert (await tenant.mandate(wish.id)).state == "active"


async def test_the_comparison_finds_a_mandate_that_no_webhook_told_of(tenant: MandatedTenant) -> None:
    wish = await tenant.wish()
    tenant.razorpay.register(str(wish.razorpay_id))
    report = await reconcile_razorpay(tenant.context)
    assert ([one["kind"] for one in report.healed], report.unexplained) == (["mandate"], [])
    assert (await tenant.mandate(wish.id)).state == "active"
    await tenant.collect()
    assert tenant.net_collected() == 0


async def test_a_rejected_one_is_void_and_its_payment_is_left_to_razorpay(tenant: MandatedTenant) -> None:
    wish = await tenant.wish()
    tenant.razorpay.register(str(wish.razorpay_id), answer="rejected")
    await tenant.fetch(wish)
    assert (await tenant.mandate(wish.id)).state == "void"
    await tenant.pass_time(hours=1)
    assert tenant.net_collected() == 0
    assert (await tenant.wish()).id != wish.id


async def test_an_expired_or_refused_wish_is_void(tenant: MandatedTenant) -> None:
    wish = await tenant.wish()
    await tenant.signup.advance(days=40)
    await tenant.work()
    assert (await tenant.mandate(wish.id)).state == "void"
    tenant.razorpay.fault(
        route="POST /v1/subscription_registration/auth_links",
        kind="error",
        status=400,
        code="BAD_REQUEST_ERROR",
        description="not enabled",
    )
    refused = await tenant.wish()
    assert (refused.state, "not enabled" in str(refused.error)) == ("void", True)


@pytest.mark.slow
async def test_a_slow_refusal_of_our_key_does_not_open_another_calls_claim(tenant: MandatedTenant) -> None:
    """Two calls are under way: the first, refused late, would let a third one make a second registration."""
    tenant.razorpay.fault(
        route="POST /v1/subscription_registration/auth_links",
        kind="error",
        status=401,
        code="BAD_REQUEST_ERROR",
        description="no",
        delay_s=1,
    )
    call = asyncio.create_task(tenant.wish())
    for _ in range(500):
        if [one.state for one in await tenant.mandates()] == ["submitting"]:
            break
        await asyncio.sleep(0.01)
    [claimed] = await tenant.mandates()
    async with tenant.context.locked(claimed) as (_, fresh):
        fresh.tried_ms = (claimed.tried_ms or 0) + 1  # another worker claimed it since
    assert (await call).state == "submitting"
    assert (await tenant.mandate(claimed.id)).tried_ms == (claimed.tried_ms or 0) + 1


async def test_a_refusal_of_our_key_leaves_the_wish(tenant: MandatedTenant) -> None:
    route = "POST /v1/subscription_registration/auth_links"
    tenant.razorpay.fault(route=route, kind="error", status=401, code="BAD_REQUEST_ERROR", description="no")
    wish = await tenant.wish()
    assert (wish.state, "401" in str(wish.error)) == ("intended", True)
    await tenant.work()
    assert (await tenant.mandate(wish.id)).state == "submitted"


async def test_a_newer_mandate_replaces_the_active_one(tenant: MandatedTenant) -> None:
    first = await tenant.authorised()
    second = await tenant.authorised("card")
    assert [one.state for one in await tenant.mandates()] == ["ended", "active"]
    await tenant.work()
    await tenant.work()
    old = await tenant.mandate(first.id)
    assert (old.state, old.wanted_end) == ("ended", None)
    assert [one["id"] for one in tenant.tokens("confirmed")] == [second.token_id]
    assert tenant.net_collected() == 0


async def test_a_mandate_is_ended_by_the_tenant(tenant: MandatedTenant) -> None:
    with pytest.raises(NotFound):
        await end_mandate(tenant.context, ACTOR, tenant.tenant_id, reason="none")
    active = await tenant.authorised()
    tenant.razorpay.fault(route=f"PUT /v1/customers/{active.customer_id}/tokens/{active.token_id}/cancel", kind="html")
    await end_mandate(tenant.context, ACTOR, tenant.tenant_id, reason="the tenant's wish")
    assert (await tenant.mandate(active.id)).state == "ended"
    await tenant.work()
    await tenant.work()
    assert (await tenant.mandate(active.id)).wanted_end is None
    assert tenant.tokens("confirmed") == []


@pytest.mark.parametrize("authorised_late", [False, True])
async def test_a_wish_given_up_leaves_no_mandate(tenant: MandatedTenant, *, authorised_late: bool) -> None:
    wish = await tenant.wish()
    await end_mandate(tenant.context, ACTOR, tenant.tenant_id, reason="changed my mind")
    if authorised_late:
        tenant.razorpay.register(str(wish.razorpay_id))
    for _ in range(4):
        await tenant.work()
    ended = await tenant.mandate(wish.id)
    assert (ended.state, ended.wanted_end) == ("ended" if authorised_late else "void", None)
    assert tenant.tokens("confirmed") == []
    assert tenant.net_collected() == 0


async def test_a_link_authorised_after_it_was_closed_is_undone(tenant: MandatedTenant) -> None:
    wish = await tenant.wish()
    await end_mandate(tenant.context, ACTOR, tenant.tenant_id, reason="changed my mind")
    await tenant.work()
    assert (await tenant.mandate(wish.id)).state == "void"
    tenant.razorpay.register(str(wish.razorpay_id), late=True)
    await tenant.fetch(wish)
    for _ in range(3):
        await tenant.work()
    assert (await tenant.mandate(wish.id)).wanted_end is None
    assert tenant.tokens("confirmed") == []
    assert tenant.net_collected() == 0


async def test_what_the_customer_does_in_its_app_is_learnt_by_a_fetch(tenant: MandatedTenant) -> None:
    active = await tenant.authorised()
    for action, paused in (("pause", True), ("resume", False)):
        tenant.razorpay.mandate(str(active.token_id), action)
        await tenant.fetch(active)
        assert ((await tenant.mandate(active.id)).paused_ms is not None) == paused
    tenant.razorpay.mandate(str(active.token_id), "cancel")
    await tenant.pass_time(hours=25)  # no webhook told
    gone: Mandate = await tenant.mandate(active.id)
    assert (gone.state, gone.wanted_end) == ("ended", None)


def links(tenant: MandatedTenant) -> list[object]:
    """The registration links at Razorpay."""
    return [one for one in tenant.razorpay.ledger()["invoices"] if one.get("type") == "link"]
