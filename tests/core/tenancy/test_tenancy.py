"""Tenants, users and keys on a real database: uniqueness, audit entries, principals."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from core.errors import Conflict, Invalid, NotFound, Unavailable
from core.ids import uuid7
from core.postgres.database import Database
from core.tenancy.accounts import (
    create_key,
    create_tenant,
    create_user,
    find_key,
    find_tenant,
    find_user,
    revoke_key,
    rotate_key,
)
from core.tenancy.audit import Actor
from core.tenancy.directory import Directory
from core.tenancy.keys import NewKey
from core.tenancy.lists import list_audit, list_keys, list_tenants, list_users
from core.tenancy.models import ApiKey, AuditEntry, User
from core.tenancy.principal import Forbidden, Principal, Scope, Unauthenticated

ACTOR = Actor("cli:test")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.close()


async def make_user(database: Database, slug: str = "acme") -> User:
    async with database.session() as session:
        tenant = await create_tenant(session, ACTOR, slug=slug, name=slug.title())
        return await create_user(session, ACTOR, tenant.id, external_id="ada")


async def make_key(
    database: Database, user: User, *, expires_at: datetime | None = None, scope: Scope = Scope.CHAT
) -> tuple[ApiKey, NewKey]:
    async with database.session() as session:
        return await create_key(
            session, ACTOR, user, name="k", scopes=[scope], models=None, expires_at=expires_at, live=False
        )


async def test_a_slug_is_unique_even_in_a_race(database: Database) -> None:
    async def create() -> None:
        async with database.session() as session:
            await create_tenant(session, ACTOR, slug="acme", name="Acme")

    results = await asyncio.gather(*(create() for _ in range(5)), return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 4
    async with database.session() as session:
        assert len(await list_tenants(session)) == 1
        assert len((await session.scalars(select(AuditEntry))).all()) == 1


async def test_a_tenant_is_found_by_id_and_by_slug(database: Database) -> None:
    user = await make_user(database)
    async with database.session() as session:
        assert (await find_tenant(session, "acme")).id == user.tenant_id
        assert (await find_tenant(session, user.tenant_id)).slug == "acme"
        with pytest.raises(NotFound):
            await find_tenant(session, "none")


async def test_what_is_anothers_is_not_found_in_the_same_words(database: Database) -> None:
    user, other = await make_user(database), await make_user(database, "beta")
    key, _ = await make_key(database, user)
    async with database.session() as session:
        said = set()
        for user_id in (user.id, uuid7()):
            with pytest.raises(NotFound) as caught:
                await find_user(session, user_id, tenant_id=other.tenant_id)
            said.add(str(caught.value))
        assert len(said) == 1
        said.clear()
        for key_id in (key.id, uuid7()):
            with pytest.raises(NotFound) as caught:
                await find_key(session, key_id, tenant_id=other.tenant_id)
            said.add(str(caught.value))
        assert len(said) == 1
        assert (await find_key(session, key.id, tenant_id=None)).id == key.id


async def test_a_key_becomes_a_principal_until_it_ends(database: Database) -> None:
    user = await make_user(database)
    key, secret = await make_key(database, user)
    directory = Directory(database, ttl_s=10)
    principal = await directory.authenticate(secret.plaintext)
    assert principal == Principal(user.tenant_id, user.id, key.id, frozenset({"chat"}))
    async with database.session() as session:
        await revoke_key(session, ACTOR, await find_key(session, key.id, tenant_id=None))
    with pytest.raises(Unauthenticated):
        await directory.authenticate(secret.plaintext, fresh=True)
    assert await directory.authenticate(secret.plaintext) == principal, "the cache may be a moment old"
    directory.forget(uuid7())
    assert await directory.authenticate(secret.plaintext) == principal
    directory.forget(user.tenant_id)
    with pytest.raises(Unauthenticated):
        await directory.authenticate(secret.plaintext)


@pytest.mark.slow
async def test_a_cached_key_ends_at_its_expiry(database: Database) -> None:
    user = await make_user(database)
    _, secret = await make_key(database, user, expires_at=datetime.now(UTC) + timedelta(seconds=1.5))
    directory = Directory(database, ttl_s=10)
    await directory.authenticate(secret.plaintext)
    await asyncio.sleep(1.6)
    with pytest.raises(Unauthenticated):
        await directory.authenticate(secret.plaintext)


async def test_a_key_that_has_ended_is_not_made(database: Database) -> None:
    user = await make_user(database)
    with pytest.raises(Invalid):
        await make_key(database, user, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    async with database.session() as session:
        assert await list_keys(session, user) == []


async def test_an_outage_is_never_a_wrong_key(database: Database) -> None:
    _, secret = await make_key(database, await make_user(database))
    nowhere = Database("postgresql://x:x@127.0.0.1:1/x", timeout_s=1)
    with pytest.raises(Unavailable):
        await Directory(nowhere, ttl_s=10).authenticate(secret.plaintext)
    await nowhere.close()


async def test_rotation_keeps_an_earlier_end_of_the_old_key(database: Database) -> None:
    user = await make_user(database)
    soon = datetime.now(UTC) + timedelta(minutes=1)
    key, _ = await make_key(database, user, expires_at=soon)
    async with database.session() as session:
        old = await find_key(session, key.id, tenant_id=None)
        new, _ = await rotate_key(session, ACTOR, old, overlap_s=3600, live=False)
    assert old.expires_at == soon
    assert new.expires_at == soon
    assert new.scopes == old.scopes


async def test_every_change_is_in_the_log_and_no_secret(database: Database) -> None:
    user = await make_user(database)
    key, secret = await make_key(database, user)
    async with database.session() as session:
        found = await find_key(session, key.id, tenant_id=None)
        await rotate_key(session, ACTOR, found, overlap_s=0, live=False)
        await revoke_key(session, ACTOR, found)
    async with database.session() as session:
        entries = (await list_audit(session, tenant_id=user.tenant_id, before=None, limit=10)).rows
        assert [entry.action for entry in reversed(entries)] == [
            "tenant.create",
            "user.create",
            "key.create",
            "key.create",
            "key.rotate",
        ]
        assert not any(secret.plaintext in str(entry) for entry in entries)
        older = (await list_audit(session, tenant_id=user.tenant_id, before=entries[1].id, limit=2)).rows
        assert [entry.id for entry in older] == [entry.id for entry in entries[2:4]]


async def test_a_change_that_fails_leaves_no_entry(database: Database) -> None:
    user = await make_user(database)

    async def two_users() -> None:
        async with database.session() as session:
            await create_user(session, ACTOR, user.tenant_id, external_id="grace")
            await create_user(session, ACTOR, user.tenant_id, external_id="ada")

    with pytest.raises(Conflict):
        await two_users()
    async with database.session() as session:
        assert [found.external_id for found in await list_users(session, user.tenant_id)] == ["ada"]
        assert len((await list_audit(session, tenant_id=user.tenant_id, before=None, limit=10)).rows) == 2


def test_a_platform_admin_may_what_a_tenants_admin_may() -> None:
    tenant, ids = uuid7(), (uuid7(), uuid7())
    platform = Principal(tenant, *ids, frozenset({"platform:admin"}))
    platform.require(Scope.TENANT_ADMIN)
    with pytest.raises(Forbidden):
        platform.require(Scope.CHAT)
    admin = Principal(tenant, *ids, frozenset({"tenant:admin"}))
    with pytest.raises(Forbidden):
        admin.require(Scope.PLATFORM_ADMIN)
    assert (admin.may_see(tenant), admin.may_see(uuid7()), platform.may_see(uuid7())) == (True, False, True)
