"""Browser sessions: sign-in, sign-out, and the names of the caller.

Sign-in and sign-out run without row-level security, because the session they end may be another tenant's.
"""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.accounts.sessions import Caller, Origin
from core.postgres.database import Database
from core.redis.changes import Changes
from core.tenancy.audit import Actor, record
from core.tenancy.models import ApiKey, Tenant, User
from core.tenancy.principal import Principal
from core.tenancy.sessions import begin_session, count_sessions, end_session, end_sessions, hash_token


async def describe_caller(database: Database, principal: Principal) -> Caller:
    """The names of the caller's tenant, user and key."""
    names = (
        select(Tenant.name, User.external_id, ApiKey.prefix)
        .join(User, (User.tenant_id == Tenant.id) & (User.id == principal.user_id))
        .join(ApiKey, (ApiKey.tenant_id == Tenant.id) & (ApiKey.id == principal.key_id))
        .where(Tenant.id == principal.tenant_id)
    )
    async with database.session(tenant_id=principal.tenant_id) as session:
        tenant, user, prefix = (await session.execute(names)).one()
    return Caller(tenant=tenant, user=user, key_prefix=prefix)


async def sign_in(
    database: Database, principal: Principal, origin: Origin, *, ttl_s: int, previous: bytes | None
) -> str:
    """Begins a session and returns its token. `previous`: the hash of the session to end in its place."""
    async with database.session() as session:
        if previous is not None:
            await end_session(session, previous)
        token = await begin_session(session, principal, ttl_s=ttl_s)
        _record(session, origin, "session.begin", principal.tenant_id, principal.key_id)
    return token


async def sign_out(database: Database, changes: Changes, origin: Origin, token: str) -> UUID | None:
    """Ends a session on every process; its tenant, or None when it had ended before."""
    async with database.session() as session:
        ended = await end_session(session, hash_token(token))
        if ended is None:
            return None
        _record(session, origin, "session.end", *ended)
    await changes.publish(ended[0])
    return ended[0]


async def sign_out_everywhere(database: Database, changes: Changes, origin: Origin, principal: Principal) -> int:
    """Ends every session of the caller's key, on every process; returns how many."""
    async with database.session() as session:
        ended = await end_sessions(session, principal.tenant_id, principal.key_id)
        _record(session, origin, "session.end_all", principal.tenant_id, principal.key_id)
    await changes.publish(principal.tenant_id)
    return ended


async def running_sessions(database: Database, principal: Principal) -> int:
    """The number of the sessions of the caller's key."""
    async with database.session(tenant_id=principal.tenant_id) as session:
        return await count_sessions(session, principal.tenant_id, principal.key_id)


def _record(session: AsyncSession, origin: Origin, action: str, tenant_id: UUID, key_id: UUID) -> None:
    actor, after = Actor(f"key:{key_id}", key_id, origin.request_id), {"address": origin.address}
    record(session, actor, action, tenant_id=tenant_id, target=f"key:{key_id}", after=after)
