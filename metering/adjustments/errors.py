"""Errors about requests that are corrected or looked up."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import now_ms, to_datetime
from core.errors import NotFound
from core.ids import uuid7_ms
from metering.models import UsageCheckpoint


async def no_request(session: AsyncSession, request_id: UUID, tenant_id: UUID | None) -> NotFound:
    """The error for an unknown request; it says so if the requests of its month were archived."""
    minted_ms = min(uuid7_ms(request_id), now_ms())  # the id is a caller's: its time may lie in the future
    month = to_datetime(minted_ms).date().replace(day=1)
    archived = select(UsageCheckpoint.month).where(UsageCheckpoint.month == month).limit(1)
    if tenant_id is not None:
        archived = archived.where(UsageCheckpoint.tenant_id == tenant_id)
    if await session.scalar(archived) is None:
        return NotFound("no such request")
    return NotFound(f"requests of {month:%B %Y} were archived: only their sums are kept")
