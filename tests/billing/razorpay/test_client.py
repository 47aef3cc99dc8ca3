"""The Razorpay client: the real SDK against a scripted, misbehaving server."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from pydantic import SecretStr

from billing.razorpay.calls import MAX_PAGES, PAGE
from billing.razorpay.client import Razorpay
from billing.razorpay.errors import (
    RazorpayBusy,
    RazorpayError,
    RazorpayInDoubt,
    RazorpayRefused,
    RazorpayThrottled,
    RazorpayUnavailable,
)
from billing.razorpay.transport import Patience
from tests.billing.scripted_razorpay import Asked, Scripted, Step, says

SECRET = "do-not-tell-anybody"
LOGIN = f"rzp_test_me:{SECRET}"
QUICK = Patience(connect_s=0.5, read_s=0.15, whole_s=1, thread_s=0.2, first_wait_s=0.01, longest_wait_s=0.05)
SUB, PAY, LINK, ADDON = "sub_TmA1c9RkVe7HbN", "pay_TpC5m1BuFo8SlY", "plink_TnB3u6YpWc5JqE", "ao_TpC1i6XqBk4OhU"

Call = Callable[[Razorpay], Awaitable[Any]]
WRITES: dict[str, Call] = {
    "plan": lambda rzp: rzp.create_plan(name="Team", amount_paise=353_882, notes={"plan": "team-1"}),
    "subscribe": lambda rzp: rzp.create_subscription(plan_id="plan_1", total_count=12, notes={"intent": "i1"}),
    "cancel": lambda rzp: rzp.cancel_subscription(SUB),
    "pause": lambda rzp: rzp.pause_subscription(SUB),
    "resume": lambda rzp: rzp.resume_subscription(SUB),
    "refund": lambda rzp: rzp.refund(PAY, amount_paise=100, key="refund-0001", notes={}),
    "link": lambda rzp: rzp.create_payment_link(
        amount_paise=118_000,
        reference_id="ovg_1",
        description="Overage",
        customer={"email": "a@nimbus.example"},
        expire_by=1,
        notes={},
    ),
    "unlink": lambda rzp: rzp.cancel_payment_link(LINK),
    "addon": lambda rzp: rzp.create_addon(SUB, name="ovg_1", amount_paise=118_000, description="Overage"),
    "delete": lambda rzp: rzp.delete_addon(ADDON),
    "register": lambda rzp: rzp.create_registration(
        method="upi",
        max_paise=1_180_000,
        token_expires_at=2,
        expire_by=1,
        receipt="m-1",
        description="Usage",
        customer={"contact": "+919812345670"},
        notes={},
    ),
    "unregister": lambda rzp: rzp.cancel_registration("inv_1"),
    "qr code": lambda rzp: rzp.create_qr_code(
        name="Naka", amount_paise=118_000, description="Top-up", close_by=1_793_865_600, notes={}
    ),
    "close": lambda rzp: rzp.close_qr_code("qr_1"),
    "untoken": lambda rzp: rzp.cancel_token("cust_1", "token_1"),
    "order": lambda rzp: rzp.create_order(amount_paise=118_000, receipt="b-1", notes={}),
    "debit": lambda rzp: rzp.debit_token(
        order_id="order_1",
        amount_paise=118_000,
        customer_id="cust_1",
        token_id="token_1",
        payer={"email": "a@nimbus.example", "contact": "+919812345670"},
        description="Usage",
        notes={},
    ),
}
READS: dict[str, Call] = {
    "plans": lambda rzp: rzp.find_plans({}),
    "subscription": lambda rzp: rzp.fetch_subscription(SUB),
    "subscriptions": lambda rzp: rzp.find_subscriptions({"intent": "i1"}),
    "invoices": lambda rzp: rzp.invoices_of(SUB),
    "invoice": lambda rzp: rzp.fetch_invoice("inv_1"),
    "payment": lambda rzp: rzp.fetch_payment(PAY),
    "payments": lambda rzp: rzp.list_payments(since=1, until=2),
    "refunds": lambda rzp: rzp.refunds_of(PAY),
    "dispute": lambda rzp: rzp.fetch_dispute("disp_1"),
    "registration": lambda rzp: rzp.fetch_registration("inv_1"),
    "token": lambda rzp: rzp.fetch_token("cust_1", "token_1"),
    "orders": lambda rzp: rzp.find_orders("b-1"),
    "tries": lambda rzp: rzp.payments_of_order("order_1"),
    "link": lambda rzp: rzp.fetch_payment_link(LINK),
    "links": lambda rzp: rzp.find_payment_links("ovg_1"),
    "code": lambda rzp: rzp.fetch_qr_code("qr_1"),
    "codes": lambda rzp: rzp.find_qr_codes({"charge": "c1"}, since=1, until=2),
    "code's": lambda rzp: rzp.payments_of_qr_code("qr_1"),
    "paid by": lambda rzp: rzp.qr_codes_of_payment(PAY),
    "addon": lambda rzp: rzp.fetch_addon(ADDON),
    "addons": lambda rzp: rzp.list_addons(since=1),
}
DOUBTS: dict[str, Step] = {
    "500": says({"error": {"code": "SERVER_ERROR", "description": "We are facing some trouble"}}, 500),
    "502 HTML": Step(status=502, body=b"<html>Bad Gateway</html>", headers={"Content-Type": "text/html"}),
    "504 empty": Step(status=504, body=b""),
    "gateway's fault": says({"error": {"code": "GATEWAY_ERROR", "description": "x"}}, 400),
    "redirect": Step(status=307, headers={"Location": "/v1/elsewhere"}),
    "HTML": Step(body=b"<html>Maintenance</html>"),
    "wrong JSON": says({"entity": "something", "id": ""}),
    "a number": says(7),
    "cut": Step(closes=True),
    "hang": Step(hangs=True),
}
NO = {"error": {"code": "BAD_REQUEST_ERROR", "description": "The amount must be at least INR 1.00", "field": "amount"}}


def subscription(number: int = 1, **fields: Any) -> dict[str, Any]:
    one = {"id": f"sub_{number:014d}", "plan_id": "plan_1", "status": "created", "created_at": 1_793_858_400}
    return one | {"notes": [], "current_start": None, "never_heard_of": {"a": 1}} | fields


@pytest.fixture
def server() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.close()


@pytest.fixture
async def rzp(server: Scripted) -> AsyncIterator[Razorpay]:
    gateway = gateway_to(server.url)
    yield gateway
    gateway.close()


def gateway_to(url: str, patience: Patience = QUICK, threads: int = 8) -> Razorpay:
    return Razorpay(
        key_id="rzp_test_me", key_secret=SecretStr(SECRET), base_url=url, patience=patience, threads=threads
    )


async def failing(call: Awaitable[Any]) -> RazorpayError:
    with pytest.raises(RazorpayError) as caught:
        await call
    return caught.value


async def test_a_subscription_is_created_once_and_read_tolerantly(server: Scripted, rzp: Razorpay) -> None:
    server.script.append(says(subscription(notes={"intent": "i1"}, paid_count="2")))
    made = await rzp.create_subscription(plan_id="plan_1", total_count=12, notes={"intent": "i1"}, start_at=5)
    assert (made.status, made.notes, made.paid_count, made.current_start) == ("created", {"intent": "i1"}, 2, None)
    [asked] = server.asked
    assert (asked.method, asked.path, asked.login) == ("POST", "/v1/subscriptions", LOGIN)
    sent = {"plan_id": "plan_1", "total_count": 12, "notes": {"intent": "i1"}, "customer_notify": True, "start_at": 5}
    assert asked.body == sent


@pytest.mark.parametrize("doubt", DOUBTS)
@pytest.mark.parametrize("write", WRITES)
async def test_a_write_with_no_clear_answer_is_in_doubt_and_sent_once(
    server: Scripted, rzp: Razorpay, write: str, doubt: str
) -> None:
    server.script.append(DOUBTS[doubt])
    assert type(await failing(WRITES[write](rzp))) is RazorpayInDoubt
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [408, 409])
async def test_a_4xx_that_decides_nothing_is_in_doubt(server: Scripted, rzp: Razorpay, status: int) -> None:
    server.script.append(says({"error": {"code": "BAD_REQUEST_ERROR", "description": "still in progress"}}, status))
    fault = await failing(WRITES["refund"](rzp))
    assert isinstance(fault, RazorpayInDoubt)
    assert (fault.status, "still in progress" in fault.reason) == (status, True)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (says(NO, 400), (400, "BAD_REQUEST_ERROR", "The amount must be at least INR 1.00", "amount")),
        (
            says({"error": {"code": "BAD_REQUEST_ERROR", "description": "Authentication failed", "field": "NA"}}, 401),
            (401, "BAD_REQUEST_ERROR", "Authentication failed", None),
        ),
        (says({"message": "no Route matched"}, 404), (404, "", "no Route matched", None)),
        (Step(status=403, body=b"<html>"), (403, "", "", None)),
    ],
)
@pytest.mark.parametrize("call", [WRITES["addon"], READS["addon"], READS["addons"]])
async def test_a_definite_no_keeps_what_was_said_and_is_not_repeated(
    server: Scripted, rzp: Razorpay, call: Call, step: Step, said: tuple[Any, ...]
) -> None:
    server.script.append(step)
    fault = await failing(call(rzp))
    assert isinstance(fault, RazorpayRefused)
    assert (fault.status, fault.code, fault.description, fault.field) == said
    assert len(server.asked) == 1


async def test_throttled_writes_say_when_and_reads_wait_for_it(server: Scripted, rzp: Razorpay) -> None:
    server.script.extend([says(NO, 429, **{"Retry-After": "7"}), says(NO, 429)])
    for expected in (7, None):
        fault = await failing(WRITES["subscribe"](rzp))
        assert isinstance(fault, RazorpayThrottled)
        assert fault.retry_after_s == expected
    server.script.extend([says(NO, 429), says(subscription() | {"id": SUB})])
    assert (await rzp.fetch_subscription(SUB)).id == SUB
    server.script.append(says(NO, 429, **{"Retry-After": "60"}))
    assert isinstance(await failing(rzp.fetch_subscription(SUB)), RazorpayThrottled)
    assert len(server.asked) == 5


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("doubt", ["502 HTML", "wrong JSON", "cut"])
async def test_a_read_is_tried_three_times_and_no_more(server: Scripted, rzp: Razorpay, read: str, doubt: str) -> None:
    server.default = lambda _: DOUBTS[doubt]
    assert type(await failing(READS[read](rzp))) is RazorpayUnavailable
    assert len(server.asked) == 3


@pytest.mark.parametrize("doubt", DOUBTS)
async def test_a_read_outlives_two_faults_of_any_kind(server: Scripted, rzp: Razorpay, doubt: str) -> None:
    server.script.extend([DOUBTS[doubt], DOUBTS[doubt], says(subscription() | {"id": SUB})])
    assert (await rzp.fetch_subscription(SUB)).status == "created"


async def test_a_write_that_found_nobody_was_not_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening, so refused
        gateway = gateway_to(f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert type(await failing(WRITES["link"](gateway))) is RazorpayUnavailable
        gateway.close()


async def test_an_answer_that_trickles_is_given_up(server: Scripted) -> None:
    gateway = gateway_to(server.url, Patience(read_s=0.5, whole_s=0.4))
    server.script.append(Step(body=b" " * 200, trickles=True))
    began = time.monotonic()
    assert isinstance(await failing(WRITES["cancel"](gateway)), RazorpayInDoubt)
    assert time.monotonic() - began < 2
    gateway.close()


async def test_with_all_threads_taken_nothing_is_sent_and_they_come_free(server: Scripted) -> None:
    gateway = gateway_to(server.url, Patience(read_s=0.8, thread_s=0.1), threads=2)
    server.script.extend([Step(hangs=True)] * 2)
    left = [asyncio.create_task(asyncio.wait_for(WRITES["cancel"](gateway), 0.05)) for _ in range(2)]
    for task in left:
        with pytest.raises(TimeoutError):  # the waiting task is gone, the thread still runs
            await task
    assert type(await failing(WRITES["cancel"](gateway))) is RazorpayBusy
    assert len(server.asked) == 2
    server.default = lambda _: says(subscription())
    for _ in range(20):
        with suppress(RazorpayBusy):
            await WRITES["cancel"](gateway)
            break
    assert len(server.asked) == 3
    gateway.close()


@pytest.mark.slow
async def test_the_event_loop_goes_on_while_fifty_calls_are_slow(server: Scripted) -> None:
    gateway = gateway_to(server.url, Patience(), threads=16)
    server.default = lambda _: Step(body=says(subscription() | {"id": SUB}).body, delay_s=0.25)
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - began)

    ticker = asyncio.create_task(tick())
    answers = await asyncio.gather(*(gateway.fetch_subscription(SUB) for _ in range(50)))
    ticker.cancel()
    assert [answer.id for answer in answers] == [SUB] * 50
    assert len(gaps) > 50
    assert sum(gap > 0.2 for gap in gaps) < 5, (
        "a call that blocks the loop does so each time; a busy machine, now and then"
    )
    gateway.close()


def paged(items: list[dict[str, Any]]) -> Callable[[Asked], Step]:
    def page(asked: Asked) -> Step:
        skip = int(asked.query["skip"])
        return says({"entity": "collection", "items": items[skip : skip + int(asked.query["count"])]})

    return page


async def test_a_lost_subscription_is_found_by_its_notes_on_any_page(server: Scripted, rzp: Razorpay) -> None:
    items = [subscription(n, notes={"intent": f"i{n}", "tenant": "t"}) for n in range(2 * PAGE + 50)]
    server.default = paged(items[:PAGE] + items[PAGE - 1 :])  # one was created meanwhile, which shifted the pages
    found = await rzp.find_subscriptions({"intent": "i240"}, since=1, until=2)
    assert [one.id for one in found] == [f"sub_{240:014d}"]
    assert [(asked.query["from"], asked.query["to"]) for asked in server.asked] == [("1", "2")] * 3
    everybody = await rzp.list_subscriptions()
    assert [one.id for one in everybody] == [item["id"] for item in items]


@pytest.mark.slow
async def test_a_list_without_end_is_no_list(server: Scripted, rzp: Razorpay) -> None:
    server.default = lambda _: says({"items": [subscription(n) for n in range(PAGE)]})
    assert isinstance(await failing(rzp.find_subscriptions({"intent": "i"})), RazorpayUnavailable)
    assert len(server.asked) == MAX_PAGES


@pytest.mark.slow
async def test_pages_come_one_by_one_past_any_number(server: Scripted, rzp: Razorpay) -> None:
    items = [subscription(n) for n in range((MAX_PAGES + 1) * PAGE + 7)]
    server.default = paged(items[:PAGE] + items[PAGE - 1 :])  # one was created meanwhile, which shifted the pages
    sizes, found = [], []
    async for page in rzp.subscription_pages(since=1):
        sizes.append(len(page))
        found += [one.id for one in page]
    assert found == [item["id"] for item in items]
    assert sizes == [PAGE, PAGE - 1, *[PAGE] * (MAX_PAGES - 1), 8]


async def test_pages_that_do_not_advance_end(server: Scripted, rzp: Razorpay) -> None:
    server.default = lambda _: says({"items": [subscription(n) for n in range(PAGE)]})

    async def read() -> int:
        return sum([len(page) async for page in rzp.subscription_pages(since=1)])

    assert isinstance(await failing(read()), RazorpayUnavailable)
    assert len(server.asked) == 2


async def test_a_filter_that_is_ignored_hands_out_nobody_elses(server: Scripted, rzp: Razorpay) -> None:
    invoice = {"id": "inv_1", "status": "paid", "amount": 1, "subscription_id": SUB}
    server.script.append(says({"items": [invoice, invoice | {"id": "inv_2", "subscription_id": "sub_2"}]}))
    assert [one.id for one in await rzp.invoices_of(SUB)] == ["inv_1"]
    link = {"id": LINK, "status": "created", "amount": 1, "created_at": 1, "reference_id": "a", "notes": None}
    server.script.append(says({"payment_links": [link, link | {"id": "plink_2", "reference_id": "b"}]}))
    assert [one.id for one in await rzp.find_payment_links("a")] == [LINK]
    server.default = lambda _: says(subscription(2))
    assert isinstance(await failing(rzp.fetch_subscription(SUB)), RazorpayUnavailable)


async def test_a_refund_bears_its_key(server: Scripted, rzp: Razorpay) -> None:
    server.script.append(says({"id": "rfnd_1", "payment_id": PAY, "amount": 100, "status": "pending", "created_at": 1}))
    assert (await rzp.refund(PAY, amount_paise=100, key="refund-0001", notes={})).status == "pending"
    assert server.asked[0].headers["x-refund-idempotency"] == "refund-0001"
    with pytest.raises(ValueError, match="key"):
        await rzp.refund(PAY, amount_paise=100, key="short", notes={})
    server.script.append(says([]))
    await rzp.delete_addon(ADDON)


@pytest.mark.parametrize("wrong", ["", "../refunds", "pay_1/refund", "pay_1?x=1", "pay_1\n"])
async def test_an_id_from_outside_leads_nowhere_else(server: Scripted, rzp: Razorpay, wrong: str) -> None:
    for call in (rzp.fetch_payment, rzp.fetch_subscription, rzp.cancel_payment_link, rzp.delete_addon):
        with pytest.raises(ValueError, match="not an id"):
            await call(wrong)
    assert server.asked == []
