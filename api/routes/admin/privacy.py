"""A person's rights: an export of all that is known about a user, and erasure. `docs/privacy.md` says what stays."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import date, datetime
from uuid import UUID

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.access import RuntimeDep, TenantAdmin, actor_of, tenant_filter
from api.routes.admin.audit import AuditItem
from api.routes.admin.keys import KeyItem
from api.routes.admin.requests import RequestItem
from api.routes.admin.scope import reach_user, require_grantable
from api.routes.admin.streamed import BATCH_ROWS, StreamedAnswer
from api.routes.admin.users import UserItem
from api.routes.parameters import UserId
from api.routes.usage import DayUsage, counts
from core.postgres.database import Database
from core.tenancy.audit import Actor, record
from core.tenancy.erasure import erase_user, export_user
from core.tenancy.lists import list_keys
from core.tenancy.models import User
from metering.reports.requests import RequestFilter, own_usage, stream_requests

router = APIRouter()
_ALL_DAYS = (date.min, date.max)


class Erasure(BaseModel):
    """The user as it is now; `again`: it was erased before, and nothing changed."""

    external_id: str
    again: bool


class SessionItem(BaseModel):
    """A browser that signed in with one of the keys."""

    id: UUID
    key_id: UUID
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None


class Exported(BaseModel):
    """Everything that is known about a user."""

    user: UserItem
    keys: list[KeyItem]
    sessions: list[SessionItem]
    audit: list[AuditItem]
    usage: list[DayUsage]
    requests: list[RequestItem]


@router.post("/users/{user_id}/erase")
async def erasure(user_id: UserId, principal: TenantAdmin, runtime: RuntimeDep, request: Request) -> Erasure:
    """Erase the person: keys end, names and addresses go, usage and bills stay. It cannot be taken back."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        user = await reach_user(session, principal, user_id)
        for key in await list_keys(session, user):
            require_grantable(principal, key.scopes)
        erased = await erase_user(session, actor_of(request, principal), user)
    await runtime.changes.publish(user.tenant_id)
    return Erasure(external_id=user.external_id, again=not erased)


@router.get(
    "/users/{user_id}/export",
    response_class=Response,
    responses={200: {"description": "Everything", "model": Exported}},
)
async def export(user_id: UserId, principal: TenantAdmin, runtime: RuntimeDep, request: Request) -> Response:
    """Everything that is known about a user, its requests included. What it wrote was never stored."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        user = await reach_user(session, principal, user_id)
    chunks = exported(runtime.reports, user, actor_of(request, principal))
    return await StreamedAnswer.begin(
        chunks,
        media_type="application/json",
        filename=f"user-{user.id}.json",
        write_timeout_s=runtime.settings.client_write_timeout_s,
    )


async def exported(database: Database, user: User, actor: Actor) -> AsyncGenerator[str, None]:
    """The export as JSON, in pieces; that it was made is in the audit log."""
    async with database.session(tenant_id=user.tenant_id) as session:
        record(session, actor, "user.export", tenant_id=user.tenant_id, target=f"user:{user.id}")
    async with database.session(tenant_id=user.tenant_id, patient=True) as session:
        known = await export_user(session, user)
        days = await own_usage(session, user.tenant_id, user.id, first=_ALL_DAYS[0], last=_ALL_DAYS[1])
        known["usage"] = [{"day": row.day, "model": row.model, **counts(row)} for row in days]
        yield msgspec.json.encode(known).decode().removesuffix("}") + ',"requests":['
        async with aclosing(_requests(session, user)) as batches:
            async for batch in batches:
                yield batch
    yield "]}"


async def _requests(session: AsyncSession, user: User) -> AsyncGenerator[str, None]:
    before = ""
    wanted = RequestFilter(tenant_id=user.tenant_id, user_id=user.id)
    async with aclosing(stream_requests(session, wanted, batch_rows=BATCH_ROWS)) as batches:
        async for rows in batches:
            yield before + ",".join(RequestItem.of(row).model_dump_json() for row in rows)
            before = ","
