"""The driver of the tests of entries: a tenant, the operations on its ledger, and the expected sums."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import cycle
from typing import Any

import asyncpg

from core.clock import now_ms
from core.tenancy.accounts import find_user
from metering.adjustments.corrections import Amounts, Written, correct, credit
from metering.adjustments.measurement import Measurement
from metering.adjustments.revisions import revise
from metering.counts import COUNT_COLUMNS, UsageCounts
from metering.journal.journal import Journal, Opened
from metering.journal.records import OpenRequest, Outcome, Settlement, Source
from metering.pricing.price import PriceBook
from metering.pricing.price_list import read_prices
from metering.pricing.tokens import NO_USAGE, Usage
from metering.reports.requests import find_request
from tests.harness import ACTOR, Account, Books
from tests.metering.rows import KOLKATA, PRICE, request
from tests.metering.tagged import assert_tags_exact
from tests.servers import asyncpg_dsn

SONNET, HAIKU = PRICE.model, "claude-haiku-4-5"
LOST = (Outcome.LOST, Source.ESTIMATED)
ESTIMATED = (Outcome.CLIENT_GONE, Source.ESTIMATED)
COUNTED = (Outcome.CLIENT_GONE, Source.COUNTED)
FINAL = (Outcome.COMPLETED, Source.FINAL)
BETTER = (LOST, ESTIMATED, COUNTED, FINAL)
TAGS: tuple[tuple[str | None, str | None], ...] = (
    ('{"feature": "search", "conversation": "c-1", "team": "x"}', "conversation,feature"),
    (None, None),
    ('{"feature": "chat"}', "feature"),
    ('{"feature": "chat"}', None),
)
"""Tags of the requests and the keys that are added up, in turn."""


@dataclass(frozen=True)
class LedgerDriver:
    """A tenant's account, and the ways to change its books."""

    books: Books
    journal: Journal
    account: Account
    book: PriceBook
    tags: Iterator[tuple[str | None, str | None]] = field(default_factory=lambda: cycle(TAGS))

    async def opened(self) -> OpenRequest:
        """An open request, of a price that the list has."""
        price_id = self.book.at(SONNET, now_ms()).id
        tags, tag_keys = next(self.tags)
        named = replace(request(self.account), tags=tags, tag_keys=tag_keys)
        asked = replace(named, price_id=price_id, epoch=await self.epoch())
        assert await self.journal.opens.submit(asked) is Opened.OPEN
        return asked

    async def settled(self, *, known: tuple[Outcome, Source] = LOST, usage: Usage = NO_USAGE) -> OpenRequest:
        """A request that was settled as `known`."""
        asked = await self.opened()
        await self.journal.settlements.submit(self.measured(asked, known, usage))
        return asked

    def measured(
        self, asked: OpenRequest, known: tuple[Outcome, Source], usage: Usage, model: str = SONNET
    ) -> Settlement:
        """A settlement of the request with this usage, at the price of `model`."""
        price, _ = self.book.settle(model, asked.opened_ms, self.book.by_id(asked.price_id))
        ids = (asked.tenant_id, asked.id, asked.user_id)
        cost = price.cost_nano_usd(usage)
        return Settlement(*ids, *known, model, model_known=True, requests=1, usage=usage, cost_nano_usd=cost)

    async def revise(self, settlement: Settlement) -> bool:
        """Revises a request, on a connection of its own."""
        async with self.books.connection() as connection:
            return await revise(connection, settlement)

    async def correct(
        self, asked: OpenRequest, *, reason: str = "wrong", reference: str | None = None, **deltas: int
    ) -> Written:
        """Corrects a request, in a transaction of its own."""
        async with self.books.database.session() as session:
            ids = (asked.tenant_id, asked.id)
            return await correct(session, ACTOR, *ids, Amounts(**deltas), reason=reason, reference=reference)

    async def credit(
        self,
        *,
        period: str | None = None,
        day: date | None = None,
        reason: str = "goodwill",
        reference: str | None = None,
        **amounts: int,
    ) -> Written:
        """Credits the account's user, in a transaction of its own."""
        async with self.books.database.session() as session:
            user = await find_user(session, self.account.user_id, tenant_id=None)
            return await credit(
                session,
                ACTOR,
                user,
                Amounts(**amounts),
                calendar=KOLKATA,
                period_id=period,
                day=day,
                reason=reason,
                reference=reference,
            )

    async def effective(self, asked: OpenRequest) -> Measurement:
        """The effective measurement of a request, with its entries."""
        async with self.books.database.session() as session:
            return (await find_request(session, asked.id, tenant_id=None)).effective

    async def entries(self) -> list[asyncpg.Record]:
        """The tenant's entries, oldest first."""
        return await self.books.fetch(
            "SELECT * FROM usage_entries WHERE tenant_id = $1 ORDER BY id", self.account.tenant_id
        )

    async def epoch(self) -> int:
        """The tenant's epoch."""
        query = "SELECT epoch FROM tenant_epochs WHERE tenant_id = $1"
        return int((await self.books.fetch(query, self.account.tenant_id))[0]["epoch"])

    async def everything(self) -> dict[str, list[str]]:
        """All rows of the tenant that an entry may touch."""
        tables = ("usage_requests", "usage_entries", "usage_daily", "usage_meters", "tenant_epochs", "audit_log")
        return {
            table: sorted(
                row["text"]
                for row in await self.books.fetch(
                    f"SELECT t::text AS text FROM {table} t WHERE tenant_id = $1", self.account.tenant_id
                )
            )
            for table in tables
        }

    async def exact(self) -> Counter[str]:
        """Asserts that rollup and meters are the sums of rows and entries, key by key; returns the meters' sums."""
        made_of = "usage_requests WHERE state = 'settled' AND", "usage_entries WHERE kind <> 'repair' AND"
        of_daily = ("user_id", "day", "period_id", "key_id", "model")
        for table, key in (("usage_daily", of_daily), ("usage_meters", ("period_id",))):
            there = await self._sums(f"{table} WHERE", key)
            expected: dict[tuple[Any, ...], UsageCounts] = {}
            for part in made_of:
                for where, counts in (await self._sums(part, key)).items():
                    expected[where] = expected.get(where, UsageCounts()) + counts
            assert _nonzero(there) == _nonzero(expected), table
        await assert_tags_exact(self.books, self.account.tenant_id)
        return await self.books.sums("usage_meters", self.account.tenant_id)

    async def _sums(self, table: str, key: tuple[str, ...]) -> dict[tuple[Any, ...], UsageCounts]:
        sums = ", ".join(f"sum({name})::bigint AS {name}" for name in COUNT_COLUMNS)
        columns = ", ".join(key)
        rows = await self.books.fetch(
            f"SELECT {columns}, {sums} FROM {table} tenant_id = $1 GROUP BY {columns}", self.account.tenant_id
        )
        return {tuple(row[name] for name in key): UsageCounts.of(row) for row in rows}


def _nonzero(sums: dict[tuple[Any, ...], UsageCounts]) -> dict[tuple[Any, ...], UsageCounts]:
    return {key: counts for key, counts in sums.items() if any(counts.values)}


@asynccontextmanager
async def open_ledger(database_url: str, books: Books) -> AsyncIterator[LedgerDriver]:
    """A tenant in epoch 1, and a journal."""
    journal = Journal(asyncpg_dsn(database_url), timeout_s=10)
    journal.start()
    account = await books.account()
    await books.fetch("INSERT INTO tenant_epochs VALUES ($1, 1)", account.tenant_id)
    async with books.database.session() as session:
        book = PriceBook(await read_prices(session))
    yield LedgerDriver(books, journal, account, book)
    await journal.stop()


def draw_usage(dice: random.Random) -> Usage:
    """A random usage."""
    counts = [dice.randrange(0, 300) for _ in range(5)]
    counts += [dice.randint(0, counts[1]), dice.randrange(0, 4)]
    return Usage(*counts)
