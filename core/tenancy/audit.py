"""The audit log: every admin change is written in the transaction that makes it, or is not made.

Sign-ins, sign-outs and reads of payers' data are in it as well; failures are summed first (`core.tenancy.traces`).
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from core.ids import uuid7
from core.tenancy.models import AuditEntry

PLATFORM = UUID(int=0)
"""The `tenant_id` of an entry that concerns no single tenant: a price, a plan."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a change: `name` is `key:<prefix>` or `cli:<user of the machine>`."""

    name: str
    key_id: UUID | None = None
    request_id: str | None = None


def record(
    session: AsyncSession,
    actor: Actor,
    action: str,
    *,
    tenant_id: UUID,
    target: str,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    """Adds an entry to the session's transaction. `before` and `after` are JSON and hold no secret."""
    session.add(
        AuditEntry(
            tenant_id=tenant_id,
            id=uuid7(),
            actor=actor.name,
            actor_key_id=actor.key_id,
            action=action,
            target=target,
            before=before,
            after=after,
            request_id=actor.request_id,
        )
    )


def record_read(session: AsyncSession, actor: Actor | None, what: str, *, tenant_id: UUID, target: str) -> None:
    """Adds that payers' data (name, address, tax number) was read. Nothing for None: a change that is logged itself."""
    if actor is not None:
        record(session, actor, "payer.read", tenant_id=tenant_id, target=target, after={"what": what})
