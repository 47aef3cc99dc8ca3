"""Processing of stored events: each once through crashes; a failing one is parked and can be replayed."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select, update

from billing.context import BillingContext
from billing.models import Dispute, Payment, Refund, Subscription, WebhookEvent
from billing.webhooks.inbox import read_inbox_gauges
from billing.webhooks.processing import LEASE_MS, MAX_TRIES, process_events
from billing.webhooks.queries import replay_event
from core.clock import DAY_MS, now_ms
from core.postgres.database import Database
from core.tenancy.audit import Actor
from tests import servers
from tests.billing.billed_tenant import BilledTenant
from tests.billing.deliveries import event_body, findings, read_event, read_subscription, store_event, subscriber
from tests.billing.operator import OperatorSetup
from tests.programs import until
from tests.simulated_razorpay import Razorpay

HOUR_MS = 3_600_000


def _about(row: Subscription, kind: str = "subscription.charged") -> bytes:
    return event_body(kind, subscription={"id": row.razorpay_id, "status": "halted"})


async def _make_due(context: BillingContext, event_id: str, **fields: Any) -> None:
    """Ends an event's pause. The application's role may not update `received_ms`."""
    database = Database(servers.owner(context.settings.database_url), pool_size=1)
    async with database.session() as session:
        changed = {"due_ms": now_ms(), **fields}
        await session.execute(update(WebhookEvent).where(WebhookEvent.event_id == event_id).values(changed))
    await database.close()


async def _claimed(context: BillingContext, event_id: str) -> bool:
    return bool((await read_event(context, event_id)).tries)


async def test_the_payload_is_a_hint_and_the_fetch_is_the_truth(setup: OperatorSetup, razorpay: Razorpay) -> None:
    row = await subscriber(setup, razorpay)
    told = await store_event(setup.context, _about(row, "subscription.halted"))

    await process_events(setup.context)

    assert (await read_subscription(setup.context, row.tenant_id, row.id)).status == "active"
    done = await read_event(setup.context, told)
    assert (done.state, done.tries, done.tenant_id, done.reason) == ("applied", 1, row.tenant_id, None)
    assert done.ended_ms


async def test_many_events_of_one_thing_are_one_fetch(setup: OperatorSetup, razorpay: Razorpay) -> None:
    row = await subscriber(setup, razorpay)
    told = [await store_event(setup.context, _about(row)) for _ in range(20)]

    await process_events(setup.context)

    assert {(await read_event(setup.context, one)).state for one in told} == {"applied"}
    assert (await read_subscription(setup.context, row.tenant_id, row.id)).applied == 1


@pytest.mark.slow
async def test_two_processors_share_the_work_and_the_effects_are_once(setup: OperatorSetup, razorpay: Razorpay) -> None:
    rows = [await subscriber(setup, razorpay) for _ in range(4)]
    told = [await store_event(setup.context, _about(row)) for row in rows for _ in range(30)]

    await asyncio.gather(*(process_events(setup.context) for _ in range(2)))

    ended = [await read_event(setup.context, one) for one in told]
    assert {(one.state, one.tries) for one in ended} == {("applied", 1)}
    assert [bill.state for bill in await setup.bills()] == ["paid"] * 4


@pytest.mark.slow
async def test_who_is_killed_leaves_a_lease_that_ends(setup: OperatorSetup, razorpay: Razorpay) -> None:
    row = await subscriber(setup, razorpay)
    told = await store_event(setup.context, _about(row))
    razorpay.fault(route="GET /v1/subscriptions*", kind="slow", delay_s=2)
    killed = asyncio.create_task(process_events(setup.context))
    await until(lambda: _claimed(setup.context, told))
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)

    await process_events(setup.context)
    leased = await read_event(setup.context, told)
    assert (leased.state, leased.tries) == ("received", 1)
    assert leased.due_ms > now_ms() + LEASE_MS - 60_000, "nobody takes it before the lease ends"

    await _make_due(setup.context, told)
    await process_events(setup.context)
    assert ((await read_event(setup.context, told)).state, len(await setup.bills())) == ("applied", 1)


async def test_what_kills_every_worker_is_parked(setup: OperatorSetup, razorpay: Razorpay) -> None:
    row = await subscriber(setup, razorpay)
    deadly = await store_event(setup.context, _about(row), tries=MAX_TRIES)

    await process_events(setup.context)

    assert (await read_event(setup.context, deadly)).state == "parked"
    assert await findings(setup.context) == ["webhook_parked"]


@pytest.mark.slow
async def test_a_poisoned_event_is_parked_and_can_be_replayed(setup: OperatorSetup, razorpay: Razorpay) -> None:
    good, bad = await subscriber(setup, razorpay), await subscriber(setup, razorpay, plan_code="nowhere")
    poison, fine = await store_event(setup.context, _about(bad)), await store_event(setup.context, _about(good))

    pauses = []
    for _ in range(MAX_TRIES):
        await process_events(setup.context)
        waiting = await read_event(setup.context, poison)
        pauses.append(round((waiting.due_ms - now_ms()) / 1000))
        await _make_due(setup.context, poison)

    parked = await read_event(setup.context, poison)
    assert (parked.state, parked.tries) == ("parked", MAX_TRIES)
    assert parked.reason
    assert [round(pause, -1) for pause in pauses[1:5]] == [30, 120, 600, 3600]
    assert (await read_event(setup.context, fine)).state == "applied", "the others go on"
    assert await findings(setup.context) == ["webhook_parked"]

    async with setup.context.database.session() as session:
        (await session.get_one(Subscription, (bad.tenant_id, bad.id))).plan_code = "team"
        await replay_event(session, Actor("test"), poison)
    await process_events(setup.context)

    assert ((await read_event(setup.context, poison)).state, (await read_event(setup.context, poison)).tries) == (
        "applied",
        1,
    )


async def test_an_applied_event_may_be_replayed(setup: OperatorSetup, razorpay: Razorpay) -> None:
    row = await subscriber(setup, razorpay)
    told = await store_event(setup.context, _about(row))
    await process_events(setup.context)
    before = await setup.all_rows()

    async with setup.context.database.session() as session:
        await replay_event(session, Actor("test"), told)
    await process_events(setup.context)

    assert (await read_event(setup.context, told)).state == "applied"
    assert await setup.all_rows() == before


@pytest.mark.slow
async def test_razorpay_away_is_no_failure_of_an_event_for_a_day(setup: OperatorSetup, razorpay: Razorpay) -> None:
    row = await subscriber(setup, razorpay)
    told = await store_event(setup.context, _about(row))
    razorpay.fault(route="GET *", kind="error", status=503, times=None)
    for age_ms, pause_s in ((0, 5), (60_000, 15), (HOUR_MS, 600), (23 * HOUR_MS, 600)):
        await _make_due(setup.context, told, received_ms=now_ms() - age_ms)
        await process_events(setup.context)
        waits = await read_event(setup.context, told)
        assert (waits.state, waits.tries) == ("received", 0)
        assert abs((waits.due_ms - now_ms()) / 1000 - pause_s) < 15
        assert waits.due_ms > now_ms() - 1000 + pause_s * 700

    await _make_due(setup.context, told, received_ms=now_ms() - DAY_MS - 1)
    await process_events(setup.context)
    assert (await read_event(setup.context, told)).tries == 1, "after a day it counts"

    razorpay.clear_faults()
    await _make_due(setup.context, told)
    await process_events(setup.context)
    assert (await read_event(setup.context, told)).state == "applied"


@pytest.mark.parametrize(
    ("kind", "entity", "state"),
    [
        ("subscription.charged", {"id": "sub_TmA1c9RkVe7HbN"}, "ignored"),
        ("payment.captured", {"id": "pay_TmA1c9RkVe7HbN"}, "ignored"),
        ("payment_link.paid", {"id": "plink_TmA1c9RkVe7Hb"}, "ignored"),
        ("refund.processed", {"id": "rfnd_TmA1c9RkVe7Hb", "payment_id": "pay_TmA1c9RkVe7HbN"}, "ignored"),
        ("invoice.paid", {"id": "inv_TmA1c9RkVe7HbN"}, "ignored"),
        ("subscription.charged", {"id": "../payments/pay_1"}, "parked"),
        ("subscription.charged", {"id": ["sub_1"]}, "parked"),
        ("subscription.charged", {}, "parked"),
    ],
)
async def test_nothing_of_ours(setup: OperatorSetup, kind: str, entity: dict[str, Any], state: str) -> None:
    told = await store_event(setup.context, event_body(kind, **{kind.rpartition(".")[0]: entity}))

    await process_events(setup.context)

    ended = await read_event(setup.context, told)
    assert (ended.state, bool(ended.reason), ended.tenant_id) == (state, True, None)


async def test_a_subscription_whose_making_was_in_doubt_is_adopted(setup: OperatorSetup, razorpay: Razorpay) -> None:
    row = await subscriber(setup, razorpay)
    async with setup.context.database.session() as session:
        lost = await session.get_one(Subscription, (row.tenant_id, row.id))
        lost.razorpay_id, lost.state = None, "submitting"
    told = await store_event(setup.context, _about(row))

    await process_events(setup.context)

    now = await read_subscription(setup.context, row.tenant_id, row.id)
    assert (now.razorpay_id, now.state, now.status) == (row.razorpay_id, "submitted", "active")
    assert (await read_event(setup.context, told)).tenant_id == row.tenant_id


async def test_any_event_of_a_payment_leads_to_its_subscription(setup: OperatorSetup, razorpay: Razorpay) -> None:
    row = await subscriber(setup, razorpay)
    (payment,) = razorpay.ledger()["payments"]
    told = await store_event(setup.context, event_body("payment.captured", payment={"id": payment["id"]}))

    await process_events(setup.context)

    assert (await read_event(setup.context, told)).tenant_id == row.tenant_id
    assert (await read_subscription(setup.context, row.tenant_id, row.id)).paid_count == 1


async def test_refunds_and_disputes_of_a_payment(setup: OperatorSetup, razorpay: Razorpay) -> None:
    await subscriber(setup, razorpay)
    (payment,) = razorpay.ledger()["payments"]
    refund = razorpay.refund_payment(payment["id"], 1_000)
    dispute = razorpay.dispute(payment["id"], 2_000)
    told = [
        await store_event(setup.context, event_body("payment.dispute.created", dispute=dispute)),
        await store_event(setup.context, event_body("refund.created", refund=refund)),
    ]

    await process_events(setup.context)

    assert {(await read_event(setup.context, one)).state for one in told} == {"applied"}
    async with setup.context.database.session() as session:
        (row,) = (await session.scalars(select(Payment))).all()
        refunds = (await session.scalars(select(Refund.amount_paise))).all()
        disputes = (await session.scalars(select(Dispute.amount_paise))).all()
    assert (row.refunded_paise, refunds, disputes) == (1_000, [1_000], [2_000])


async def test_a_paid_link_pays_its_bill(context: BillingContext, razorpay: Razorpay) -> None:
    tenant = await BilledTenant.open(context, razorpay)
    bill_id = await tenant.bill()
    await tenant.collect()
    (link,) = tenant.links()
    razorpay.pay_link(link["id"])
    told = await store_event(context, event_body("payment_link.paid", payment_link={"id": link["id"]}))

    await process_events(context)

    assert (await tenant.read(bill_id)).state == "paid"
    assert (await read_event(context, told)).tenant_id == tenant.tenant_id


async def test_the_gauges_say_what_waits(context: BillingContext) -> None:
    await store_event(context, event_body(), received_ms=now_ms() - 60_000)
    await store_event(context, event_body(), state="parked")
    await store_event(context, event_body(), state="applied")

    async with context.database.engine.connect() as connection:
        raw = await connection.get_raw_connection()
        gauges = await read_inbox_gauges(raw.driver_connection)

    assert (gauges.received, gauges.parked) == (1, 1)
    assert 60 <= gauges.lag_s < 70
