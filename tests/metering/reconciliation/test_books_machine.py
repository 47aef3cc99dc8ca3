"""Processes that admit, settle, sleep, die and recover for each other, in any order, against the model of the books.

After each step Postgres says what the model says, rows + entries = rollup = meters, and every hash of Redis that counts
holds what it must and adds up. Every grant and every refusal is the model's. In the end, when everybody is dead or
settled, nothing is open, nothing is held, and every admitted request is settled exactly once.

`BOOKS_EXAMPLES=500` looks longer.
"""

import asyncio
import contextlib
import copy
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from core.clock import now_ms
from core.errors import NakaError
from metering.adjustments.corrections import Amounts
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome
from metering.quota.query import Grant
from sandbox.valkey import Valkey
from tests.metering.books_bench import Bench, Post
from tests.metering.books_draws import ANY, SMALL, finish, start, write
from tests.metering.books_model import State, hash_key
from tests.metering.books_steps import Steps, event
from tests.metering.process import text_ask

EXAMPLES = int(os.environ.get("BOOKS_EXAMPLES", "8"))
STEPS = 20
ADJUSTED = tuple(field.name for field in fields(Amounts))
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
"""Without the explanation, which takes as many runs again."""


class BooksMachine(Steps):
    """What may happen."""

    # ----------------------------------------------------------------------------------- admit and stream

    @event(who=ANY, post=ANY, prompt=SMALL, output=st.integers(1, 60), lapses=st.booleans())
    def hold_without_a_row(self, who: int, post: int, prompt: int, output: int, *, lapses: bool) -> None:
        """`lapses`: its open takes longer than its hold lasts, and somebody looks."""
        chosen, account = self.awake(post), self.scene.accounts[who % 4]
        if not self.scene.read(account.tenant_id).fresh(account.user_id):
            self.admit([(who, post, 0, 1, False, 0)])
        asked = self.scene.hold(chosen, account, text_ask(output, prompt))
        if asked and lapses and self.wait_until(asked.request.deadline_ms + 5):
            self.scene.lapse(chosen, account)

    @event(which=ANY)
    def open_late(self, which: int) -> None:
        """A hold whose open took its time: opened if nothing happened meanwhile, else impossible."""
        wanted = (State.HELD, State.VOID)
        holders = self.scene.holders
        asked = self.asked(which, lambda asked: asked.state in wanted and asked.request.id in holders)
        if asked is None or (post := holders.pop(asked.request.id)) not in self.scene.posts or post.asleep:
            return
        epoch = self.scene.read(asked.request.tenant_id).epoch
        with contextlib.suppress(NakaError):
            self.bench.run(post.process.admission.redis_grants._open(asked.request))
        if asked.state is State.HELD and asked.request.epoch == epoch:
            asked.state = State.OPEN
        elif asked.state is State.HELD:
            asked.state = State.GONE
        asked.lingers = False
        post.process.running.leave(asked.request.id)  # whoever asked has left: nobody runs it

    @event(which=ANY, prompt=st.tuples(*[SMALL] * 4), chars=SMALL)
    def stream(self, which: int, prompt: tuple[int, ...], chars: int) -> None:
        """It begins to answer, or goes on."""
        asked = self.streaming(which)
        if asked:
            start(asked, prompt)
            write(asked, chars)

    # --------------------------------------------------------------------------------------------- settle

    @event(which=ANY, output=SMALL, ends=st.sampled_from(["well", "well", "broken", "spooled", "unanswered"]))
    def settle(self, which: int, output: int, ends: str) -> None:
        asked = self.streaming(which)
        if asked is None or asked.recorder is None:
            return
        if asked.recorder.started is None and ends == "unanswered":
            asked.recorder.sent()
            asked.recorder.outcome = Outcome.UPSTREAM_REFUSED
            self.end(asked, spool=False)
            return
        if asked.recorder.started is None:
            start(asked, (output, 0, 7, 0))
        if ends in {"well", "spooled"} and not asked.recorder.finished:
            finish(asked, asked.recorder, output)
        elif not asked.recorder.finished:
            asked.recorder.outcome = Outcome.UPSTREAM_BROKE
        self.end(asked, spool=ends == "spooled")

    @event(which=ANY, output=SMALL, post=ANY)
    def settle_again(self, which: int, output: int, post: int) -> None:
        """Another word on a request that is settled already: as good, or better, or worse."""
        asked, chosen = self.settled(which), self.awake(post)
        if asked is None or asked.recorder is None or chosen.process.spool.active or asked.spooled or asked.lingers:
            return
        recorder = copy.copy(asked.recorder)
        if recorder.started and not recorder.finished:
            recorder.outcome = Outcome.CLIENT_GONE
            if output % 2:
                finish(asked, recorder, output)
        self.scene.settle(chosen, asked, recorder)

    @event(post=ANY)
    def replay(self, post: int) -> None:
        self.scene.replay(self.awake(post))

    # ----------------------------------------------------------------------------- life of the processes

    @event(post=ANY)
    def beat(self, post: int) -> None:
        self.beats(self.awake(post))

    @event(post=ANY, beats=st.booleans())
    def die(self, post: int, *, beats: bool) -> None:
        """`beats`: just before."""
        chosen = self.scene.posts[post % len(self.scene.posts)]
        if beats and not chosen.asleep:
            self.beats(chosen)
        self.scene.kill(chosen)
        self.scene.hire()

    @event(which=ANY, output=SMALL)
    def die_before_redis_is_told(self, which: int, output: int) -> None:
        """The settlement is committed; its process ends before Redis hears of it."""
        asked = self.streaming(which)
        if asked is None or asked.recorder is None or asked.state is not State.OPEN:
            return
        post = self.scene.owners[asked.request.id]
        if post.process.spool.active:
            return
        if asked.recorder.started and not asked.recorder.finished:
            finish(asked, asked.recorder, output)
        self.bench.run(_commit(post, self.scene.grants[asked.request.id], asked.recorder))
        asked.settle(asked.by_owner(asked.recorder))
        asked.lingers = True
        self.scene.kill(post)
        self.scene.hire()

    @event(which=ANY)
    def abandon(self, which: int) -> None:
        """Its settlement failed for good: open, and nobody runs it."""
        asked = self.streaming(which)
        if asked and asked.state is State.OPEN:
            post = self.scene.owners.pop(asked.request.id)
            post.process.running.leave(asked.request.id)

    @event(post=ANY, beats=st.booleans())
    def sleep(self, post: int, *, beats: bool) -> None:
        chosen = self.awake(post)
        if beats:
            self.beats(chosen)
        if len([post for post in self.scene.posts if not post.asleep]) > 1:
            chosen.asleep = True

    @event(post=ANY, output=SMALL)
    def wake(self, post: int, output: int) -> None:
        """Its streams have ended meanwhile; one of them is settled at once."""
        asleep = [post for post in self.scene.posts if post.asleep]
        if not asleep:
            return
        chosen = asleep[post % len(asleep)]
        self.come_back(chosen, output)

    @event(of=ANY, by=ANY, both=st.booleans(), beats=st.booleans(), back=st.booleans())
    def recover(self, of: int, by: int, *, both: bool, beats: bool, back: bool) -> None:
        """One is taken for dead, by one or by several at once: one that died, or sleeps, or is just slow.

        `beats`: just before; `back`: it had only stood still, and settles one of its streams now.
        """
        everybody = [*self.scene.posts, *self.scene.graves]
        suspects = [post for post in everybody if self.scene.open_of(post)] or everybody
        suspect = suspects[of % len(suspects)]
        observers = [post for post in self.scene.posts if not post.asleep and post is not suspect]
        if not observers:
            return
        if beats and suspect in self.scene.posts and not suspect.asleep:
            self.beats(suspect)
        first = observers[by % len(observers)]
        self.scene.recover(suspect, [first, *[post for post in observers if both and post is not first]])
        if back and suspect in self.scene.posts:
            self.come_back(suspect, 5 * by)

    @event(post=ANY)
    def look(self, post: int) -> None:
        self.scene.look(self.awake(post))

    @event(post=ANY, who=ANY)
    def lapse(self, post: int, who: int) -> None:
        self.scene.lapse(self.awake(post), self.scene.accounts[who % 4])

    # --------------------------------------------------------------------------------------------- entries

    @event(which=ANY, change=st.integers(-80, 80), name=st.sampled_from(ADJUSTED))
    def correct(self, which: int, change: int, name: str) -> None:
        self.settled(which)
        asked = self.asked(which, lambda asked: asked.state in {State.OPEN, State.SETTLED})
        if asked:
            self.scene.correct(asked, {name: change or 1})

    @event(who=ANY, back=st.integers(0, 1), amounts=st.tuples(*[st.integers(0, 99)] * len(ADJUSTED)))
    def credit(self, who: int, back: int, amounts: tuple[int, ...]) -> None:
        given = dict(zip(ADJUSTED, amounts, strict=True))
        given["requests"], given["cost_nano_usd"] = given["requests"] % 3, given["cost_nano_usd"] * 10_000
        if any(given.values()):
            self.scene.credit(self.scene.accounts[who % 4], given, months_ago=back)

    # ------------------------------------------------------------------------------------ Redis, and time

    @event(what=st.sampled_from(["flush", "tenant", "user", "remember", "restore", "restore"]), who=ANY)
    def redis(self, what: str, who: int) -> None:
        """It loses everything, or a hash; or an old copy of a tenant's hashes is back."""
        account = self.scene.accounts[who % 4]
        if what == "flush":
            self.bench.redis.flushdb()
        elif what in {"tenant", "user"}:
            self.bench.redis.delete(hash_key(account.tenant_id, account.user_id if what == "user" else None))
        elif what == "remember" or account.tenant_id not in self.scene.copies:
            self.scene.copy(account.tenant_id)
        else:
            self.scene.restore(account.tenant_id)

    @event(until=st.sampled_from(["deadlines", "day", "month"]))
    def wait(self, until: str) -> None:
        at, calendar = now_ms(), self.scene.calendar
        ends = {"day": calendar.day(at).ends_ms, "month": calendar.month(at).ends_ms}
        ends["deadlines"] = self.scene.last_deadline_ms() + 1
        self.wait_until(ends[until])


async def _commit(post: Post, grant: Grant, recorder: UsageRecorder) -> None:
    await post.process.journal.settlements.submit(await post.process.settlements._measure(grant, recorder))


@pytest.mark.slow
def test_any_order_of_events_keeps_the_books(
    database_url: str, private_valkey: Callable[..., Valkey], tmp_path: Path
) -> None:
    valkey = private_valkey(appendonly="no")
    with asyncio.Runner() as runner:
        bench = Bench(runner, database_url, valkey.url, tmp_path)
        try:
            chosen = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, phases=PHASES)
            run_state_machine_as_test(lambda: BooksMachine(bench), settings=chosen)  # type: ignore[arg-type]
        finally:
            bench.close()
