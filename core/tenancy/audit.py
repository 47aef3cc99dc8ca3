"""The audit log. An admin change and its entry are committed in one transaction.

Sign-ins, sign-outs and reads of payers' data are recorded too; failures are summed by `core.tenancy.activity_log`.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from core.ids import uuid7
from core.tenancy.models import AuditEntry

PLATFORM = UUID(int=0)
"""The `tenant_id` of entries about no single tenant: a price, a plan."""


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of a change: `name` is `key:<id>` or `cli:<user of the machine>`."""

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
    """Adds an entry to the session's transaction. `before` and `after` are JSON without secrets."""
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
    """Adds a read of payers' data (name, address, tax number); none without actor, for a change logged itself."""
    if actor is not None:
        record(session, actor, "payer.read", tenant_id=tenant_id, target=target, after={"what": what})
