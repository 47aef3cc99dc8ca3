"""A delivery is stored once, in the initial state of its kind and account; few refusals are logged."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from billing.context import INBOX, BillingContext
from billing.models import RazorpayAccount, WebhookEvent
from billing.webhooks import inbox as inbox_module
from billing.webhooks.envelope import UNREADABLE, Target, read_envelope, target_of
from billing.webhooks.inbox import Inbox, Refusals, StaleEvent
from billing.webhooks.queries import KEPT_MS, list_events, prune_events
from core.clock import now_ms
from core.ids import uuid7
from core.postgres.database import Connections
from tests.billing.deliveries import ACCOUNT, MADE_S, event_body, signed, store_event
from tests.programs import until

OTHER = "acc_OtherOtherOth1"


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Connections]:
    """The inbox of an API process."""
    pool = Connections(database_url)
    await pool.start()
    yield pool
    await pool.close()


@pytest.fixture
async def box(pool: Connections) -> AsyncIterator[Inbox]:
    """An inbox with a current and a previous secret."""
    made = Inbox(pool, [SecretStr("present"), SecretStr("previous")])
    yield made
    await made.stop()


async def _events(context: BillingContext) -> list[WebhookEvent]:
    async with context.database.session() as session:
        return list(await session.scalars(select(WebhookEvent)))


async def _posted(pool: Connections) -> int:
    async with pool.acquire() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM pgqueuer.pgqueuer WHERE entrypoint = $1", INBOX))


async def test_sixteen_deliveries_at_once_are_one_event(context: BillingContext, box: Inbox) -> None:
    body = event_body()
    new = await asyncio.gather(*(box.store(body, "TmA1c9RkVe7HbN") for _ in range(16)))

    assert sum(new) == 1
    (kept,) = await _events(context)
    assert (kept.event_id, kept.kind, kept.account_id) == ("TmA1c9RkVe7HbN", "subscription.charged", ACCOUNT)
    assert (kept.body, kept.state, kept.tries) == (body, "received", 0)


async def test_one_capture_with_made_up_ids_is_one_event(context: BillingContext, box: Inbox) -> None:
    body = event_body()
    new = [await box.store(body, f"made-up-{number}") for number in range(50)]
    new += await asyncio.gather(*(box.store(body, f"at-once-{number}") for number in range(50)))
    assert (new[0], sum(new)) == (True, 1)
    (kept,) = await _events(context)
    assert (kept.event_id, kept.body_sha256) == ("made-up-0", hashlib.sha256(body).digest())


async def test_a_claimed_id_keeps_no_other_event_out(context: BillingContext, box: Inbox) -> None:
    captured, genuine = event_body(payment={"id": "pay_1"}), event_body(payment={"id": "pay_2"})
    assert await box.store(captured, "TmA1c9RkVe7HbN")
    new = await asyncio.gather(*(box.store(genuine, "TmA1c9RkVe7HbN") for _ in range(8)))
    assert sum(new) == 1
    kept = {one.event_id: one.body for one in await _events(context)}
    assert kept == {"TmA1c9RkVe7HbN": captured, hashlib.sha256(genuine).hexdigest(): genuine}


async def test_what_is_older_than_razorpays_retries_is_refused(context: BillingContext, pool: Connections) -> None:
    box = Inbox(pool, [], max_age_s=90_000)
    for age_s, kept in ((0, True), (82_000, True), (90_060, False), (8_000_000, False)):
        body = event_body().replace(str(MADE_S).encode(), str(now_ms() // 1000 - age_s).encode())
        if kept:
            assert await box.store(body, None)
        else:
            with pytest.raises(StaleEvent):
                await box.store(body, None)
    assert (len(await _events(context)), box.stale.count, box.refusals.count) == (2, 2, 0)
    assert await Inbox(pool, []).store(body, None), "where a test clock jumps, an event may be months old"
    await box.stop()


@pytest.mark.parametrize("named", [None, "", "x" * 65, "two words", "tab\there", "\x00"])
async def test_without_a_usable_id_the_body_names_it(context: BillingContext, box: Inbox, named: str | None) -> None:
    body = event_body()
    assert [await box.store(body, named) for _ in range(2)] == [True, False]
    (kept,) = await _events(context)
    assert kept.event_id == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize(
    ("body", "kind", "state"),
    [
        (event_body("token.confirmed", token={"id": "token_1"}), "token.confirmed", "received"),
        (event_body("order.paid", order={"id": "order_1"}), "order.paid", "received"),
        (event_body("settlement.processed", settlement={"id": "setl_1"}), "settlement.processed", "ignored"),
        (event_body("payment.dispute.created"), "payment.dispute.created", "received"),
        (b"not json", UNREADABLE, "parked"),
        (b"[" * 100_000, UNREADABLE, "parked"),
        (b"[]", UNREADABLE, "parked"),
        (b"\xff\xfe", UNREADABLE, "parked"),
        (b"", UNREADABLE, "parked"),
        (b'{"event": "a\\u0000b"}', UNREADABLE, "parked"),
        (b'{"event": 7}', UNREADABLE, "parked"),
        (b'{"payload": {"event": "refund.created", "account_id": "acc_1"}}', "refund.created", "received"),
    ],
)
async def test_the_state_that_it_begins_in(
    context: BillingContext, box: Inbox, body: bytes, kind: str, state: str
) -> None:
    assert await box.store(body, None)
    (kept,) = await _events(context)
    assert (kept.kind, kept.state, bool(kept.reason)) == (kind, state, state != "received")
    assert (kept.ended_ms is None) == (state == "received")


async def test_the_first_event_says_whose_and_others_are_parked(
    context: BillingContext, box: Inbox, pool: Connections
) -> None:
    async with context.database.session() as session:
        session.add(RazorpayAccount(id=1, mode="test", key_id="rzp_test_1"))
    for name, account in (("first", ACCOUNT), ("other", OTHER), ("unsaid", None), ("again", ACCOUNT)):
        await box.store(event_body("refund.created", account, refund={"id": f"rfnd_{name}"}), name)
    await Inbox(pool, []).store(event_body("refund.created", OTHER), "elsewhere")

    states = {one.event_id: one.state for one in await _events(context)}
    assert states == {
        "first": "received",
        "other": "parked",
        "unsaid": "received",
        "again": "received",
        "elsewhere": "parked",
    }
    async with context.database.session() as session:
        assert await session.scalar(select(RazorpayAccount.account_id)) == ACCOUNT


async def test_two_accounts_at_once_one_is_learnt(context: BillingContext, pool: Connections) -> None:
    async with context.database.session() as session:
        session.add(RazorpayAccount(id=1, mode="test", key_id="rzp_test_1"))
    boxes = [Inbox(pool, []) for _ in range(4)]
    accounts = enumerate((ACCOUNT, OTHER, ACCOUNT, OTHER))
    bodies = [event_body("refund.created", account, refund={"id": f"rfnd_{n}"}) for n, account in accounts]
    await asyncio.gather(*(box.store(body, str(n)) for n, (box, body) in enumerate(zip(boxes, bodies, strict=True))))

    async with context.database.session() as session:
        learnt = await session.scalar(select(RazorpayAccount.account_id))
    assert {(one.account_id == learnt, one.state) for one in await _events(context)} == {
        (True, "received"),
        (False, "parked"),
    }


async def test_the_worker_is_told_seldom_and_of_the_last(box: Inbox, pool: Connections) -> None:
    told = 0
    for _ in range(5):
        ids = [uuid7().hex for _ in range(20)]
        await asyncio.gather(*(box.store(event_body(payment={"id": f"pay_{name}"}), name) for name in ids))
    await until(lambda: _posted(pool))
    async with pool.acquire() as connection:
        await connection.execute("DELETE FROM pgqueuer.pgqueuer")
        told = await connection.fetchval("SELECT count(*) FROM pgqueuer.pgqueuer_log WHERE status = 'queued'")
    assert told < 20, "not for each event"

    await box.store(event_body(), "the-last")
    await until(lambda: _posted(pool), within_s=5)


@pytest.mark.parametrize("secret", ["present", "previous"])
def test_the_present_and_the_previous_secret(secret: str) -> None:
    box = Inbox(Connections("postgresql://nowhere/none"), [SecretStr("present"), SecretStr("previous")])
    body = event_body()
    assert box.is_genuine(body, signed(body, secret=secret)["x-razorpay-signature"])
    assert box.refusals.count == 0


@pytest.mark.parametrize("secrets", [(), ("",), ("present",)])
def test_forged_ones_are_counted(secrets: tuple[str, ...]) -> None:
    box = Inbox(Connections("postgresql://nowhere/none"), [SecretStr(secret) for secret in secrets])
    body = event_body()
    good = signed(body, secret="present")["x-razorpay-signature"]
    forged = [None, "", "0" * 64, "é" * 64, good.upper(), signed(body, secret="")["x-razorpay-signature"]]
    forged += [good] if "present" not in secrets else []
    assert not any(box.is_genuine(body, signature) for signature in forged)
    assert not box.is_genuine(body + b" ", good)
    assert box.refusals.count == len(forged) + 1


def test_of_many_refusals_few_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    at_s = 1_000.0
    monkeypatch.setattr(inbox_module, "time", SimpleNamespace(monotonic=lambda: at_s))
    said: list[tuple[str, dict[str, int]]] = []
    recorder = SimpleNamespace(warning=lambda event, **fields: said.append((event, fields)))
    monkeypatch.setattr(inbox_module, "log", recorder)  # structlog caches a used logger, which capturing would miss
    refusals = Refusals("webhook_refused")
    for at_s in (1_000.0, 1_001.0, 1_009.9, 1_010.1, 1_011.0):  # noqa: B007 - the clock reads it
        refusals.add(7)
    assert refusals.count == 5
    told = ("webhook_refused", {"bytes": 7, "not_logged": 0}), ("webhook_refused", {"bytes": 7, "not_logged": 2})
    assert said == list(told)


async def test_old_events_go_and_parked_ones_stay(context: BillingContext, pool: Connections) -> None:
    old_ms = now_ms() - KEPT_MS - 1
    for state in ("applied", "ignored", "parked", "received"):
        await store_event(context, event_body(), f"old-{state}", state=state, received_ms=old_ms)
        await store_event(context, event_body(), f"new-{state}", state=state)
    async with pool.acquire() as connection:
        await prune_events(connection)
    left = {one.event_id for one in await _events(context)}
    assert left == {"old-parked", "old-received", *(f"new-{s}" for s in ("applied", "ignored", "parked", "received"))}


async def test_pages_go_on_where_the_last_ended(context: BillingContext) -> None:
    names = [f"event-{number}" for number in range(7)]
    for name in names:
        await store_event(context, event_body(), name, received_ms=1_000 if name < "event-4" else 2_000)
    seen: list[str] = []
    async with context.database.session() as session:
        while rows := await list_events(session, before=seen[-1] if seen else None, limit=3):
            seen += [row.event_id for row in rows]
    assert seen == names[::-1]


def test_lenient_reading() -> None:
    said = {"payload": {"created_at": 5, "payment": {"entity": {"id": "pay_1", "invoice_id": "inv_1"}}}}
    envelope = read_envelope(json.dumps(said | {"event": "payment.captured"}).encode())
    assert (envelope.created_at, target_of(envelope)) == (5, Target("payment", "pay_1"))
    refund = event_body("refund.created", refund={"id": "rfnd_1", "payment_id": "pay_2"})
    assert target_of(read_envelope(refund)) == Target("payment", "pay_2")
    odds: list[dict[str, Any]] = [
        {"payment": []},
        {"payment": {"entity": None}},
        {"payment": {"entity": {"id": "pay_1\n"}}},
    ]
    for odd in odds:
        assert (
            target_of(read_envelope(json.dumps({"event": "payment.failed", "payload": {"payment": odd}}).encode()))
            is None
        )
