"""Stored events are worked off: each once, whatever dies; a poisoned one is set aside, and can be brought back."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select, update

from billing.desk import DAY_MS, Desk
from billing.event_log import replay_event
from billing.inbox import read_inbox_gauges
from billing.models import Dispute, Payment, Refund, Subscription, WebhookEvent
from billing.processing import LEASE_MS, MAX_TRIES, process_due
from core.clock import now_ms
from core.database import Database
from core.tenancy.audit import Actor
from tests import servers
from tests.billing.office import Office
from tests.billing.postbag import event, event_body, findings, put, read, subscriber
from tests.billing.till import Till
from tests.programs import until
from tests.simulated_razorpay import Razorpay

HOUR_MS = 3_600_000


def _about(row: Subscription, kind: str = "subscription.charged") -> bytes:
    return event_body(kind, subscription={"id": row.razorpay_id, "status": "halted"})


async def _make_due(desk: Desk, event_id: str, **fields: Any) -> None:
    """As if its pause were over. When an event came, the application itself may not change."""
    database = Database(servers.owner(desk.settings.database_url), pool_size=1)
    async with database.session() as session:
        changed = {"due_ms": now_ms(), **fields}
        await session.execute(update(WebhookEvent).where(WebhookEvent.event_id == event_id).values(changed))
    await database.close()


async def _claimed(desk: Desk, event_id: str) -> bool:
    return bool((await event(desk, event_id)).tries)


async def test_the_payload_is_a_hint_and_the_fetch_is_the_truth(office: Office, razorpay: Razorpay) -> None:
    row = await subscriber(office, razorpay)
    told = await put(office.desk, _about(row, "subscription.halted"))

    await process_due(office.desk)

    assert (await read(office.desk, row.tenant_id, row.id)).status == "active"
    done = await event(office.desk, told)
    assert (done.state, done.tries, done.tenant_id, done.reason) == ("applied", 1, row.tenant_id, None)
    assert done.ended_ms


async def test_many_events_of_one_thing_are_one_fetch(office: Office, razorpay: Razorpay) -> None:
    row = await subscriber(office, razorpay)
    told = [await put(office.desk, _about(row)) for _ in range(20)]

    await process_due(office.desk)

    assert {(await event(office.desk, one)).state for one in told} == {"applied"}
    assert (await read(office.desk, row.tenant_id, row.id)).applied == 1


async def test_two_processors_share_the_work_and_the_effects_are_once(office: Office, razorpay: Razorpay) -> None:
    rows = [await subscriber(office, razorpay) for _ in range(4)]
    told = [await put(office.desk, _about(row)) for row in rows for _ in range(30)]

    await asyncio.gather(*(process_due(office.desk) for _ in range(2)))

    ended = [await event(office.desk, one) for one in told]
    assert {(one.state, one.tries) for one in ended} == {("applied", 1)}
    assert [bill.state for bill in await office.bills()] == ["paid"] * 4


async def test_who_is_killed_leaves_a_lease_that_ends(office: Office, razorpay: Razorpay) -> None:
    row = await subscriber(office, razorpay)
    told = await put(office.desk, _about(row))
    razorpay.fault(route="GET /v1/subscriptions*", kind="slow", delay_s=2)
    killed = asyncio.create_task(process_due(office.desk))
    await until(lambda: _claimed(office.desk, told))
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)

    await process_due(office.desk)
    leased = await event(office.desk, told)
    assert (leased.state, leased.tries) == ("received", 1)
    assert leased.due_ms > now_ms() + LEASE_MS - 60_000, "nobody takes it before the lease ends"

    await _make_due(office.desk, told)
    await process_due(office.desk)
    assert ((await event(office.desk, told)).state, len(await office.bills())) == ("applied", 1)


async def test_what_kills_every_worker_is_parked(office: Office, razorpay: Razorpay) -> None:
    row = await subscriber(office, razorpay)
    deadly = await put(office.desk, _about(row), tries=MAX_TRIES)

    await process_due(office.desk)

    assert (await event(office.desk, deadly)).state == "parked"
    assert await findings(office.desk) == ["webhook_parked"]


async def test_a_poisoned_event_is_parked_and_can_be_replayed(office: Office, razorpay: Razorpay) -> None:
    good, bad = await subscriber(office, razorpay), await subscriber(office, razorpay, plan_code="nowhere")
    poison, fine = await put(office.desk, _about(bad)), await put(office.desk, _about(good))

    pauses = []
    for _ in range(MAX_TRIES):
        await process_due(office.desk)
        waiting = await event(office.desk, poison)
        pauses.append(round((waiting.due_ms - now_ms()) / 1000))
        await _make_due(office.desk, poison)

    parked = await event(office.desk, poison)
    assert (parked.state, parked.tries) == ("parked", MAX_TRIES)
    assert parked.reason
    assert [round(pause, -1) for pause in pauses[1:5]] == [30, 120, 600, 3600]
    assert (await event(office.desk, fine)).state == "applied", "the others go on"
    assert await findings(office.desk) == ["webhook_parked"]

    async with office.desk.database.session() as session:
        (await session.get_one(Subscription, (bad.tenant_id, bad.id))).plan_code = "team"
        await replay_event(session, Actor("test"), poison)
    await process_due(office.desk)

    assert ((await event(office.desk, poison)).state, (await event(office.desk, poison)).tries) == ("applied", 1)


async def test_an_applied_event_may_be_replayed(office: Office, razorpay: Razorpay) -> None:
    row = await subscriber(office, razorpay)
    told = await put(office.desk, _about(row))
    await process_due(office.desk)
    before = await office.everything()

    async with office.desk.database.session() as session:
        await replay_event(session, Actor("test"), told)
    await process_due(office.desk)

    assert (await event(office.desk, told)).state == "applied"
    assert await office.everything() == before


async def test_razorpay_away_is_no_failure_of_an_event_for_a_day(office: Office, razorpay: Razorpay) -> None:
    row = await subscriber(office, razorpay)
    told = await put(office.desk, _about(row))
    razorpay.fault(route="GET *", kind="error", status=503, times=None)
    for age_ms, pause_s in ((0, 5), (60_000, 15), (HOUR_MS, 600), (23 * HOUR_MS, 600)):
        await _make_due(office.desk, told, received_ms=now_ms() - age_ms)
        await process_due(office.desk)
        waits = await event(office.desk, told)
        assert (waits.state, waits.tries) == ("received", 0)
        assert abs((waits.due_ms - now_ms()) / 1000 - pause_s) < 15
        assert waits.due_ms > now_ms() - 1000 + pause_s * 700

    await _make_due(office.desk, told, received_ms=now_ms() - DAY_MS - 1)
    await process_due(office.desk)
    assert (await event(office.desk, told)).tries == 1, "after a day it counts"

    razorpay.clear_faults()
    await _make_due(office.desk, told)
    await process_due(office.desk)
    assert (await event(office.desk, told)).state == "applied"


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
async def test_nothing_of_ours(office: Office, kind: str, entity: dict[str, Any], state: str) -> None:
    told = await put(office.desk, event_body(kind, **{kind.rpartition(".")[0]: entity}))

    await process_due(office.desk)

    ended = await event(office.desk, told)
    assert (ended.state, bool(ended.reason), ended.tenant_id) == (state, True, None)


async def test_a_subscription_whose_making_was_in_doubt_is_adopted(office: Office, razorpay: Razorpay) -> None:
    row = await subscriber(office, razorpay)
    async with office.desk.database.session() as session:
        lost = await session.get_one(Subscription, (row.tenant_id, row.id))
        lost.razorpay_id, lost.state = None, "submitting"
    told = await put(office.desk, _about(row))

    await process_due(office.desk)

    now = await read(office.desk, row.tenant_id, row.id)
    assert (now.razorpay_id, now.state, now.status) == (row.razorpay_id, "submitted", "active")
    assert (await event(office.desk, told)).tenant_id == row.tenant_id


async def test_any_event_of_a_payment_leads_to_its_subscription(office: Office, razorpay: Razorpay) -> None:
    row = await subscriber(office, razorpay)
    (payment,) = razorpay.ledger()["payments"]
    told = await put(office.desk, event_body("payment.captured", payment={"id": payment["id"]}))

    await process_due(office.desk)

    assert (await event(office.desk, told)).tenant_id == row.tenant_id
    assert (await read(office.desk, row.tenant_id, row.id)).paid_count == 1


async def test_refunds_and_disputes_of_a_payment(office: Office, razorpay: Razorpay) -> None:
    await subscriber(office, razorpay)
    (payment,) = razorpay.ledger()["payments"]
    refund = razorpay.refund_payment(payment["id"], 1_000)
    dispute = razorpay.dispute(payment["id"], 2_000)
    told = [
        await put(office.desk, event_body("payment.dispute.created", dispute=dispute)),
        await put(office.desk, event_body("refund.created", refund=refund)),
    ]

    await process_due(office.desk)

    assert {(await event(office.desk, one)).state for one in told} == {"applied"}
    async with office.desk.database.session() as session:
        (row,) = (await session.scalars(select(Payment))).all()
        refunds = (await session.scalars(select(Refund.amount_paise))).all()
        disputes = (await session.scalars(select(Dispute.amount_paise))).all()
    assert (row.refunded_paise, refunds, disputes) == (1_000, [1_000], [2_000])


async def test_a_paid_link_pays_its_bill(desk: Desk, razorpay: Razorpay) -> None:
    till = await Till.open(desk, razorpay)
    bill_id = await till.bill()
    await till.collect()
    (link,) = till.links()
    razorpay.pay_link(link["id"])
    told = await put(desk, event_body("payment_link.paid", payment_link={"id": link["id"]}))

    await process_due(desk)

    assert (await till.read(bill_id)).state == "paid"
    assert (await event(desk, told)).tenant_id == till.tenant_id


async def test_the_gauges_say_what_waits(desk: Desk) -> None:
    await put(desk, event_body(), received_ms=now_ms() - 60_000)
    await put(desk, event_body(), state="parked")
    await put(desk, event_body(), state="applied")

    async with desk.database.engine.connect() as connection:
        raw = await connection.get_raw_connection()
        gauges = await read_inbox_gauges(raw.driver_connection)

    assert (gauges.received, gauges.parked) == (1, 1)
    assert 60 <= gauges.lag_s < 70
