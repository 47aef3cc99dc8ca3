"""The journal: group commits, poisoned rows, and the answer when the connection breaks."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from core.clock import to_ms
from core.errors import InDoubt, Unavailable
from core.ids import uuid7
from core.tenancy.accounts import find_key, revoke_key
from core.tenancy.principal import Scope
from metering.journal.group_commit import Poisoned
from metering.journal.journal import InFallback, Journal, Opened, Settled, void_unknown
from metering.pricing.tokens import Usage
from tests.harness import ACTOR, Account, Books
from tests.metering.process import Process
from tests.metering.rows import request, settlement
from tests.programs import until
from tests.servers import asyncpg_dsn

WAITING_OPEN = (
    "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'naka-open'"
    " AND wait_event_type = 'Lock'"
)


@pytest.fixture
async def journal(metering_database: str) -> AsyncIterator[Journal]:
    """A started journal."""
    journal = Journal(asyncpg_dsn(metering_database), timeout_s=5)
    journal.start()
    yield journal
    await journal.stop()


@pytest.fixture
async def second(metering_database: str) -> AsyncIterator[Journal]:
    """The journal of another process."""
    journal = Journal(asyncpg_dsn(metering_database), timeout_s=5)
    journal.start()
    yield journal
    await journal.stop()


@pytest.fixture
async def account(books: Books) -> Account:
    """An account whose tenant is in epoch 1."""
    account = await books.account()
    await books.fetch("INSERT INTO tenant_epochs VALUES ($1, 1)", account.tenant_id)
    return account


async def states(books: Books, account: Account) -> dict[UUID, str]:
    """The state of each request of the account."""
    return {row["id"]: row["state"] for row in await books.requests(account)}


async def books_agree(books: Books, account: Account) -> Counter[str]:
    """Asserts that rows, rollup and meters have the same sums; returns them."""
    rows, daily, meters = [
        await books.sums(table, account.tenant_id) for table in ("usage_requests", "usage_daily", "usage_meters")
    ]
    assert rows == daily == meters
    return rows


def counting(monkeypatch: pytest.MonkeyPatch, committer: object) -> list[int]:
    """Records the sizes of the committer's batches."""
    sizes: list[int] = []
    run: Callable[..., object] = committer._run  # type: ignore[attr-defined]

    def counted(connection: object, items: list[object]) -> object:
        sizes.append(len(items))
        return run(connection, items)

    monkeypatch.setattr(committer, "_run", counted)
    return sizes


async def test_what_waits_together_commits_together(
    journal: Journal, books: Books, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens, settles = counting(monkeypatch, journal.opens), counting(monkeypatch, journal.settlements)
    requests = [request(account) for _ in range(300)]
    assert set(await asyncio.gather(*map(journal.opens.submit, requests))) == {Opened.OPEN}
    assert opens == [128, 128, 44]
    assert set(await asyncio.gather(*(journal.settlements.submit(settlement(r)) for r in requests))) == {Settled.NOW}
    assert settles == [128, 128, 44]
    sums = await books_agree(books, account)
    assert [sums[name] for name in ("requests", "input_tokens", "output_tokens", "cache_write_1h_tokens")] == [
        300,
        300,
        600,
        1_500,
    ]
    assert sums["cost_nano_usd"] == 300 * (3_000 + 30_000 + 900 + 15_000 + 30_000 + 6 * 10_000_000)


async def test_a_poisoned_row_fails_alone(journal: Journal, books: Books, account: Account) -> None:
    requests = [request(account) for _ in range(20)]
    requests[7] = replace(requests[7], model="a\0b")
    requests[11] = replace(requests[11], held_nano_usd=2**63)
    answers = await asyncio.gather(*map(journal.opens.submit, requests), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Poisoned if i in (7, 11) else Opened for i in range(20)]
    good = [r for index, r in enumerate(requests) if index not in (7, 11)]
    assert await states(books, account) == {r.id: "open" for r in good}
    settlements = [settlement(r) for r in good]
    settlements[3] = replace(settlements[3], stop_reason="\0")
    done = await asyncio.gather(*map(journal.settlements.submit, settlements), return_exceptions=True)
    assert [answer is Settled.NOW for answer in done] == [index != 3 for index in range(18)]
    assert isinstance(done[3], Poisoned)
    assert (await books_agree(books, account))["requests"] == 17


async def test_settling_again_moves_nothing(journal: Journal, books: Books, account: Account) -> None:
    opened = request(account)
    await journal.opens.submit(opened)
    assert await journal.settlements.submit(settlement(opened)) is Settled.NOW
    before = await books_agree(books, account)
    for usage in (Usage(1, 2, 3, 4, 5), Usage(100)):
        assert await journal.settlements.submit(settlement(opened, usage)) is Settled.BEFORE
    assert await books_agree(books, account) == before
    assert before["requests"] == 1


async def test_what_was_never_opened_cannot_be_settled(journal: Journal, books: Books, account: Account) -> None:
    assert await journal.settlements.submit(settlement(request(account))) is Settled.BEFORE
    assert (await books_agree(books, account)).total() == 0


async def test_why_a_request_bounces(journal: Journal, books: Books, account: Account) -> None:
    expired, revoked, good = account, await _same_tenant(books, account), await _same_tenant(books, account)
    disabled, stranger = await _same_tenant(books, account), await books.account()
    backend = await books.account(tenant_id=account.tenant_id, scopes=[Scope.CHAT_AS_USER])
    ownerless = await books.account(tenant_id=account.tenant_id, scopes=[Scope.CHAT_AS_USER])
    await books.fetch("UPDATE users SET disabled_at = now() WHERE id = ANY ($1)", [disabled.user_id, ownerless.user_id])
    ago = datetime.now(UTC) - timedelta(seconds=1)
    await books.fetch("UPDATE api_keys SET expires_at = $2 WHERE id = $1", expired.key_id, ago)
    await books.fetch("UPDATE api_keys SET revoked_at = $2 WHERE id = $1", revoked.key_id, ago)
    before_it_expired = replace(request(expired), opened_ms=to_ms(ago) - 1_000)
    asked = {
        before_it_expired: Opened.OPEN,
        request(expired): Opened.KEY_ENDED,
        request(revoked): Opened.KEY_ENDED,
        request(good): Opened.OPEN,
        replace(request(good), epoch=0): Opened.EPOCH_MOVED,
        replace(request(good), epoch=2): Opened.EPOCH_MOVED,
        replace(request(revoked), epoch=0): Opened.KEY_ENDED,
        replace(request(good), user_id=account.user_id): Opened.KEY_ENDED,  # no such key of that user
        request(disabled): Opened.USER_DISABLED,
        replace(request(backend), user_id=good.user_id): Opened.OPEN,
        replace(request(backend), user_id=disabled.user_id): Opened.USER_DISABLED,
        replace(request(ownerless), user_id=good.user_id): Opened.USER_DISABLED,  # whose key it is
        replace(request(backend), user_id=stranger.user_id): Opened.USER_DISABLED,  # no such user of the tenant
    }
    assert await asyncio.gather(*map(journal.opens.submit, asked)) == list(asked.values())
    rows = await books.fetch("SELECT id FROM usage_requests WHERE tenant_id = $1", account.tenant_id)
    assert {row["id"] for row in rows} == {r.id for r, answer in asked.items() if answer is Opened.OPEN}


async def _same_tenant(books: Books, account: Account) -> Account:
    return await books.account(tenant_id=account.tenant_id)


async def test_no_request_opens_after_a_revocation_has_committed(
    journal: Journal, second: Journal, books: Books, account: Account
) -> None:
    for opens_before in (1, 10, 100):
        key = await books.account(tenant_id=account.tenant_id)
        race = Race(books, key)
        await asyncio.gather(race.revoke(opens_before), *(race.open_on(j) for j in (journal, second) * 8))
        assert race.after == Counter({Opened.KEY_ENDED: race.after.total()})
        assert race.after.total() >= 16
        assert len(await books.requests(key)) == race.answers[Opened.OPEN] >= opens_before


REVOKE = "UPDATE api_keys SET revoked_at = now() WHERE tenant_id = $1"
BUMP = "UPDATE tenant_epochs SET epoch = 2 WHERE tenant_id = $1"


@pytest.mark.parametrize(
    ("change", "end", "answer"),
    [
        (REVOKE, "COMMIT", Opened.KEY_ENDED),
        (REVOKE, "ROLLBACK", Opened.OPEN),
        (BUMP, "COMMIT", Opened.EPOCH_MOVED),
        (BUMP, "ROLLBACK", Opened.OPEN),
    ],
)
async def test_an_open_waits_for_a_change_under_way_and_sees_it(
    journal: Journal, books: Books, account: Account, change: str, end: str, answer: Opened
) -> None:
    async with books.connection() as connection:
        await connection.execute("BEGIN")
        await connection.execute(change, account.tenant_id)
        asked = journal.opens.submit(request(account))
        await asyncio.sleep(0.3)
        assert not asked.done()
        await connection.execute(end)
        assert await asked is answer
    assert len(await books.requests(account)) == (answer is Opened.OPEN)


class Race:
    """Many open requests with a key until it is revoked, and a little longer."""

    def __init__(self, books: Books, account: Account) -> None:
        self._books = books
        self._account = account
        self._revoked = False
        self._counted = asyncio.Condition()
        self.answers = Counter[Opened | InFallback]()
        self.after = Counter[Opened | InFallback]()
        """What was answered to those who asked once the revocation had committed."""

    async def open_on(self, journal: Journal) -> None:
        """Asks until it has asked twice after the revocation."""
        late = 0
        while late < 2:
            asked_late = self._revoked
            answer = await journal.opens.submit(request(self._account))
            async with self._counted:
                self.answers[answer] += 1
                self._counted.notify_all()
            if asked_late:
                self.after[answer] += 1
                late += 1

    async def revoke(self, opens_before: int) -> None:
        """Revokes once so many were opened."""
        async with self._counted:
            await self._counted.wait_for(lambda: self.answers[Opened.OPEN] >= opens_before)
        key_id, tenant_id = self._account.key_id, self._account.tenant_id
        async with self._books.database.session() as session:
            await revoke_key(session, ACTOR, await find_key(session, key_id, tenant_id=tenant_id))
        self._revoked = True


@pytest.mark.slow
@pytest.mark.chaos
async def test_whatever_breaks_every_answer_is_true(journal: Journal, books: Books, account: Account) -> None:
    """Backends are killed at random under load: no open row without its answer, no settlement twice."""
    seed = random.Random(7)
    told: dict[UUID, Opened | InFallback | BaseException] = {}
    settled: list[UUID] = []
    cuts = 0

    async def live() -> None:
        while cuts < 40:
            opened = request(account)
            try:
                told[opened.id] = await journal.opens.submit(opened)
            except Unavailable as error:
                told[opened.id] = error
                continue
            if told[opened.id] is Opened.OPEN:
                await journal.settlements.submit(settlement(opened))
                settled.append(opened.id)

    async def cut() -> None:
        nonlocal cuts
        async with books.connection() as connection:
            while cuts < 40:
                await asyncio.sleep(seed.uniform(0, 0.05) + (0.5 if len(settled) < cuts // 4 else 0))  # a busy machine
                cuts += await connection.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name IN ('naka-open', 'naka-settle')"
                    " AND (application_name = 'naka-open' OR random() < 0.5)"
                )

    async with asyncio.timeout(60):
        await asyncio.gather(cut(), *(live() for _ in range(24)))
    found = await states(books, account)
    for request_id, answer in told.items():
        if answer is Opened.OPEN:
            assert found[request_id] == "settled"
        elif not isinstance(answer, InDoubt):
            assert found.get(request_id) in (None, "void")
    assert "void" in found.values()  # or nothing was ever in doubt, and this has shown nothing
    sums = await books_agree(books, account)
    assert sums["requests"] == len(settled) == sum(answer is Opened.OPEN for answer in told.values()) > 0


async def test_a_void_row_stands_against_a_late_open_and_yields_to_an_early_one(
    journal: Journal, books: Books, account: Account
) -> None:
    early, late = request(account), request(account)
    await journal.opens.submit(early)
    async with books.connection() as connection:
        asked = [(r.tenant_id, r.id, r.user_id) for r in (early, late)]
        known = await void_unknown(connection, asked)
    assert {request_id: request.state for request_id, request in known.items()} == {early.id: "open", late.id: "void"}
    with pytest.raises(Poisoned):
        await journal.opens.submit(late)
    assert await states(books, account) == {early.id: "open", late.id: "void"}


async def test_an_open_fails_at_once_when_postgres_is_away() -> None:
    journal = Journal("postgresql://nobody@127.0.0.1:1/none", timeout_s=1)
    journal.start()
    account = Account(uuid7(), uuid7(), uuid7(), "")
    with pytest.raises(Unavailable) as raised:
        await journal.opens.submit(request(account))
    assert not isinstance(raised.value, InDoubt)
    await journal.stop()


async def test_an_open_under_way_when_the_process_stops_is_in_doubt(
    start: Callable[..., Awaitable[Process]], books: Books
) -> None:
    process, account = await start(), await books.account()
    await process.admit(account)
    async with books.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM tenant_epochs WHERE tenant_id = $1 FOR UPDATE", account.tenant_id)
        asked = asyncio.create_task(process.admit(account))
        await until(lambda: books.fetch(WAITING_OPEN))  # for the lock that a rebuild would have
        await process.journal.opens.stop(grace_s=0.1)
        with pytest.raises(InDoubt):
            await asyncio.wait_for(asked, 10)
