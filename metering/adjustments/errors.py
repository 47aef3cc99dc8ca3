"""Errors about requests that are corrected or looked up."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import now_ms, to_datetime
from core.errors import NotFound
from core.ids import uuid7_ms
from metering.models import UsageCheckpoint


async def no_request(session: AsyncSession, request_id: UUID, tenant_id: UUID | None) -> NotFound:
    """What to raise for a request that is not there: of a month that was archived only sums are."""
    minted_ms = min(uuid7_ms(request_id), now_ms())  # anybody may ask for any id
    month = to_datetime(minted_ms).date().replace(day=1)
    archived = select(UsageCheckpoint.month).where(UsageCheckpoint.month == month).limit(1)
    if tenant_id is not None:
        archived = archived.where(UsageCheckpoint.tenant_id == tenant_id)
    if await session.scalar(archived) is None:
        return NotFound("no such request")
    return NotFound(f"requests of {month:%B %Y} were archived: their sums are kept, the single ones are not")
