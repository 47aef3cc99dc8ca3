"""The audit log: who changed what, when, from what to what."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel

from api.auth.access import RuntimeDep, TenantAdmin, tenant_filter
from api.routes.admin.scope import confine
from api.routes.parameters import Cursor, PageSize, TenantWanted
from api.schemas.pages import DEFAULT_SIZE, Page, page_of
from core.tenancy.audit import PLATFORM
from core.tenancy.lists import list_audit

router = APIRouter()


class AuditItem(BaseModel):
    """One change. `tenant_id` is null for what concerns no single tenant: a price, a plan."""

    id: UUID
    tenant_id: UUID | None
    at: datetime
    actor: str
    actor_key_id: UUID | None
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None

    @classmethod
    def of(cls, entry: Any) -> Self:
        """As it is answered."""
        shown = cls.model_validate(entry, from_attributes=True)
        return shown.model_copy(update={"tenant_id": None}) if entry.tenant_id == PLATFORM else shown


@router.get("/audit")
async def audit_log(
    principal: TenantAdmin,
    runtime: RuntimeDep,
    tenant_id: TenantWanted = None,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[AuditItem]:
    """Changes, newest first."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        wanted = await confine(session, principal, tenant_id)
        found = await list_audit(session, tenant_id=wanted, before=cursor, limit=size)
    return page_of(found, AuditItem.of)
