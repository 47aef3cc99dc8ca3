"""`Idempotency-Key`: one run and one bill for all requests of a key, on two processes; each gets the whole answer."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from core.tenancy.accounts import create_key, find_key, find_user, revoke_key, set_disabled
from core.tenancy.principal import Scope
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.answers import Answer
from tests.harness import ACTOR, Account, Api, Books, Simulator, chat, client, running, scripted
from tests.journeys.callers import Caller
from tests.journeys.forms import STREAMED, WHOLE, Form, every_form
from tests.journeys.idempotent import HEADERS, HTTP_FORMS, ON, ask, ask_each, key_lines, until

RETRIES = 200
ANSWER_BYTES = 40_000
LONG_TOKENS = 30_000


class LongForm(Form):
    """A form whose answer may be long."""

    def body(self, message: str, **more: Any) -> dict[str, Any]:
        return super().body(message, **more, **({} if self.is_chat else {"max_tokens": LONG_TOKENS}))


LONG_FORMS = [LongForm("chat", path="/chat"), LongForm("streamed"), LongForm("whole", streams=False)]
Pair = tuple[httpx2.AsyncClient, httpx2.AsyncClient]


@pytest.fixture(scope="module")
def apis(story_environment: dict[str, str], run_folder: Path, worker: str) -> Iterator[tuple[Api, Api]]:
    """Two processes with idempotency."""
    settings = {
        "CHAT_MAX_TOKENS": str(LONG_TOKENS),
        "IDEMPOTENCY_ANSWER_MAX_BYTES": str(ANSWER_BYTES),
        "IDEMPOTENCY_TENANT_MAX_BYTES": "100000",
    }
    with ExitStack() as stack:
        made = [Api(story_environment | ON | settings, run_folder / f"idempotent-{worker}-{n}.log") for n in range(2)]
        first, second = (stack.enter_context(running(api)) for api in made)
        yield first, second


@pytest.fixture
async def pair(apis: tuple[Api, Api]) -> AsyncIterator[Pair]:
    """A client of each process."""
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(client(api.url)) for api in apis]
        yield first, second


def assert_whole(answers: list[Answer | httpx2.HTTPError]) -> str:
    """Asserts that all are one complete answer, of which one was billed; returns the id of its request."""
    whole = [answer for answer in answers if isinstance(answer, Answer)]
    assert len(whole) == len(answers), "a connection was cut"
    assert all((answer.status, answer.done, answer.error) == (200, True, None) for answer in whole)
    assert len({answer.raw for answer in whole}) == 1
    (request_id,) = {answer.headers["x-request-id"] for answer in whole}
    return str(request_id)


def replays(answers: list[Any]) -> Counter[str]:
    """Counts the header that tells whether an answer is another's."""
    return Counter(answer.headers["idempotency-replayed"] for answer in answers)


@pytest.mark.slow
@pytest.mark.parametrize("form", HTTP_FORMS, ids=lambda form: form.name)
async def test_retries_during_a_run_and_after_it(
    apis: tuple[Api, Api], books: Books, simulator: Simulator, form: Form
) -> None:
    account = await books.account()
    ref = account.key_id.hex
    message = scripted(ref=ref, words=40, piece_delay_ms=50)

    during = await ask_each(apis, RETRIES // 2, account, "one", message, form)
    after = await ask_each(apis, RETRIES // 2, account, "one", message, form)

    request_id = assert_whole([*during, *after])
    assert replays(during) == {"false": 1, "true": RETRIES - 1}
    assert replays(after) == {"true": RETRIES}
    (row,) = await books.requests(account)
    assert (str(row["id"]), row["state"], row["outcome"], row["requests"]) == (request_id, "settled", "completed", 1)
    (served,) = simulator.ledger(ref)
    assert row["output_tokens"] == served["output_tokens"]
    assert not any(answer.headers.get("ratelimit") for answer in after if isinstance(answer, Answer))


@every_form
async def test_the_run_goes_on_when_its_caller_leaves(
    apis: tuple[Api, Api], pair: Pair, books: Books, simulator: Simulator, form: Form
) -> None:
    account = await books.account()
    ref = account.key_id.hex
    message = scripted(ref=ref, words=60, piece_delay_ms=20)
    caller = await Caller.ask(apis[0], account, message, form, more=key_lines("left"))
    await until(lambda: _served(simulator, ref))
    await caller.leave()

    answer = await ask(pair[1], account, "left", message, form)

    assert_whole([answer])
    assert answer.headers["idempotency-replayed"] == "true"
    (row,) = await books.settled(account, 1)
    assert (row["outcome"], row["source"]) == ("completed", "final")
    assert len(simulator.ledger(ref)) == 1


async def _served(simulator: Simulator, ref: str) -> list[dict[str, Any]]:
    return await asyncio.to_thread(simulator.ledger, ref)


async def test_a_key_is_for_one_request_of_one_credential(pair: Pair, books: Books) -> None:
    account = await books.account()
    other = await books.account(tenant_id=account.tenant_id)
    assert (await ask(pair[0], account, "k", "hello")).done

    changed = await ask(pair[1], account, "k", "hello!")
    assert changed.error is not None
    assert (changed.status, changed.error["code"]) == (422, "idempotency_mismatch")
    told = await ask(pair[1], account, "k", "hello", headers={"naka-tags": "feature=search"})
    assert (told.status, told.error and told.error["code"]) == (422, "idempotency_mismatch")

    assert (await ask(pair[1], account, "k", "hello", STREAMED)).headers["idempotency-replayed"] == "false"
    mixed = await ask(pair[1], account, "k", "hello", WHOLE)
    assert mixed.error is not None
    assert (mixed.status, mixed.error["error"]["type"]) == (400, "invalid_request_error")
    assert mixed.error["error"]["details"]["error_code"] == "idempotency_mismatch"

    assert (await ask(pair[1], other, "k", "hello")).headers["idempotency-replayed"] == "false"
    assert (len(await books.requests(account)), len(await books.requests(other))) == (2, 1)


async def test_another_credential_of_the_same_user_cannot_read_the_answer(pair: Pair, books: Books) -> None:

    account = await books.account()
    assert (await ask(pair[0], account, "k", "hello")).done
    async with books.database.session() as session:
        user = await find_user(session, account.user_id, tenant_id=None)
        key, secret = await create_key(
            session, ACTOR, user, name="second", scopes=[Scope.CHAT], models=None, expires_at=None, live=False
        )
    second = Account(account.tenant_id, account.user_id, key.id, secret.plaintext)

    answer = await ask(pair[0], second, "k", "hello")

    assert (answer.status, answer.error and answer.error["code"]) == (422, "idempotency_mismatch")
    assert len(await books.requests(account)) == 1


@pytest.mark.slow
@every_form
async def test_an_error_before_the_head_is_told_to_all_who_wait_and_the_next_runs_anew(
    apis: tuple[Api, Api], pair: Pair, books: Books, form: Form
) -> None:
    account = await books.account()
    message = scripted(ref=account.key_id.hex, status=529, fail_times=3, head_delay_ms=400)  # with the retries

    refused = await ask_each(apis, 10, account, "busy", message, form)
    retried = await ask(pair[1], account, "busy", message, form)

    for answer in refused:
        assert isinstance(answer, Answer)
        form.assert_told(answer, 503, "upstream_overloaded", started=False)
        assert answer.retry_after_s > 0
    assert replays(refused) == {"false": 1, "true": 19}
    assert retried.done
    assert retried.headers["idempotency-replayed"] == "false"
    assert len(await books.requests(account)) == 2


@every_form
async def test_an_answer_that_breaks_off_is_not_kept(
    pair: Pair, books: Books, simulator: Simulator, form: Form
) -> None:
    account = await books.account()
    message = scripted(ref=account.key_id.hex, words=30, piece_delay_ms=20, cut_after=5)
    first, second = await asyncio.gather(*(ask(http, account, "cut", message, form) for http in pair))
    form.assert_told(first, 502, "upstream_broken", started=True)
    assert second.raw == first.raw

    again = await ask(pair[1], account, "cut", message, form)

    assert again.headers["idempotency-replayed"] == "false"
    assert len(simulator.ledger(account.key_id.hex)) == 2


async def test_a_refusal_by_a_limit_is_not_kept(pair: Pair, books: Books) -> None:
    account = await books.account(limits=LimitSet((Limit(Meter.REQUESTS, WindowKind.DAY, 1),)))
    assert (await chat(pair[0], account)).done
    for _ in range(2):
        answer = await ask(pair[0], account, "k", "hello")
        assert answer.error is not None
        assert (answer.status, answer.error["code"]) == (429, "limit_reached")
        assert answer.headers["idempotency-replayed"] == "false"
    assert len(await books.requests(account)) == 1


@pytest.mark.parametrize("form", LONG_FORMS, ids=lambda form: form.name)
async def test_an_answer_too_large_to_store_is_not_run_again(
    apis: tuple[Api, Api], pair: Pair, books: Books, simulator: Simulator, form: Form
) -> None:
    account = await books.account()
    text = "All work and no play. " * (ANSWER_BYTES // 20)
    message = scripted(ref=account.key_id.hex, text=text)

    first = await ask(pair[0], account, "large", message, form)
    retries = await ask_each(apis, 5, account, "large", message, form)

    assert first.done
    assert first.text == text
    for answer in retries:
        assert isinstance(answer, Answer)
        assert answer.status == 409
        assert answer.error is not None
        if form.is_chat:
            assert answer.error["code"] == "idempotency_answer_too_large"
        else:
            assert answer.error["error"]["details"]["error_code"] == "idempotency_answer_too_large"
            assert answer.headers["x-should-retry"] == "false"
    assert len(simulator.ledger(account.key_id.hex)) == 1


async def test_a_tenant_stores_no_more_than_its_share(pair: Pair, books: Books) -> None:
    account, other = await books.account(), await books.account()
    message = scripted(text="x" * 8_000)
    asked = 0
    while (answer := await ask(pair[asked % 2], account, f"k{asked}", message)).status == 200:
        assert answer.done
        asked += 1
        assert asked < 100

    assert answer.error is not None
    assert (answer.status, answer.error["code"]) == (429, "idempotency_full")
    assert 0 < answer.retry_after_s <= 900
    again = [await ask(pair[0], account, f"k{number}", message) for number in range(asked)]
    replayed = [one for one in again if one.status == 200]
    assert {one.headers["idempotency-replayed"] for one in replayed} == {"true"}
    assert 3 <= len(replayed) < asked
    large = [one for one in again if one.status != 200]
    assert all(one.status == 409 and one.error for one in large)
    assert len(await books.requests(account)) == asked
    assert (await ask(pair[0], other, "k", "hello")).done


async def test_a_reader_resumes_after_its_last_event(pair: Pair, books: Books, simulator: Simulator) -> None:
    account = await books.account()
    message = scripted(ref=account.key_id.hex, pieces=["one ", "two\n", "\nthree ", "four"], piece_delay_ms=100)
    whole = await ask(pair[0], account, "r", message)
    ids = [line[4:] for line in whole.raw.decode().splitlines() if line.startswith("id: ")]
    assert len(ids) == 5  # and `done`
    assert len(set(ids)) == 5

    for count, event_id in enumerate(ids, 1):
        rest = await ask(pair[1], account, "r", message, headers={"last-event-id": event_id})
        assert rest.status == 200
        assert rest.pieces == whole.pieces[count:]
        assert whole.raw.endswith(rest.raw)
        assert rest.done == (count < 5)
    for unknown in ("0" * 32 + "-4", "7", ids[0].replace("-", "_")):
        answer = await ask(pair[1], account, "r", message, headers={"last-event-id": unknown})
        assert answer.error is not None
        assert (answer.status, answer.error["code"]) == (409, "idempotency_restarted")
    gone = await ask(pair[1], account, "never used", message, headers={"last-event-id": ids[0]})
    assert (gone.status, gone.error and gone.error["code"]) == (409, "idempotency_restarted")
    assert len(simulator.ledger(account.key_id.hex)) == 1


async def test_a_reader_resumes_while_the_answer_runs(pair: Pair, books: Books) -> None:
    account = await books.account()
    message = scripted(words=60, piece_delay_ms=25)
    headers = {**HEADERS, **account.headers, "idempotency-key": "live"}
    read = b""
    async with pair[0].stream("POST", "/chat", content=json.dumps({"message": message}), headers=headers) as response:
        async for part in response.aiter_raw():
            read += part
            if read.count(b"\n\n") >= 4:
                break  # and the connection is closed
    events = read[: read.rindex(b"\n\n") + 2]
    last_id = [line[4:] for line in events.decode().splitlines() if line.startswith("id: ")][-1]

    rest = await ask(pair[1], account, "live", message, headers={"last-event-id": last_id})

    whole = await ask(pair[0], account, "live", message)
    assert rest.done
    assert events + rest.raw == whole.raw


async def test_without_a_key_nothing_changes(api: Api, pair: Pair, books: Books) -> None:
    account = await books.account()
    message = scripted(pieces=["one ", "two"])
    async with client(api.url) as http:
        off = await ask(http, account, "k", message)
        again = await ask(http, account, "k", message)
    plain = await chat(pair[0], account, message)

    assert plain.raw == off.raw == again.raw == b"data: one \n\ndata: two\n\nevent: done\ndata: \n\n"
    for answer in (plain, off, again):
        assert "idempotency-replayed" not in answer.headers
    assert len(await books.requests(account)) == 3


@pytest.mark.parametrize("key", ["", "x" * 256, "naïve", "a\tb"])
async def test_a_key_that_is_none(pair: Pair, books: Books, key: str) -> None:
    account = await books.account()
    headers = [(name.encode(), value.encode()) for name, value in account.headers.items()]
    sent = [*headers, (b"idempotency-key", key.encode())]
    response = await pair[0].post("/chat", json={"message": "hello"}, headers=sent)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    twice = [*headers, (b"idempotency-key", b"a"), (b"idempotency-key", b"b")]
    assert (await pair[0].post("/chat", json={"message": "hello"}, headers=twice)).status_code == 422
    assert await books.requests(account) == []


async def test_a_key_of_the_longest_form(pair: Pair, books: Books) -> None:
    account = await books.account()
    key = "".join(chr(33 + n % 94) for n in range(255))
    assert (await ask(pair[0], account, key, "hello")).done
    assert (await ask(pair[1], account, key, "hello")).headers["idempotency-replayed"] == "true"


async def test_bad_requests_are_refused_as_without_a_key(pair: Pair, books: Books) -> None:
    account = await books.account()
    headers = {**account.headers, "idempotency-key": "bad"}
    for body, status in ((b"{", 422), (b'{"message": ""}', 422), (b'{"message": "hello"}', 200)):
        response = await pair[0].post("/chat", content=body, headers={**headers, "content-type": "application/json"})
        assert response.status_code == status
    text = await pair[0].post("/chat", content=b"x", headers={**headers, "content-type": "text/plain"})
    assert text.status_code == 415
    keyless = await pair[0].post("/chat", json={"message": "hello"}, headers={"idempotency-key": "bad"})
    assert keyless.status_code == 401


async def test_the_users_of_a_backend_have_keys_of_their_own(pair: Pair, books: Books) -> None:
    """By the header or the body; a disabled user gets no stored answer."""
    backend = await books.account(scopes=[Scope.CHAT_AS_USER])
    headers = {**backend.headers, "idempotency-key": "k"}

    async def told(number: int, name: str, **body: str) -> tuple[int, str | None]:
        named = headers if body else {**headers, "naka-user": name}
        answer = await pair[number].post("/chat", json={"message": "hello", **body}, headers=named)
        return answer.status_code, answer.headers.get("idempotency-replayed")

    assert [await told(n, "ada") for n in (0, 1)] == [(200, "false"), (200, "true")]
    assert await told(1, "bob") == (200, "false")
    assert [await told(n, "eve", user="eve") for n in (0, 1)] == [(200, "false"), (200, "true")]
    assert await told(0, "eve") == (422, None), "another request"

    rows = await books.fetch("SELECT external_id, id FROM users WHERE tenant_id = $1", backend.tenant_id)
    users = {row["external_id"]: row["id"] for row in rows}
    async with books.database.session() as session:
        ada = await find_user(session, users["ada"], tenant_id=None)
        await set_disabled(session, ACTOR, ada, disabled=True)
    assert [await told(n, "ada") for n in (0, 1)] == [(403, None)] * 2
    counts = await books.fetch(
        "SELECT user_id, count(*) FROM usage_requests WHERE tenant_id = $1 GROUP BY 1", backend.tenant_id
    )
    assert {row["user_id"]: row["count"] for row in counts} == {users[name]: 1 for name in ("ada", "bob", "eve")}


async def test_a_revoked_key_gets_no_stored_answer(pair: Pair, books: Books) -> None:

    account = await books.account()
    assert (await ask(pair[0], account, "k", "hello")).done
    async with books.database.session() as session:
        await revoke_key(session, ACTOR, await find_key(session, account.key_id, tenant_id=None))

    assert [(await ask(http, account, "k", "hello")).status for http in pair] == [401, 401]


async def test_the_store_holds_no_text_and_nothing_that_stays(pair: Pair, books: Books, redis_url: str) -> None:
    account = await books.account()
    answer = await ask(pair[0], account, "visible-key", scripted("a secret question", text="a secret answer " * 9))
    assert answer.done
    async with Redis.from_url(redis_url) as redis:
        names = [name async for name in redis.scan_iter(f"naka:idempotency:{{{account.tenant_id.hex}}}*")]
        assert len(names) >= 4
        stored = b""
        for name in names:
            assert 0 < await redis.pttl(name) <= 2 * (600 + 300) * 1000
            stored += name + (await redis.dump(name) or b"")
    for text in (b"secret", b"visible-key", account.key.encode()):
        assert text not in stored


async def test_metrics(pair: Pair, books: Books) -> None:
    account = await books.account()
    before = _metrics((await pair[0].get("/metrics")).text)
    for _ in range(3):
        await ask(pair[0], account, "k", "hello")
    replayed, after = 'naka_idempotent_requests_total{result="replayed"}', before

    async def all_counted() -> bool:
        nonlocal after
        after = _metrics((await pair[0].get("/metrics")).text)
        return after.get(replayed, 0) - before.get(replayed, 0) >= 2

    await until(all_counted)  # a replay is counted once its answer has ended
    more = {name: after[name] - before.get(name, 0) for name in after}
    assert more['naka_idempotent_requests_total{result="run"}'] == 1
    assert more[replayed] == 2
    for pool in ("followers", "followed_runs", "upstream"):
        assert after[f'naka_pool_places_taken{{pool="{pool}"}}'] == 0


def _metrics(text: str) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}
