"""What the rules of test_books_machine.py are made of: the beginning and the end, and what happens in several of them.

Rules draw small numbers; each takes what there is by that number, or makes one where there is none.
"""

import copy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from core.clock import now_ms
from metering.quota.limits import LimitSet
from tests.metering.books_bench import Bench, Post
from tests.metering.books_draws import ASK, OF_TENANT, Asking, finish, start, write
from tests.metering.books_model import Asked, State
from tests.metering.books_story import Story
from tests.metering.process import text_ask
from tests.metering.proof import SOME_TAGS
from tests.metering.short_calendar import ShortCalendar

TTLS_MS = [200, 400]
DAY_MS, DAYS = 400, 3
WAITS_S = 0.8
"""An example waits no longer than this in all."""


def event(**drawn: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A rule; when it has happened, a few users ask."""

    def decorate(happen: Callable[..., None]) -> Callable[..., None]:
        def step(self: "Steps", asks: Sequence[Asking] = (), **arguments: Any) -> None:
            happen(self, **arguments)
            self.admit(asks)

        step.__name__ = happen.__name__
        made: Callable[..., None] = rule(asks=st.lists(ASK, max_size=2), **drawn)(step)  # type: ignore[no-untyped-call]
        return made

    return decorate


class Steps(RuleBasedStateMachine):
    """How an example begins and ends, and what its rules are made of."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.scene = Story(bench, ShortCalendar(now_ms(), day_ms=DAY_MS, days=DAYS), TTLS_MS)
        self.bench, self.model = bench, self.scene.model
        self.waits_s = WAITS_S

    @initialize(limits=st.tuples(OF_TENANT, OF_TENANT), posts=st.integers(2, 3), asks=st.lists(ASK, max_size=6))
    def begin(self, limits: tuple[tuple[LimitSet, LimitSet, LimitSet], ...], posts: int, asks: list[Asking]) -> None:
        self.scene.people(list(limits))
        for _ in range(posts):
            self.scene.hire()
        self.admit(asks)

    # ------------------------------------------------------------------------------------------ choosing

    def awake(self, which: int) -> Post:
        """There is always one."""
        posts = [post for post in self.scene.posts if not post.asleep]
        return posts[which % len(posts)]

    def asked(self, which: int, wanted: Callable[[Asked], bool]) -> Asked | None:
        found = [asked for asked in self.model.asked.values() if wanted(asked)]
        return found[which % len(found)] if found else None

    def streaming(self, which: int) -> Asked | None:
        """A request that an awake process runs, also one that was given up while it slept; a new one if there is none.

        None when nobody may ask now.
        """
        owners = self.scene.owners

        def runs(asked: Asked) -> bool:
            return asked.request.id in owners and not owners[asked.request.id].asleep and asked.spooled is None

        found = self.asked(which, runs)
        if found is None:
            self.admit([(which, which, 2 * which, 3 + which, False, which)])
            found = self.asked(which, runs)
        return found

    def settled(self, which: int) -> Asked | None:
        """A request that is settled; a new one if there is none."""
        found = self.asked(which, lambda asked: asked.state is State.SETTLED)
        if found is None:
            asked = self.streaming(which)
            if asked and asked.recorder:
                self.come_back(self.scene.owners[asked.request.id], 3 * which)
        return found or self.asked(which, lambda asked: asked.state is State.SETTLED)

    # ----------------------------------------------------------------------------------- admit and stream

    @rule(asks=st.lists(ASK, min_size=1, max_size=6))
    def admit(self, asks: Sequence[Asking]) -> None:
        """A few users ask, one after the other, by way of some process, which may not see Redis; some answers begin."""
        for who, post, prompt, output, blind, progress in asks:
            account = self.scene.accounts[who % 4]
            searches = 2 if progress % 4 == 3 else 0
            tags = SOME_TAGS[progress % len(SOME_TAGS)]
            ask = replace(text_ask(output, prompt), tags=tags, web_searches=searches)
            asked = self.scene.admit(self.awake(post), account, ask, blind=blind)
            if asked and progress % 4:
                start(asked, (prompt, progress, 7, 1))
                write(asked, 9 * progress)
            if asked and asked.recorder and progress % 4 == 3:
                finish(asked, asked.recorder, output // 2)

    # -------------------------------------------------------------------------------- parts of the rules

    def end(self, asked: Asked, *, spool: bool = False) -> None:
        """Its process settles it; on its disk, if Postgres is away or others are there already."""
        post, recorder = self.scene.owners[asked.request.id], asked.recorder
        assert recorder is not None
        (self.scene.spool if spool else self.scene.settle)(post, asked, recorder)
        if asked.spooled is None:
            del self.scene.owners[asked.request.id]

    def beats(self, chosen: Post) -> None:
        """A heartbeat, which carries how far the streams are that it still runs."""
        self.bench.run(chosen.process.heartbeat.beat())
        chosen.beats += 1
        for asked in self.model.asked.values():
            if self.scene.opened_by[asked.request.id] is chosen:
                listed = asked.request.id in self.scene.owners
                asked.beaten = copy.copy(asked.recorder) if listed else None

    def come_back(self, post: Post, output: int) -> None:
        """It is awake, and one of its streams, if it has any, has ended well and is settled."""
        post.asleep = False
        asked = self.asked(output, lambda asked: self.scene.owners.get(asked.request.id) is post and not asked.spooled)
        if asked and asked.recorder:
            start(asked, (output, 0, 0, 2))
            if not asked.recorder.finished:
                finish(asked, asked.recorder, output)
            self.end(asked)

    def wait_until(self, at_ms: int) -> bool:
        """Waits for that moment, unless the example has waited for long enough; whether it has come."""
        wait_s = max(at_ms - now_ms(), 0) / 1000
        if wait_s > self.waits_s:
            return False
        self.waits_s -= wait_s
        time.sleep(wait_s)
        return True

    # -------------------------------------------------------------------------------------- after each step

    @invariant()
    def the_books_are_right(self) -> None:
        self.scene.check()

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.scene.end()
        finally:
            for post in list(self.scene.posts):
                self.scene.kill(post)
