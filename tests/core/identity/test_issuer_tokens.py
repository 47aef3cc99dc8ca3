"""Principals of JWTs on a real database: whose they are, and what ends them."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from core.errors import Conflict, Invalid, NotFound
from core.identity import issuers as issuers_module
from core.identity.end_users import EndUsers
from core.identity.issuer_tokens import IssuerTokens
from core.identity.issuers import IssuerTerms, list_issuers, register_issuer, remove_issuer
from core.identity.jwks import KeysUnavailable
from core.postgres.database import Database
from core.settings import Settings
from core.tenancy.accounts import create_tenant, revoke_key
from core.tenancy.audit import Actor
from core.tenancy.models import ApiKey, AuditEntry, Issuer, User
from core.tenancy.principal import Principal, Scope, Unauthenticated, UserDisabled
from tests.core.identity.idp import AUDIENCE, ISSUER, JwksServer, claims, jwks, new_key, pem_of, serve_jwks, sign

ACTOR = Actor("cli:test")
KEY = new_key("ES256")
PEM = pem_of(KEY)
NOBODY = UUID(int=1)
"""A tenant that has nothing."""


@dataclass
class World:
    """A database and the issuers of one process."""

    database: Database
    tokens: IssuerTokens

    async def tenant(self, slug: str = "acme") -> UUID:
        """A new tenant's id."""
        async with self.database.session() as session:
            return (await create_tenant(session, ACTOR, slug=slug, name=slug)).id

    async def register(self, tenant_id: UUID, *, as_tenant: bool = False, **changed: Any) -> Issuer:
        """Registers an issuer; `as_tenant`: within the tenant's row-level security."""
        found: dict[str, Any] = {
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "verification_keys": PEM,
            "user_claim": "sub",
            "tag_claims": {},
            "scopes": [Scope.CHAT, Scope.USAGE_READ],
            "scopes_claim": None,
            "leeway_s": 30,
        }
        terms = IssuerTerms(**{**found, **changed})
        async with self.database.session(tenant_id=tenant_id if as_tenant else None) as session:
            row = await register_issuer(session, ACTOR, tenant_id, terms, production=False, shared=not as_tenant)
        self.tokens.forget(tenant_id)
        return row

    async def principal(self, token: str, *, fresh: bool = False) -> Principal:
        """Of a JWT."""
        return await self.tokens.principal_of(token, origin=None, fresh=fresh)

    async def name(self, user_id: UUID) -> str:
        """A user's name."""
        async with self.database.session() as session:
            found = await session.scalar(select(User).where(User.id == user_id))
        assert found is not None
        return found.external_id


@asynccontextmanager
async def process(database_url: str, **settings: Any) -> AsyncIterator[World]:
    database = Database(database_url)
    made = Settings(_env_file=None, **{"naka_env": "development", "directory_ttl_s": 60, **settings})
    tokens = IssuerTokens(database, made, EndUsers(database, ttl_s=60))
    yield World(database, tokens)
    await tokens.stop()
    await database.close()


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with process(database_url) as found:
        yield found


@pytest.fixture
def server() -> Iterator[JwksServer]:
    with serve_jwks() as found:
        found.body = jwks(KEY)
        yield found


async def test_a_token_is_its_tenants_and_acts_for_the_user_it_names(world: World) -> None:
    tenant_id = await world.tenant()
    row = await world.register(tenant_id)
    token = sign(KEY, "ES256")
    found = await world.principal(token)
    assert (found.tenant_id, found.key_id) == (tenant_id, row.key_id)
    assert found.scopes == {Scope.CHAT, Scope.USAGE_READ}
    assert await world.name(found.user_id) == "ada@acme.example"
    assert await world.principal(token, fresh=True) == found


async def test_an_unknown_issuer_or_audience_is_refused(world: World) -> None:
    await world.register(await world.tenant())
    for changed in (
        {"iss": "https://other.example/"},
        {"aud": "another service"},
        {"aud": ["a", "b"]},
        {"iss": "x\x00"},
    ):
        with pytest.raises(Unauthenticated):
            await world.principal(sign(KEY, "ES256", claims(**changed)))
    assert (await world.principal(sign(KEY, "ES256", claims(aud=["a", AUDIENCE])))).scopes


async def test_an_issuer_never_speaks_for_another_tenant(world: World) -> None:
    mine, theirs, their_key = await world.tenant(), await world.tenant("beta"), new_key("ES256")
    their_pem = pem_of(their_key)
    await world.register(mine)
    await world.register(theirs, audience="beta", verification_keys=their_pem)
    assert (await world.principal(sign(KEY, "ES256"))).tenant_id == mine
    assert (await world.principal(sign(their_key, "ES256", claims(aud="beta")))).tenant_id == theirs
    for key, audience in ((their_key, AUDIENCE), (KEY, "beta")):
        with pytest.raises(Unauthenticated):
            await world.principal(sign(key, "ES256", claims(aud=audience)))


async def test_a_registration_with_another_key_does_not_disturb_an_issuer(world: World) -> None:
    mine, theirs, their_key = await world.tenant(), await world.tenant("beta"), new_key("ES256")
    row = await world.register(mine)
    other = await world.register(theirs, audience="beta", verification_keys=pem_of(their_key))
    both = claims(aud=[AUDIENCE, "beta"])
    for _ in range(2):  # read, then cached
        assert (await world.principal(sign(KEY, "ES256", both))).tenant_id == mine
        assert (await world.principal(sign(their_key, "ES256", both))).tenant_id == theirs
        with pytest.raises(Unauthenticated):
            await world.principal(sign(new_key("ES256"), "ES256", both))
    shared = await world.register(theirs, audience="shared")
    with pytest.raises(Unauthenticated):  # its key holds for both tenants
        await world.principal(sign(KEY, "ES256", claims(aud=[AUDIENCE, "shared"])))
    second = await world.register(mine, audience="second")
    assert (await world.principal(sign(KEY, "ES256", claims(aud=["second", AUDIENCE])))).key_id == row.key_id
    async with world.database.session() as session:
        for each in (row, other, shared):
            await remove_issuer(session, ACTOR, each.id, tenant_id=each.tenant_id)
    assert (await world.principal(sign(KEY, "ES256", claims(aud=["second", AUDIENCE])), fresh=True)).key_id == (
        second.key_id
    )


async def test_a_tenant_takes_no_issuer_of_another(world: World) -> None:
    mine, theirs = await world.tenant(), await world.tenant("beta")
    row = await world.register(mine, as_tenant=True)
    for changed in ({}, {"audience": "https://login.acme.example/userinfo", "verification_keys": pem_of(KEY)}):
        with pytest.raises(Conflict):
            await world.register(theirs, as_tenant=True, **changed)
    async with world.database.session() as session:
        await remove_issuer(session, ACTOR, row.id, tenant_id=mine)
    with pytest.raises(Conflict, match="operator"):
        await world.register(theirs, as_tenant=True)
    assert (await world.register(mine, as_tenant=True)).tenant_id == mine, "its own again, with another leeway or tag"
    assert (await world.register(theirs, audience="shared")).tenant_id == theirs, "the operator may"


async def test_two_tenants_at_once_take_an_issuer_once(world: World) -> None:
    tenants = [await world.tenant(slug) for slug in ("acme", "beta", "gamma", "delta")]
    made = await asyncio.gather(
        *(world.register(each, as_tenant=True, audience=str(each)) for each in tenants), return_exceptions=True
    )
    assert sum(isinstance(each, Conflict) for each in made) == 3
    assert sum(isinstance(each, Issuer) for each in made) == 1


async def test_the_cached_issuer_gets_old_while_it_is_used(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant_id = await world.tenant()
    row = await world.register(tenant_id)
    token, cache = sign(KEY, "ES256"), world.tokens._issuers
    await world.principal(token)
    (entry,) = cache._entries.values()
    await world.principal(token)
    assert list(cache._entries.values()) == [entry], "its time does not begin anew"

    said = world.tokens._said

    async def forgotten_meanwhile(*how: Any) -> Any:
        world.tokens.forget(tenant_id)
        return await said(*how)

    monkeypatch.setattr(world.tokens, "_said", forgotten_meanwhile)
    assert (await world.principal(token, fresh=True)).key_id == row.key_id
    assert cache._entries == {}, "what was forgotten during the wait is not restored"


async def test_an_issuer_and_audience_belong_to_one_tenant_also_in_a_race(world: World) -> None:
    tenants = [await world.tenant(slug) for slug in ("acme", "beta", "gamma")]
    made = await asyncio.gather(*(world.register(each, as_tenant=True) for each in tenants), return_exceptions=True)
    assert sum(isinstance(each, Conflict) for each in made) == 2
    (row,) = [each for each in made if isinstance(each, Issuer)]
    async with world.database.session() as session:
        assert len((await session.scalars(select(ApiKey))).all()) == 1, "a refused registration leaves no key"
        await remove_issuer(session, ACTOR, row.id, tenant_id=row.tenant_id)
    other = next(each for each in tenants if each != row.tenant_id)
    assert (await world.register(other)).tenant_id == other, "the operator may register a removed one for another"


async def test_removing_and_revoking_end_its_tokens(world: World, database_url: str) -> None:
    tenant_id = await world.tenant()
    row = await world.register(tenant_id)
    token = sign(KEY, "ES256")
    async with process(database_url) as other:
        assert (await other.principal(token)).scopes
        async with world.database.session(tenant_id=tenant_id) as session:
            with pytest.raises(NotFound):
                await remove_issuer(session, ACTOR, row.id, tenant_id=NOBODY)
            await remove_issuer(session, ACTOR, row.id, tenant_id=tenant_id)
            await remove_issuer(session, ACTOR, row.id, tenant_id=tenant_id)
        for each in (world, other):
            with pytest.raises(Unauthenticated):
                await each.principal(token, fresh=True)
    second = await world.register(tenant_id)
    async with world.database.session() as session:
        await revoke_key(session, ACTOR, await session.get_one(ApiKey, (tenant_id, second.key_id)))
    with pytest.raises(Unauthenticated) as refused:
        await world.principal(token, fresh=True)
    assert refused.value.tenant_id == tenant_id, "counted as a refusal of this tenant"
    async with world.database.session() as session:
        actions = [each.action for each in await session.scalars(select(AuditEntry).order_by(AuditEntry.id))]
    assert [each for each in actions if "issuer" in each] == ["issuer.create", "issuer.remove", "issuer.create"]


async def test_a_disabled_user_is_refused_with_a_token_of_before(world: World) -> None:
    tenant_id = await world.tenant()
    await world.register(tenant_id)
    token = sign(KEY, "ES256")
    user_id = (await world.principal(token)).user_id
    async with world.database.session() as session:
        found = await session.scalar(select(User).where(User.id == user_id))
        assert found is not None
        found.disabled_at = found.created_at
    with pytest.raises(Exception, match="disabled"):
        await world.principal(token, fresh=True)


async def test_disabling_the_user_of_its_key_ends_every_token_of_an_issuer(world: World) -> None:
    tenant_id = await world.tenant()
    await world.register(tenant_id)
    token = sign(KEY, "ES256")
    principal = await world.principal(token)
    assert principal.is_delegated, "no page is for it"
    key_id = principal.key_id
    async with world.database.session() as session:
        owner = select(User).join(ApiKey, ApiKey.user_id == User.id).where(ApiKey.id == key_id)
        found = (await session.scalars(owner)).one()
        found.disabled_at = found.created_at
    with pytest.raises(UserDisabled):
        await world.principal(token, fresh=True)
    with pytest.raises(Unauthenticated):
        await world.principal(sign(new_key("ES256"), "ES256"), fresh=True)


@pytest.mark.slow
async def test_times(world: World) -> None:
    await world.register(await world.tenant(), leeway_s=10)
    now_s = int(time.time())
    for changed in ({"exp": now_s - 11}, {"nbf": now_s + 15}, {"iat": now_s + 15}, {"exp": None}):
        with pytest.raises(Unauthenticated):
            await world.principal(sign(KEY, "ES256", claims(**changed)))
    soon = sign(KEY, "ES256", claims(exp=now_s - 8, nbf=now_s + 5, iat=now_s + 5))
    found = await world.principal(soon)
    assert found.expires_at_ms == (now_s + 2) * 1000
    await asyncio.sleep(max(0.0, now_s + 2.1 - time.time()))
    with pytest.raises(Unauthenticated, match="expired"):  # its signature is cached, its expiry is not
        await world.principal(soon)


async def test_claims_name_the_user_the_tags_and_the_scopes(world: World) -> None:
    await world.register(
        await world.tenant(),
        user_claim="https://acme.example/user.id",
        tag_claims={"metadata.team": "team", "plan": "plan", "missing.part": "x", "beta": "beta"},
        scopes_claim="scp",
    )
    said = {"metadata": {"team": " search "}, "plan": 7, "beta": True, "scp": "openid chat tenant:admin"}
    found = await world.principal(sign(KEY, "ES256", claims(**{"https://acme.example/user.id": 4711, **said})))
    assert await world.name(found.user_id) == "4711"
    assert found.tags == (("beta", "true"), ("plan", "7"), ("team", "search"))
    assert found.scopes == {Scope.CHAT}
    for scp in (None, [], "openid", ["tenant:admin", 7], {"chat": True}):
        none = claims(**{"https://acme.example/user.id": "ada", "scp": scp})
        assert (await world.principal(sign(KEY, "ES256", none))).scopes == frozenset()


@pytest.mark.parametrize(
    "changed",
    [
        {"sub": None},
        {"sub": ""},
        {"sub": " "},
        {"sub": "x" * 201},
        {"sub": "a\x00b"},
        {"sub": ["ada"]},
        {"sub": True},
        {"team": "x" * 201},
        {"team": ["search"]},
        {"team": {"name": "search"}},
        {"team": "a\nb"},
        {"team": "R\u00a0D"},
        {"team": "R\u200dD"},
        {"team": 1.5},
    ],
)
async def test_a_claim_that_is_no_name_or_no_tag_is_refused(world: World, changed: dict[str, Any]) -> None:
    await world.register(await world.tenant(), tag_claims={"team": "team"})
    with pytest.raises(Unauthenticated, match=r"claim (sub|team)"):
        await world.principal(sign(KEY, "ES256", claims(**changed)))


@pytest.mark.parametrize(
    "changed",
    [
        {"scopes": [Scope.TENANT_ADMIN]},
        {"scopes": [Scope.CHAT_AS_USER]},
        {"scopes": []},
        {"tag_claims": {"a": "nk:token"}},
        {"tag_claims": {"a": "Team"}},
        {"tag_claims": {"a": "team", "b": "team"}},
        {"tag_claims": {str(number): f"t{number}" for number in range(9)}},
        {"verification_keys": "ftp://login.acme.example/jwks"},
        {"verification_keys": "-----BEGIN PUBLIC KEY-----"},
        {"verification_keys": KEY.as_pem(private=True).decode()},  # type: ignore[union-attr]
    ],
)
async def test_what_is_not_registered(world: World, changed: dict[str, Any]) -> None:
    tenant_id = await world.tenant()
    with pytest.raises(Invalid):
        await world.register(tenant_id, **changed)
    async with world.database.session() as session:
        assert (await session.scalars(select(ApiKey))).all() == []


async def test_in_production_a_jwks_is_public_https(world: World) -> None:
    tenant_id = await world.tenant()
    for url in ("http://login.acme.example/jwks", "https://127.0.0.1/jwks", "https://localhost/jwks", "https://10.1/"):
        terms = IssuerTerms(ISSUER, AUDIENCE, url, "sub", {}, [Scope.CHAT], None, 30)
        with pytest.raises(Invalid, match="JWKS"):
            async with world.database.session() as session:
                await register_issuer(session, ACTOR, tenant_id, terms, production=True)


async def test_a_tenant_has_a_bounded_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuers_module, "MAX_ISSUERS", 3)
    tenant_id = await world.tenant()
    made = await asyncio.gather(
        *(world.register(tenant_id, audience=f"a{number}") for number in range(8)), return_exceptions=True
    )
    assert sum(isinstance(each, Issuer) for each in made) == 3
    assert sum(isinstance(each, Invalid) for each in made) == 5
    async with world.database.session() as session:
        assert len(await list_issuers(session, tenant_id)) == 3


async def test_keys_rotate_under_load_and_nobody_is_refused(world: World, server: JwksServer) -> None:
    await world.register(await world.tenant(), verification_keys=server.url)
    keys, rotated, served = [KEY], asyncio.Event(), 0

    async def caller(number: int) -> None:
        nonlocal served
        while not rotated.is_set():
            token = sign(keys[-1], "ES256", claims(sub=f"user-{number}"))
            assert (await world.principal(token)).scopes
            served += 1
            await asyncio.sleep(0.01)

    callers = [asyncio.create_task(caller(number)) for number in range(20)]
    for number in range(3):
        new = new_key("ES256", f"new-{number}")
        server.body = jwks(*keys[-1:], new)  # published, then used
        keys.append(new)
        async with asyncio.timeout(60):
            while server.count < number + 1 or served < 50 * (number + 1):  # noqa: ASYNC110 - a server in a thread
                await asyncio.sleep(0.01)
    rotated.set()
    await asyncio.gather(*callers)
    assert 3 <= server.count <= 4, "one fetch for all who wait, at the start and for each new key"
    server.body = jwks(keys[-1])
    with pytest.raises(Unauthenticated):
        await world.principal(sign(new_key("ES256", "invented"), "ES256"))
    with pytest.raises(Unauthenticated):  # no longer among the keys, although its signature was cached
        await world.principal(sign(keys[-2], "ES256", claims(sub="user-1")))


async def test_unsigned_tokens_fill_no_cache(world: World) -> None:
    await world.register(await world.tenant())
    stranger = new_key("ES256")
    for number in range(20):
        with pytest.raises(Unauthenticated):
            await world.principal(sign(stranger, "ES256", claims(aud=[AUDIENCE, f"other-{number}"])))
    assert world.tokens._issuers._entries == {}
    assert world.tokens._verified._entries == {}
    await world.principal(sign(KEY, "ES256", claims(junk="x" * 4000)))
    (said,) = [each for _, each in world.tokens._verified._entries.values()]
    assert "x" * 100 not in repr(said), "a token costs no more memory than what is needed of it"


async def test_an_issuer_that_is_away_is_no_wrong_token(world: World, server: JwksServer) -> None:
    tenant_id = await world.tenant()
    server.status = 500
    await world.register(tenant_id, verification_keys=server.url)
    with pytest.raises(KeysUnavailable):
        await world.principal(sign(KEY, "ES256"))
