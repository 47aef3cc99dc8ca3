"""What happens after an admission in test_books_machine.py: settlement, recovery, corrections, old copies, the end.

Each verb does it to the product and to the model alike.
"""

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from core.clock import now_ms
from core.errors import Invalid
from core.tenancy.accounts import find_user
from metering.adjustments.corrections import Amounts, correct, credit
from metering.adjustments.measurement import Measurement
from metering.counts import NamedRow, UsageCounts
from metering.journal.recorder import UsageRecorder
from metering.journal.records import OpenRequest
from metering.pricing.tokens import Usage
from metering.quota.query import Grant
from metering.quota.windows import Calendar
from metering.settlement.recovery import Recovery
from tests.harness import ACTOR, Account, Books
from tests.metering.books_bench import Post, Reading
from tests.metering.books_model import Asked, Credit, State, hash_key
from tests.metering.books_scene import EDGE_MS, Scene


@dataclass
class Story(Scene):
    """A scene, and what may happen in it."""

    spoolers: dict[UUID, Post] = field(default_factory=dict)
    copies: dict[UUID, dict[str, Any]] = field(default_factory=dict)

    # ------------------------------------------------------------------------------ settlement, recovery

    def settle(self, post: Post, asked: Asked, recorder: UsageRecorder) -> None:
        """A process says what a request came to; on its disk, if there are others there already."""
        spools, measured = post.process.spool.active, asked.by_owner(recorder)
        before = self.read(asked.request.tenant_id)
        self.bench.run(_settle(post, self.grants[asked.request.id], recorder))
        if spools:
            self._spooled(post, asked, measured, before)
        else:
            asked.settle(measured)

    def spool(self, post: Post, asked: Asked, recorder: UsageRecorder) -> None:
        """The same while Postgres is away: it is on the disk, and only Redis hears of it."""
        measured, before = asked.by_owner(recorder), self.read(asked.request.tenant_id)
        self.bench.run(_spool(post, self.grants[asked.request.id], recorder))
        self._spooled(post, asked, measured, before)

    def _spooled(self, post: Post, asked: Asked, measured: Measurement, before: Reading) -> None:
        asked.spooled = measured
        self.spoolers[asked.request.id] = post
        for user_id in (None, asked.request.user_id):
            if before.fresh(user_id) and asked.request.id in before.held(user_id):
                asked.told[hash_key(asked.request.tenant_id, user_id)] = before.epoch

    def replay(self, post: Post) -> None:
        """What it has on its disk, and what the dead have left there."""
        self.bench.run(_replay(post))
        for request_id, spooler in list(self.spoolers.items()):
            asked = self.model.asked[request_id]
            if spooler in {post, *self.graves} and asked.spooled is not None:
                asked.settle(asked.spooled)
                self.owners.pop(request_id, None)
                del self.spoolers[request_id]

    def recover(self, of: Post, by: list[Post]) -> None:
        """Several processes at once take another for dead; each request is settled by one of them."""
        open_ones, began = self.open_of(of), now_ms()
        settled = self.bench.run(_recover(of.id, [post.process.recovery for post in by], of.beats))
        assert sum(settled) == len(open_ones)
        self._recovered(open_ones, began)

    def look(self, post: Post) -> None:
        """It takes everybody else for dead, and looks for its own orphans."""
        others = [other for other in (*self.posts, *self.graves) if other is not post]
        open_ones, began = [asked for other in others for asked in self.open_of(other)], now_ms()
        orphans = [asked for asked in self.open_of(post) if asked.request.id not in self.owners]
        settled = self.bench.run(post.process.recovery.look())
        assert settled >= len(open_ones) + len(orphans)  # an example that was cut short may have left others
        self._recovered(open_ones, began)
        for asked in orphans:
            asked.recover(None)
            asked.lingers = False

    def open_of(self, post: Post) -> list[Asked]:
        """The requests that a process has open."""
        every = self.model.asked.items()
        return [asked for key, asked in every if asked.state is State.OPEN and self.opened_by[key] is post]

    def _recovered(self, found: list[Asked], began: int) -> None:
        for asked in found:
            (row,) = self.bench.fetch("SELECT hold_until FROM usage_requests WHERE id = $1", asked.request.id)
            deadline = asked.request.deadline_ms
            if deadline > now_ms() + EDGE_MS:
                assert row["hold_until"] is not None
            elif deadline < began - EDGE_MS:
                assert row["hold_until"] is None
            asked.recover(deadline if row["hold_until"] else None)

    # ------------------------------------------------------------------------------- entries, old copies

    def correct(self, asked: Asked, deltas: dict[str, int]) -> None:
        """An admin corrects a request; refused where it is not settled, or where a count would fall below 0."""
        change = self._priced(asked, UsageCounts(**deltas))
        pairs = zip(asked.counts.values, change.values, strict=True)
        allowed = asked.state is State.SETTLED and all(more >= 0 or before + more >= 0 for before, more in pairs)
        try:
            self.bench.run(_correct(self.bench.books, asked.request, deltas))
        except Invalid:
            assert not allowed
        else:
            assert allowed
            asked.corrected += change

    @staticmethod
    def _priced(asked: Asked, change: UsageCounts) -> UsageCounts:
        if not any(change.usage):
            return change
        before = Usage(*asked.counts.usage)
        cost = asked.price.cost_nano_usd(before + Usage(*change.usage)) - asked.price.cost_nano_usd(before)
        return replace(change, cost_nano_usd=cost)

    def credit(self, account: Account, amounts: dict[str, int], *, months_ago: int) -> None:
        """An admin takes something off a user's usage of this month, or of the one before."""
        at = now_ms() - months_ago * self.calendar.month_ms
        period = self.calendar.month(at).name
        entry = self.bench.run(_credit(self.bench.books, account, self.calendar, amounts, period))
        counts = -UsageCounts(**amounts)
        assert (entry["period_id"], UsageCounts.of(entry)) == (period, counts)
        self.model.credits.append(Credit(account.tenant_id, account.user_id, period, entry["day"], counts))

    def copy(self, tenant_id: UUID) -> None:
        """Keeps a copy of a tenant's hashes, as they are."""
        keys = [hash_key(tenant_id, user_id) for user_id in (None, *self.users(tenant_id))]
        dumps = {key: self.bench.redis.dump(key) for key in keys}
        self.copies[tenant_id] = {key: dump for key, dump in dumps.items() if dump is not None}

    def restore(self, tenant_id: UUID) -> None:
        """An old copy is back. One of this epoch can only come back in another run of Redis: it says so."""
        for key, dump in self.copies.get(tenant_id, {}).items():
            self.bench.redis.restore(key, 0, dump, replace=True)
        reading = self.read(tenant_id)
        if reading.fresh(None):
            self.bench.redis.hset(hash_key(tenant_id, None), "r", "0" * 40)

    def last_deadline_ms(self) -> int:
        """When the last hold of all may lapse."""
        return max((asked.request.deadline_ms for asked in self.model.asked.values()), default=0)

    def end(self) -> None:
        """Everybody dies; one more process replays, recovers, and waits until the last hold has lapsed."""
        for post in list(self.posts):
            self.kill(post)
        last = self.hire()
        self.replay(last)
        self.look(last)
        wait_ms = max((asked.request.deadline_ms for asked in self._unfinished()), default=0) - now_ms() + 5
        time.sleep(max(wait_ms, 0) / 1000)
        for account in self.accounts:
            self.lapse(last, account)
        self.check()
        states = {asked.state for asked in self.model.asked.values()}
        assert states <= {State.SETTLED, State.VOID, State.GONE, State.HELD}
        assert all(self.model.asked[request_id].state is State.SETTLED for request_id in self.grants)
        for account in self.accounts:
            standing = self.bench.run(last.process.limit_status.of(account.tenant_id, account.user_id))
            assert standing.active == 0
            assert not any(limit.held for limit in standing.limits)
        self.check()

    def _unfinished(self) -> list[Asked]:
        """What Postgres or Redis may still hold for."""
        return [asked for asked in self.model.asked.values() if asked.lingers or asked.holds(now_ms())]


async def _settle(post: Post, grant: Grant, recorder: UsageRecorder) -> None:
    await post.process.settlements.begin(grant, recorder)


async def _spool(post: Post, grant: Grant, recorder: UsageRecorder) -> None:
    """What `Settlements` does where the commit finds no Postgres."""
    settlement = await post.process.settlements._measure(grant, recorder)
    await post.process.spool.spill([settlement])
    ids = (settlement.tenant_id, settlement.user_id, settlement.id)
    await post.process.quota.settle(*ids, settlement.counts.values)


async def _replay(post: Post) -> None:
    await post.process.replay.replay_own()
    await post.process.replay.replay_abandoned()


async def _recover(process_id: UUID, by: list[Recovery], beat: int) -> list[int]:
    assert await by[0].recover(process_id, beat=beat - 1) == 0  # it has beaten since: it lives
    return await asyncio.gather(*(recovery.recover(process_id, beat=beat) for recovery in by))


async def _correct(books: Books, request: OpenRequest, deltas: dict[str, int]) -> None:
    async with books.database.session() as session:
        await correct(session, ACTOR, request.tenant_id, request.id, Amounts(**deltas), reason="wrong")


async def _credit(books: Books, account: Account, calendar: Calendar, amounts: dict[str, int], period: str) -> NamedRow:
    async with books.database.session() as session:
        user = await find_user(session, account.user_id, tenant_id=None)
        given = Amounts(**amounts)
        written = await credit(session, ACTOR, user, given, calendar=calendar, period_id=period, reason="goodwill")
        return written.entry
