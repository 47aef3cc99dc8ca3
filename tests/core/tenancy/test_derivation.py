"""Derived keys on a real database: at most the parent's rights, and revocation of a whole tree."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from core.ids import uuid7
from core.postgres.database import Database
from core.tenancy.accounts import create_key, create_tenant, create_user, find_key, revoke_key, revoke_tree, rotate_key
from core.tenancy.audit import Actor
from core.tenancy.derivation import ExceedsParentKey
from core.tenancy.models import ApiKey, AuditEntry, User
from core.tenancy.principal import Scope, Unauthenticated
from tests.programs import until

CLI = Actor("cli:test")
ADMIN = (Scope.TENANT_ADMIN, Scope.CHAT)
SONNET, HAIKU = "claude-sonnet-4-6", "claude-haiku-4-5"
SOON = datetime.now(UTC) + timedelta(days=1)
LATER = SOON + timedelta(seconds=1)


class Undo(Exception):
    """Rolls a transaction back."""


@dataclass(frozen=True)
class Bench:
    """A tenant with a user, and keys derived from each other."""

    database: Database
    user: User

    async def make(self, maker: ApiKey | None = None, user: User | None = None, **rights: Any) -> ApiKey:
        """Creates a key with `maker`, or on the command line."""
        wanted = {"name": "k", "scopes": ADMIN, "models": None, "expires_at": None} | rights
        async with self.database.session() as session:
            made, _ = await create_key(session, by(maker), user or self.user, live=False, **wanted)
        return made

    async def rotate(self, key: ApiKey, maker: ApiKey | None = None, *, overlap_s: int = 0) -> ApiKey:
        """Rotates a key."""
        async with self.database.session() as session:
            found = await find_key(session, key.id, tenant_id=None)
            made, _ = await rotate_key(session, by(maker), found, overlap_s=overlap_s, live=False)
        return made

    async def end(self, key: ApiKey, *, tree: bool) -> None:
        """Revokes a key, or its whole tree."""
        async with self.database.session() as session:
            await (revoke_tree if tree else revoke_key)(session, CLI, await find_key(session, key.id, tenant_id=None))

    async def living(self, **keys: ApiKey) -> set[str]:
        """Returns those keys that are not revoked."""
        async with self.database.session() as session:
            good = set(await session.scalars(select(ApiKey.id).where(ApiKey.revoked_at.is_(None))))
        return {name for name, key in keys.items() if key.id in good}


def by(maker: ApiKey | None) -> Actor:
    """Returns the actor of a key."""
    return CLI if maker is None else Actor(f"key:{maker.id}", maker.id)


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    database = Database(database_url)
    yield Bench(database, await new_user(database, "acme"))
    await database.close()


async def new_user(database: Database, slug: str) -> User:
    async with database.session() as session:
        tenant = await create_tenant(session, CLI, slug=slug, name=slug)
        return await create_user(session, CLI, tenant.id, external_id="ada")


async def test_a_derived_key_has_at_most_its_makers_rights(bench: Bench) -> None:
    maker = await bench.make(models=[SONNET], expires_at=SOON)
    other = await new_user(bench.database, "beta")
    more: tuple[dict[str, Any], ...] = (
        {"scopes": [Scope.USAGE_READ]},
        {"scopes": [Scope.PLATFORM_ADMIN]},
        {"models": [SONNET, HAIKU]},
        {"expires_at": LATER},
        {"user": other},
    )
    for beyond in more:
        with pytest.raises(ExceedsParentKey):
            await bench.make(maker, **beyond)
    same = await bench.make(maker)
    assert (same.models, same.expires_at, same.parent_key_id) == ([SONNET], SOON, maker.id)
    grandchild = await bench.make(same, scopes=[Scope.CHAT], expires_at=SOON - timedelta(hours=1))
    assert (grandchild.models, grandchild.expires_at) == ([SONNET], SOON - timedelta(hours=1))
    with pytest.raises(ExceedsParentKey):
        await bench.make(grandchild, expires_at=SOON)
    async with bench.database.session() as session:
        assert len((await session.scalars(select(ApiKey))).all()) == 3, "what is refused leaves nothing"


async def test_the_operators_key_gives_any_scope_in_any_tenant_but_no_more_models_or_time(bench: Bench) -> None:
    operator = await bench.make(scopes=[Scope.PLATFORM_ADMIN], models=[SONNET], expires_at=SOON)
    other = await new_user(bench.database, "beta")
    made = await bench.make(operator, other)
    assert (made.tenant_id, made.models, made.expires_at) == (other.tenant_id, [SONNET], SOON)
    more: tuple[dict[str, Any], ...] = ({"models": [HAIKU]}, {"expires_at": LATER})
    for beyond in more:
        with pytest.raises(ExceedsParentKey):
            await bench.make(operator, other, **beyond)


@pytest.mark.parametrize("rights", [{"scopes": [Scope.USAGE_READ]}, {"models": None}, {"expires_at": None}])
async def test_rotating_is_no_way_up(bench: Bench, rights: dict[str, Any]) -> None:
    bounds: dict[str, Any] = {"scopes": ADMIN, "models": [SONNET], "expires_at": SOON}
    maker, beyond = await bench.make(**bounds), await bench.make(**bounds | rights)
    with pytest.raises(ExceedsParentKey):
        await bench.rotate(beyond, maker)
    successor = await bench.rotate(maker, maker)
    assert (successor.models, successor.expires_at) == ([SONNET], SOON)
    with pytest.raises(Unauthenticated):
        await bench.rotate(successor, maker)
    with pytest.raises(Unauthenticated):
        await bench.make(maker)


async def test_revoking_takes_the_descendants_along_when_it_is_asked_to(bench: Bench) -> None:
    root, stranger = await bench.make(), await bench.make()
    child = await bench.make(root)
    grandchild = await bench.make(child)
    keys = {"root": root, "stranger": stranger, "child": child, "grandchild": grandchild}
    await bench.end(child, tree=False)
    assert await bench.living(**keys) == {"root", "stranger", "grandchild"}
    await bench.end(root, tree=True)
    await bench.end(root, tree=True)
    assert await bench.living(**keys) == {"stranger"}
    async with bench.database.session() as session:
        ended = (await session.scalars(select(AuditEntry.target).where(AuditEntry.action == "key.revoke"))).all()
    assert sorted(ended) == sorted(f"key:{key.id}" for key in (root, child, grandchild)), "each once"


async def test_a_rotated_key_keeps_its_place_in_every_tree_it_belongs_to(bench: Bench) -> None:
    grandmother, thief = await bench.make(), await bench.make()
    mother = await bench.make(grandmother)
    made_before = await bench.make(mother)
    successor = await bench.rotate(mother, thief, overlap_s=60)
    made_after = await bench.make(successor)
    keys = {"mother": mother, "before": made_before, "successor": successor, "after": made_after}
    for root, left in (
        (thief, {"mother", "before"}),  # the thief knows the successor's secret alone
        (mother, set()),
        (successor, set()),
        (grandmother, set()),
    ):
        with suppress(Undo):
            async with bench.database.session() as session:
                await revoke_tree(session, CLI, await find_key(session, root.id, tenant_id=None))
                await session.flush()
                good = set(await session.scalars(select(ApiKey.id).where(ApiKey.revoked_at.is_(None))))
                assert {name for name, key in keys.items() if key.id in good} == left
                raise Undo


async def test_no_key_escapes_the_tree_while_it_is_revoked(bench: Bench) -> None:
    root = await bench.make()
    made = [root]

    async def breed(number: int) -> None:
        parent = root
        for _ in range(8):
            try:
                parent = await bench.make(parent)
            except Unauthenticated:
                return
            made.append(parent)
            await asyncio.sleep(0.001 * number)

    async def enough() -> bool:
        return len(made) >= 4

    breeders = [asyncio.create_task(breed(number)) for number in range(3)]
    await until(enough)
    await bench.end(root, tree=True)
    await asyncio.gather(*breeders)
    assert await bench.living(**{str(uuid7()): key for key in made}) == set()
