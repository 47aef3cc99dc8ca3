"""Budgets in trouble: killed and suspended processes, late counts, lost connections, locks; no deadlock with others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from core.errors import Unavailable
from core.tenancy.accounts import find_key, revoke_key
from core.tenancy.principal import Unauthenticated
from metering.adjustments.corrections import Amounts, correct
from metering.admission.admission import QuotaExceeded
from metering.admission.entitlements import project_entitlement
from metering.budgets import usage
from metering.budgets.usage import lock_budgets
from metering.pricing.tokens import Usage
from metering.quota.limits import Meter, PlanLimits
from metering.quota.query import Grant
from metering.quota.schedule import Schedule
from metering.quota.windows import WindowKind
from sandbox.daemon import free_port
from tests.harness import ACTOR, TOKEN_FIELDS, Account, Books
from tests.metering.budgeted import SEARCH, at_most, crowd_as, limit_tag, token, use_up_as, used_by
from tests.metering.faults import agree, recover, row_of, write
from tests.metering.outage import PROMPT, QUICK, Start, until
from tests.metering.process import PATIENCE_S, Process, books_say, principal, redis_counters, text_ask
from tests.metering.tagged import declare


@asynccontextmanager
async def locked(
    books: Books, account: Account, key: str, value: str, *, patience_ms: int = 60_000
) -> AsyncIterator[Any]:
    """Another process holds the lock of a budget, in the middle of its commit; others are patient."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(usage, "_PATIENCE_MS", patience_ms)
        async with books.connection() as connection, connection.transaction():
            await lock_budgets(connection, [(account.tenant_id, key, value)])
            await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            yield connection


async def waits_for_lock(books: Books, name: str = "naka-open-budget") -> int:
    """The backend that waits for the lock of a budget, once there is one."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND wait_event = 'advisory'"
        " AND datname = current_database()"
    )
    async with asyncio.timeout(30):
        while not (rows := await books.fetch(query, name)):  # noqa: ASYNC110 - another process waits, in Postgres
            await asyncio.sleep(0.02)
    return int(rows[0]["pid"])


async def test_who_lost_the_room_meanwhile_is_refused_and_holds_nothing(process: Process, books: Books) -> None:
    account = await books.account()
    who = token(account, requests=10)
    first = await process.admit_as(who)
    async with locked(books, account, "nk:token", "t-1"):
        late = asyncio.create_task(crowd_as(process, who, 60))
        await waits_for_lock(books)
        await until(lambda: len(process.running) == 61)  # all of them saw room, and have their holds
    granted = await late
    assert len(granted) == 9
    assert len(process.running) == 10
    assert {grant.request.id for grant in (first, *granted)} == {row["id"] for row in await books.requests(account)}
    assert await redis_counters(process.quota, first) == await books_say(books, first)


@pytest.mark.slow
async def test_a_revoked_key_takes_no_room_of_others_in_its_batch(process: Process, books: Books) -> None:
    victim = await books.account()
    other = await books.account(tenant_id=victim.tenant_id)
    await limit_tag(books, victim, at_most(Meter.REQUESTS, 3))
    for who in (victim, other):  # their counters are built: the batch is in the order of the requests
        await process.admit(who)
    async with locked(books, victim, *SEARCH[0]):
        first = asyncio.create_task(process.admit(other, tags=SEARCH))
        await waits_for_lock(books)  # the following ones are one batch, the revoked first
        late = [asyncio.create_task(process.admit(who, tags=SEARCH)) for who in (victim,) * 4 + (other,) * 3]
        await until(lambda: process.budgeted.committer.depth == 7)
        async with books.database.session() as session:
            await revoke_key(session, ACTOR, await find_key(session, victim.key_id, tenant_id=None))
    await first
    answers = await asyncio.gather(*late, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unauthenticated] * 4 + [Grant] * 2 + [QuotaExceeded]


@pytest.mark.slow
async def test_a_killed_process_holds_its_budget_until_its_streams_have_ended(start: Start, books: Books) -> None:
    sleeper, alive = await start(), await start()
    account = await books.account()
    await limit_tag(books, account, at_most(Meter.TOKENS, 1_000, WindowKind.PERIOD), at_most(Meter.REQUESTS, 5))
    grants = [await sleeper.admit(account, tags=SEARCH) for _ in range(5)]
    for grant in grants:
        write(sleeper.settlements.recorder(grant), chars=40)
    await sleeper.heartbeat.beat()
    assert await recover(alive, sleeper, books) == 5
    assert (await row_of(books, grants[0]))["hold_until"] is not None
    tokens, requests = await alive.budget_status.of(principal(account), SEARCH)
    assert (tokens.used, tokens.held) == (0, 5 * (PROMPT + 100))
    assert (requests.used, requests.held, requests.remaining) == (0, 5, 0)
    with pytest.raises(QuotaExceeded) as refused:
        await alive.admit(account, tags=SEARCH)
    assert (refused.value.code, refused.value.retry_after_s) == ("held", 1)

    await books.fetch("UPDATE usage_requests SET hold_until = now() WHERE tenant_id = $1", account.tenant_id)
    tokens, requests = await alive.budget_status.of(principal(account), SEARCH)
    rows = await books.requests(account)
    assert (tokens.used, tokens.held) == (sum(row[name] for row in rows for name in TOKEN_FIELDS), 0)
    assert (requests.used, requests.held) == (5, 0)
    with pytest.raises(QuotaExceeded) as refused:
        await alive.admit(account, tags=SEARCH)
    assert refused.value.code == "budget_exhausted"
    assert refused.value.retry_after_s > 1
    await agree(books, account)


@pytest.mark.slow
@pytest.mark.parametrize("window", ["minute", "day", "life"])
async def test_only_a_better_count_of_what_ran_passes_a_budget(start: Start, books: Books, window: str) -> None:
    sleeper, alive = await start(), await start()
    account = await books.account()
    who = principal(account)
    if window == "life":
        who = token(account, tokens=400)
    else:
        await limit_tag(books, account, at_most(Meter.TOKENS, 400, WindowKind(window)))
    grant = await sleeper.admit_as(who, tags=SEARCH)
    recorder = write(sleeper.settlements.recorder(grant), chars=40)
    await sleeper.heartbeat.beat()
    await recover(alive, sleeper, books)
    await books.fetch("UPDATE usage_requests SET hold_until = now() WHERE tenant_id = $1", account.tenant_id)
    await alive.settle(await alive.admit_as(who, tags=SEARCH), Usage(1, 1))
    write(recorder, chars=4_000, told=1_000, ended=True)
    await sleeper.settlements.begin(grant, recorder)  # the process only slept: 1,130 tokens, of which 200 were held
    (status,) = await alive.budget_status.of(who, SEARCH)
    assert (status.used, status.held, status.remaining) == (1_130 + 2, 0, 0) or window == "minute"
    for process in (sleeper, alive):
        with pytest.raises(QuotaExceeded) as refused:
            await process.admit_as(who, tags=SEARCH)
        assert refused.value.code == "budget_exhausted"
    async with books.database.session() as session:
        ids = (account.tenant_id, grant.request.id)
        await correct(session, ACTOR, *ids, Amounts(output_tokens=-1_000), reason="goodwill")
    again = await alive.admit_as(who, tags=SEARCH)
    assert again.output_tokens == 100


@pytest.mark.slow
async def test_a_lost_connection_opens_at_most_once(process: Process, books: Books) -> None:
    account = await books.account()
    who = token(account, requests=1)
    async with locked(books, account, "nk:token", "t-1"):
        asked = asyncio.create_task(process.admit_as(who))
        await books.fetch("SELECT pg_terminate_backend($1)", await waits_for_lock(books))
        await waits_for_lock(books)  # it was made void, and asks again
    grant = await asked
    states = {row["id"]: row["state"] for row in await books.requests(account)}
    assert states.pop(grant.request.id) == "open"
    assert list(states.values()) == ["void"]
    (status,) = await process.budget_status.of(who, ())
    assert (status.used, status.held) == (0, 1)


async def test_a_suspended_process_does_not_keep_others_from_a_budget(
    process: Process, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "_IDLE_MS", 300)
    account = await books.account()
    who = token(account, requests=1)
    async with books.connection() as stopped:
        await stopped.execute("BEGIN")
        await lock_budgets(stopped, [(account.tenant_id, "nk:token", "t-1")])
        async with asyncio.timeout(5):
            await process.admit_as(who)
        assert stopped.is_closed()


@pytest.mark.slow
async def test_a_lock_that_stays_taken_leaves_nobody_of_the_batch_in_doubt(process: Process, books: Books) -> None:
    stuck, other = [await books.account() for _ in range(2)]
    for account in (stuck, other):  # their counters are built
        await process.admit(account)
    epochs = await books.fetch("SELECT tenant_id, epoch FROM tenant_epochs ORDER BY tenant_id")
    async with locked(books, stuck, "nk:token", "t-1", patience_ms=300), asyncio.timeout(5):
        answers = await asyncio.gather(
            *(process.admit_as(token(account, requests=1)) for account in (stuck, other)), return_exceptions=True
        )
    assert isinstance(answers[0], Unavailable)
    assert isinstance(answers[1], Grant | Unavailable)
    for account in (stuck, other):
        assert {row["state"] for row in await books.requests(account)} == {"open"}, "none is void"
    assert await books.fetch("SELECT tenant_id, epoch FROM tenant_epochs ORDER BY tenant_id") == epochs
    await process.admit_as(token(stuck, requests=1))


async def test_values_with_limits_are_added_up_past_the_bound_of_distinct_values(
    process: Process, books: Books
) -> None:
    account = await books.account()
    await declare(books, account.tenant_id, "feature", most=1)
    await process.settle(await process.admit(account, tags=(("feature", "chat"),)), Usage(1, 1))
    await limit_tag(books, account, at_most(Meter.REQUESTS, 1))
    await process.settle(await process.admit(account, tags=SEARCH), Usage(1, 1))
    with pytest.raises(QuotaExceeded, match="Requests with this feature tag have used today's 1 requests"):
        await process.admit(account, tags=SEARCH)
    other = await process.admit(account, tags=(("feature", "translate"),))
    assert '"feature":"other"' in str(other.request.tags)


@pytest.mark.slow
async def test_opens_settlements_rebuilds_and_projections_never_deadlock(start: Start, books: Books) -> None:
    seeing, blind = await start(), await start(redis=f"redis://127.0.0.1:{free_port()}/0", **QUICK)
    await until(lambda: blind.pipeline.breaker.is_open)
    account = await books.account()
    others = [await books.account(tenant_id=account.tenant_id), await books.account()]
    pairs = [(("a", "1"), ("b", "1")), (("a", "2"), ("b", "1")), (("a", "1"), ("b", "2"))]
    for who in (account, others[1]):
        for tags in pairs:
            await limit_tag(books, who, at_most(Meter.TOKENS, 6_000), tags=tags)
    before = await _deadlocks(books)
    is_over = False

    async def change() -> None:
        """Moves the epochs of both tenants, as billing and admins do."""
        number = 0
        while not is_over:
            number += 1
            for who in (account, others[1]):
                async with books.database.session() as session:
                    await project_entitlement(
                        session, who.tenant_id, plan_version=str(number), limits=PlanLimits(), schedule=Schedule()
                    )
            await asyncio.sleep(0.1)

    changing = asyncio.create_task(change())
    async with asyncio.timeout(120):
        await asyncio.gather(
            *(
                use_up_as(process, token(who, f"t-{number}", tokens=3_000), tags=pairs[number % 3])
                for number in range(6)
                for process in (seeing, blind)
                for who in (account, *others)
            )
        )
    is_over = True
    await changing
    assert await _deadlocks(books) == before
    for tenant in (account, others[1]):
        rows = await books.fetch(
            "SELECT key, tags ->> key AS value, sum(input_tokens + output_tokens)::bigint AS used"
            " FROM usage_requests, unnest(tag_keys) AS key WHERE tenant_id = $1 GROUP BY 1, 2",
            tenant.tenant_id,
        )
        assert len(rows) == 10
        for row in rows:
            assert row["used"] <= (3_000 if row["key"] == "nk:token" else 6_000), row


async def _deadlocks(books: Books) -> int:
    """Deadlocks in this database, once every backend has reported them."""
    await asyncio.sleep(1.5)
    (row,) = await books.fetch("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    return int(row["deadlocks"])


async def test_the_exact_count_is_asked_for_when_only_the_bound_passes_a_budget(either: Process, books: Books) -> None:
    account = await books.account()
    who = token(account, tokens=1_000)
    asked = []

    async def count() -> int:
        asked.append(1)
        return 300

    ask = replace(text_ask(100, 2_000), count=count)
    grant = await either.admission.admit(who, ask, within_s=PATIENCE_S)
    assert asked == [1]
    assert grant.request.held_prompt_tokens == 314
    assert (await used_by(books, account))[1] == 414
