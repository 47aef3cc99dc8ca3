"""Booking a movement. The caller's transaction, under the tenant's lock, makes the movement itself."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from billing.models.ledger import LedgerEntry
from billing.models.states import LedgerEntryKind
from core.ids import uuid7


@dataclass(frozen=True, slots=True)
class Movement:
    """A movement of money or debt. `reference` names it once per tenant, so that booking it again changes nothing."""

    kind: LedgerEntryKind
    reference: str
    at_ms: int
    bill_id: UUID | None = None
    payment_id: str | None = None
    refund_id: UUID | None = None
    detail: dict[str, Any] = field(default_factory=dict)


async def book(session: AsyncSession, tenant_id: UUID, movement: Movement, **paise: int) -> None:
    """Writes one entry. `paise`: by account (`ACCOUNTS`), debits positive; they add up to zero, or Postgres refuses."""
    if not any(paise.values()):
        return
    values = {name: getattr(movement, name) for name in Movement.__dataclass_fields__}
    statement = insert(LedgerEntry).values(tenant_id=tenant_id, id=uuid7(movement.at_ms), **values, **paise)
    await session.execute(statement.on_conflict_do_nothing())
