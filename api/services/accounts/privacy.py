"""Export of everything known about a user, and erasure of the person. `docs/privacy.md` says what stays."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import date
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.accounts.privacy import Erasure
from api.schemas.usage.counts import COST, counts
from api.schemas.usage.requests import RequestItem
from api.services.accounts.lookups import reach_user, require_grantable
from api.services.context import ServiceContext, publish_after_commit
from core.postgres.database import Database
from core.tenancy import erasure
from core.tenancy.accounts import find_user
from core.tenancy.audit import record
from core.tenancy.lists import list_keys
from core.tenancy.models import User
from metering.reports.requests import RequestFilter, stream_requests
from metering.reports.usage_report import UsageReport

_BATCH_ROWS = 500


async def erase_user(context: ServiceContext, user_id: UUID) -> Erasure:
    """Erases the person: keys end, names and addresses go, usage and bills stay. Irreversible, and idempotent.

    Raises NotFound, and Forbidden for a user whose keys the caller may not revoke.
    """
    async with context.transaction() as session:
        user = await reach_user(context, session, user_id)
        for key in await list_keys(session, user):
            require_grantable(context, key.scopes)
        erased = await erasure.erase_user(session, context.actor, user)
        publish_after_commit(session, user.tenant_id)
        return Erasure(external_id=user.external_id, again=not erased)


async def export_user(
    context: ServiceContext, user_id: UUID, *, database: Database | None = None
) -> AsyncGenerator[str, None]:
    """Everything known about a user, as JSON in pieces. Writes an audit entry. Raises NotFound before the first piece.

    `database`: the pool that long answers use; the context's without it.
    """
    async with context.transaction(database=database) as session:
        user = await reach_user(context, session, user_id)
        record(session, context.actor, "user.export", tenant_id=user.tenant_id, target=f"user:{user.id}")
    async with (database or context.database).session(tenant_id=user.tenant_id, patient=True) as session:
        known = await erasure.export_user(session, await find_user(session, user.id, tenant_id=user.tenant_id))
        usage = UsageReport(date.min, date.max, ("day", "model"), tenant_id=user.tenant_id, user_id=user.id)
        days = await session.execute(usage.query())
        hidden = {} if context.sees_cost else {COST: None}
        known["usage"] = [{"day": row.day, "model": row.model, **counts(row), **hidden} for row in days]
        yield msgspec.json.encode(known).decode().removesuffix("}") + ',"requests":['
        async with aclosing(_requests(session, user, with_cost=context.sees_cost)) as batches:
            async for batch in batches:
                yield batch
    yield "]}"


async def _requests(session: AsyncSession, user: User, *, with_cost: bool) -> AsyncGenerator[str, None]:
    before = ""
    wanted = RequestFilter(tenant_id=user.tenant_id, user_id=user.id)
    async with aclosing(stream_requests(session, wanted, batch_rows=_BATCH_ROWS)) as batches:
        async for rows in batches:
            yield before + ",".join(RequestItem.of(row).shown(with_cost=with_cost).model_dump_json() for row in rows)
            before = ","
