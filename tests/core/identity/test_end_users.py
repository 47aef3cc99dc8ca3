"""Users that requests make, by several processes at once, on a real Postgres."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from core.errors import NakaError, Unavailable
from core.identity.end_users import EndUser, EndUsers, TooManyNewUsers, UserUnknown
from core.ids import uuid7_ms
from core.postgres.database import Database
from core.tenancy.principal import UserDisabled
from tests.harness import Account, Books

TTL_S = 300


@pytest.fixture
async def books(database_url: str) -> AsyncIterator[Books]:
    books = Books(database_url)
    yield books
    await books.close()


@pytest.fixture
async def processes(database_url: str) -> AsyncIterator[list[EndUsers]]:
    """The look-ups of two processes."""
    databases = [Database(database_url), Database(database_url)]
    yield [EndUsers(database, ttl_s=TTL_S) for database in databases]
    for database in databases:
        await database.close()


async def find(users: EndUsers, account: Account, name: str, **how: bool) -> EndUser | NakaError:
    try:
        return await users.named(account.tenant_id, name, key_id=account.key_id, **how)
    except NakaError as error:
        return error


async def ids_of(books: Books, tenant_id: UUID) -> list[UUID]:
    return [row["id"] for row in await books.fetch("SELECT id FROM users WHERE tenant_id = $1", tenant_id)]


async def test_two_processes_make_one_user_of_a_name(books: Books, processes: list[EndUsers]) -> None:
    account = await books.account()
    names = [f"user-{number % 25}" for number in range(200)]
    found = await asyncio.gather(*(find(processes[at % 2], account, name) for at, name in enumerate(names)))
    by_name = dict(zip(names, found, strict=True))
    assert found == [by_name[name] for name in names]
    assert len(await ids_of(books, account.tenant_id)) == 26
    audited = await books.fetch(
        "SELECT target FROM audit_log WHERE tenant_id = $1 AND actor_key_id = $2", account.tenant_id, account.key_id
    )
    assert len(audited) == len({row["target"] for row in audited}) == 25


async def test_the_bound_per_minute_is_exact_under_a_race(books: Books, processes: list[EndUsers]) -> None:
    account, other = await books.account(), await books.account()
    await books.fetch("UPDATE tenants SET new_users_per_minute = 11 WHERE id = $1", account.tenant_id)
    asked = [find(processes[number % 2], account, f"user-{number // 2}") for number in range(100)]
    asked += [find(processes[number % 2], other, f"user-{number // 2}") for number in range(100)]
    found = await asyncio.gather(*asked)

    ids = await ids_of(books, account.tenant_id)
    per_minute = Counter(uuid7_ms(id_) // 60_000 for id_ in ids)
    assert max(per_minute.values()) <= 11 <= len(ids)
    refused = [one for one in found[:100] if isinstance(one, TooManyNewUsers)]
    assert {one.id for one in found[:100] if isinstance(one, EndUser)} | {account.user_id} == set(ids)
    assert refused
    assert all(1 <= one.retry_after_s <= 60 for one in refused)
    assert all(isinstance(one, EndUser) for one in found[100:]), "another tenant's bound is its own"


@pytest.mark.slow
async def test_a_process_that_stopped_with_the_lock_delays_its_own_tenant_only(
    books: Books, processes: list[EndUsers]
) -> None:
    stuck, other, (users, _) = await books.account(), await books.account(), processes
    async with books.connection() as connection, connection.transaction():
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('naka:new-users:' || $1::uuid, 0))", stuck.tenant_id
        )
        found = await asyncio.gather(find(users, stuck, "ada"), find(users, other, "ada"), find(users, stuck, "bob"))
        assert [type(one) for one in found] == [Unavailable, EndUser, Unavailable]
    assert isinstance(await find(users, stuck, "ada"), EndUser)


async def test_a_user_that_may_not_be_made_is_unknown(books: Books, processes: list[EndUsers]) -> None:
    account, (users, _) = await books.account(), processes
    assert isinstance(await find(users, account, "ada", creates=False), UserUnknown)
    await books.fetch("UPDATE tenants SET makes_users = false WHERE id = $1", account.tenant_id)
    assert isinstance(await find(users, account, "ada"), UserUnknown)
    await books.fetch("UPDATE tenants SET makes_users = true WHERE id = $1", account.tenant_id)
    made = await find(users, account, "ada")
    assert isinstance(made, EndUser)
    assert await find(users, account, "ada", creates=False) == made


async def test_a_cached_user_is_read_again_when_asked_or_told(books: Books, processes: list[EndUsers]) -> None:
    account, (users, _) = await books.account(), processes
    made = await find(users, account, "ada")
    assert isinstance(made, EndUser)
    await books.fetch("UPDATE users SET disabled_at = now() WHERE id = $1", made.id)
    assert await find(users, account, "ada") == made
    assert isinstance(await find(users, account, "ada", fresh=True), UserDisabled)
    users.forget(account.tenant_id)
    assert isinstance(await find(users, account, "ada"), UserDisabled)
    await books.fetch("UPDATE users SET disabled_at = NULL, erased_at = now() WHERE id = $1", made.id)
    assert isinstance(await find(users, account, "ada", fresh=True), UserDisabled)
