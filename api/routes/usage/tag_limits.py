"""Routes of the limits of tags, under `/v1/admin`."""

from typing import Annotated

from fastapi import Query

from api.auth.access import TenantContext
from api.routes.parameters import PageSize, TagCursor, TenantId
from api.routes.route import admin_router
from api.schemas.accounts.tag_limits import NewTagLimits, TagKey, TagLimitItem, TagValue
from api.schemas.pages import DEFAULT_SIZE, Page
from api.services.accounts import tag_limits

router = admin_router("/tenants/{tenant_id}/tag-limits")

Key = Annotated[TagKey, Query(description="The key of the tag", examples=["feature"])]
Value = Annotated[TagValue, Query(description="Its value", examples=["search"])]
KeyWanted = Annotated[TagKey | None, Query(alias="key", description="Only of this key", examples=["feature"])]


@router.get("")
async def limits_of_tags(
    tenant_id: TenantId,
    context: TenantContext,
    key: KeyWanted = None,
    cursor: TagCursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[TagLimitItem]:
    """The tags of a tenant that have limits, and what is used of them, by key and value."""
    return await tag_limits.list_tag_limits(context, tenant_id, key=key, after=cursor, size=size)


@router.put("")
async def set_limits_of_tag(tenant_id: TenantId, body: NewTagLimits, context: TenantContext) -> TagLimitItem:
    """Replace the limits of a tag: they bind all requests of the tenant with it, on top of other limits."""
    return await tag_limits.set_tag_limits(context, tenant_id, body)


@router.delete("", status_code=204)
async def remove_limits_of_tag(tenant_id: TenantId, key: Key, value: Value, context: TenantContext) -> None:
    """Remove the limits of a tag."""
    await tag_limits.remove_tag_limits(context, tenant_id, key=key, value=value)
