"""A run by its owner, and those that follow it, with a small application in place of the relay."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.gateway.idempotency.event_ids import EventIds
from api.gateway.idempotency.following import FollowedRuns
from api.gateway.idempotency.keys import Entry, new_run
from api.gateway.idempotency.recording import Recording
from api.gateway.idempotency.replay import AnswerBroken, Replay, RunDied
from api.gateway.idempotency.store import RunStore, State
from api.gateway.relay import RECORDER
from api.http.body_admission import RELEASE
from api.http.problems import REQUEST_ID
from core.ids import uuid7
from core.resilience.shares import FairPool
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome
from tests.api.gateway.idempotency.conftest import ANSWER, LEASE_S
from tests.api.gateway.idempotency.test_store import entry

Stores = tuple[RunStore, RunStore]
PIECES = [b"data: one\n\n", b": keep-alive\n\n", b"data: two\n\n", b"event: done\ndata: \n\n"]


class Client:
    """The server's side of one client: what was sent to it, and whether it has left."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.left = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.reads.wait()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def is_complete(self) -> bool:
        return bool(self.sent) and not self.sent[-1].get("more_body", True)


class App:
    """Answers in pieces; `step` lets it send one more."""

    def __init__(self, pieces: list[bytes], *, status: int = 200, outcome: Outcome = Outcome.COMPLETED) -> None:
        self._pieces = pieces
        self._status = status
        self._outcome = outcome
        self._steps = asyncio.Semaphore(0)
        self.failure: Exception | None = None
        self.was_left = False
        self.written = 0

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self._steps.release()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        recorder = scope[RECORDER] = UsageRecorder(granted_output_tokens=1, deadline_ms=0)
        assert (await receive())["body"] == b"body"
        gone = asyncio.ensure_future(receive())
        try:
            await self._answer(send, recorder, gone)
        finally:
            gone.cancel()

    async def _answer(self, send: Send, recorder: UsageRecorder, gone: "asyncio.Future[Message]") -> None:
        headers = [(b"content-type", b"text/event-stream"), (b"ratelimit", b"x")]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        for number, piece in enumerate(self._pieces, 1):
            step = asyncio.create_task(self._steps.acquire())
            either: set[asyncio.Future[Any]] = {gone, step}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            step.cancel()
            if gone.done():
                self.was_left = True
                return
            if self.failure is not None:
                raise self.failure
            is_last = number == len(self._pieces)
            if is_last:
                recorder.outcome = self._outcome
            await send({"type": "http.response.body", "body": piece, "more_body": not is_last})
            self.written = number


def scope_of() -> Scope:
    return {"type": "http", "path": "/chat", REQUEST_ID: "own", RELEASE: lambda: None}


@asynccontextmanager
async def running(
    store: RunStore, app: ASGIApp, client: Client, *, one: Entry | None = None
) -> AsyncIterator[tuple[Entry, str, "asyncio.Task[None]"]]:
    """A run: its entry and name, and the task of its request."""
    one, run = one or entry(key=new_run().encode(), tenant_id=uuid7()), new_run()
    assert await store.claim(one, run) == run
    recording = Recording(store, one, run, b"body", with_ids=True)
    task = asyncio.create_task(recording.run(app, scope_of(), client.receive, client.send))
    try:
        yield one, run, task
    finally:
        task.cancel()
        await asyncio.wait({task})


def following(
    runs: FollowedRuns, one: Entry, run: str, client: Client, ids: EventIds | None = None
) -> "asyncio.Task[None]":
    async def follow() -> None:
        with runs.follow(one, run, "tenant") as (followed, news):
            await Replay(followed, news, scope_of(), client.send, ids).run(client.receive)

    return asyncio.create_task(follow())


def runs_of(store: RunStore) -> FollowedRuns:
    return FollowedRuns(store, FairPool("followed_runs", 10))


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


def _have(clients: list[Client], body: bytes) -> bool:
    return all(client.body == body for client in clients)


async def test_everybody_has_the_same_answer_at_each_step(stores: Stores) -> None:
    app, owner, others, runs = App(PIECES), Client(), [Client() for _ in range(20)], runs_of(stores[1])
    async with running(stores[0], app, owner) as (one, run, task):
        followers = [following(runs, one, run, other) for other in others]
        for count in range(1, len(PIECES) + 1):
            app.step()
            await until(partial(_have, others, b"".join(PIECES[:count])))
        await asyncio.gather(task, *followers)

        assert owner.body == EventIds(run).mark(b"".join(PIECES))
        assert owner.headers[b"idempotency-replayed"] == b"false"
        assert owner.headers[b"ratelimit"] == b"x"
        for other in others:
            assert other.is_complete
            assert other.headers == {b"content-type": b"text/event-stream", b"idempotency-replayed": b"true"}
        assert len(runs) == 0
        late = Client()
        await following(runs, one, run, late, EventIds(run))
        assert late.body == owner.body
        assert late.is_complete


async def test_a_run_outlives_its_client(stores: Stores) -> None:
    app, owner, late = App(PIECES), Client(), Client()
    async with running(stores[0], app, owner) as (one, run, task):
        app.step()
        await until(lambda: PIECES[0] in owner.body)
        owner.left.set()
        await asyncio.sleep(0.05)
        app.step(3)
        await task
        await following(runs_of(stores[1]), one, run, late)
    assert late.body == b"".join(PIECES)
    assert not owner.is_complete


@pytest.mark.parametrize(("status", "outcome"), [(529, Outcome.COMPLETED), (200, Outcome.UPSTREAM_BROKE)])
async def test_what_failed_is_told_to_those_who_wait_and_not_kept(
    stores: Stores, status: int, outcome: Outcome
) -> None:
    app, owner, other = App(PIECES, status=status, outcome=outcome), Client(), Client()
    async with running(stores[0], app, owner) as (one, run, task):
        follower = following(runs_of(stores[1]), one, run, other)
        app.step(4)
        await asyncio.gather(task, follower)
        assert (other.sent[0]["status"], other.body, other.is_complete) == (status, b"".join(PIECES), True)
        again = new_run()
        assert await stores[1].claim(one, again) == again


async def test_an_application_that_fails_cuts_its_followers_off(stores: Stores) -> None:
    app, owner, other = App(PIECES), Client(), Client()
    async with running(stores[0], app, owner) as (one, run, task):
        follower = following(runs_of(stores[1]), one, run, other)
        app.step()
        await until(lambda: other.body == PIECES[0])
        app.failure = ValueError("broken")
        app.step()
        with pytest.raises(ValueError, match="broken"):
            await task
        with pytest.raises(AnswerBroken):
            await follower
        assert not other.is_complete


async def test_a_cancelled_run_frees_its_key(stores: Stores) -> None:
    app, owner, other = App(PIECES), Client(), Client()
    async with running(stores[0], app, owner) as (one, run, task):
        await until(lambda: bool(owner.sent))
        task.cancel()
        await asyncio.wait({task})
        again = new_run()
        assert await stores[1].claim(one, again) == again
        with pytest.raises((RunDied, AnswerBroken)):
            await following(runs_of(stores[1]), one, run, other)


async def test_a_fenced_run_serves_its_client_and_stores_nothing(stores: Stores) -> None:
    app, owner = App(PIECES), Client()
    async with running(stores[0], app, owner) as (one, run, task):
        app.step()
        await until(lambda: PIECES[0] in owner.body)
        await _take_over(stores, one)
        app.step(3)
        await task
        assert owner.is_complete
        assert (await stores[1].read(one, run, 0))[0] is State.DEAD


async def test_a_fenced_run_without_a_client_ends(stores: Stores) -> None:
    app, owner = App(PIECES), Client()
    async with running(stores[0], app, owner) as (one, _, task):
        app.step()
        await until(lambda: PIECES[0] in owner.body)
        owner.left.set()
        await _take_over(stores, one)
        await until(lambda: app.was_left)
        await task


async def _take_over(stores: Stores, one: Entry) -> None:
    """Another process takes the key, as if the owner's lease had run out."""
    async with stores[1]._redis.pipeline(transaction=True) as pipe:
        pipe.hset(one.name, "lease", 0)
        pipe.hset(one.name, "run", new_run())
        await pipe.execute()


@pytest.mark.slow
async def test_a_large_answer_goes_to_its_client_alone_at_its_pace(stores: Stores) -> None:
    pieces = [b"data: " + b"x" * 100_000 + b"\n\n"] * 20
    app, owner, other = App(pieces), Client(), Client()
    async with running(stores[0], app, owner) as (one, run, task):
        owner.reads.clear()
        app.step(20)
        await asyncio.sleep(3 * LEASE_S)
        assert app.written < 10, "the run does not wait for its client"
        with pytest.raises(Exception, match="too large"):
            await following(runs_of(stores[1]), one, run, other)
        owner.reads.set()
        await task
        assert owner.is_complete
        assert owner.body == EventIds(run).mark(b"".join(pieces))
        with pytest.raises(Exception, match="too large"):
            await stores[1].claim(one, new_run())


async def test_a_client_that_does_not_read_holds_nobody_up(stores: Stores) -> None:
    pieces = [*[b"data: %s\n\n" % (b"x" * 100) for _ in range(8)], PIECES[-1]]
    assert sum(map(len, pieces)) < ANSWER
    app, owner, other = App(pieces), Client(), Client()
    async with running(stores[0], app, owner) as (one, run, task):
        owner.reads.clear()
        app.step(9)
        await following(runs_of(stores[1]), one, run, other)
        assert other.is_complete
        owner.reads.set()
        await task
        assert owner.is_complete


@pytest.mark.slow
async def test_a_run_that_dies_before_its_head_is_not_followed(stores: Stores) -> None:
    one, run, other = entry(key=new_run().encode()), new_run(), Client()
    await stores[0].claim(one, run)
    began_s = asyncio.get_running_loop().time()
    with pytest.raises(RunDied):
        await following(runs_of(stores[1]), one, run, other)
    assert other.sent == []
    assert LEASE_S / 2 < asyncio.get_running_loop().time() - began_s < 10 * LEASE_S


async def test_a_follower_that_leaves_lets_go(stores: Stores) -> None:
    app, owner, other, runs = App(PIECES), Client(), Client(), runs_of(stores[1])
    async with running(stores[0], app, owner) as (one, run, _):
        follower = following(runs, one, run, other)
        app.step()
        await until(lambda: other.body == PIECES[0])
        other.left.set()
        await follower
        assert len(runs) == 0
