"""The audit log: who changed what, when, from what to what."""

from uuid import UUID

from api.schemas.accounts.privacy import AuditItem
from api.schemas.pages import Page, page_of
from api.services.accounts.lookups import confine
from api.services.context import ServiceContext
from core.tenancy import lists


async def list_audit(
    context: ServiceContext,
    *,
    tenant_id: UUID | None,
    before: UUID | None,
    size: int,
    action: str = "",
    actor: str = "",
) -> Page[AuditItem]:
    """Changes, newest first; `action` and `actor` are prefixes. Raises NotFound for the tenant."""
    async with context.transaction() as session:
        wanted = await confine(context, session, tenant_id)
        found = await lists.list_audit(session, tenant_id=wanted, before=before, limit=size, action=action, actor=actor)
    return page_of(found, AuditItem.of)
