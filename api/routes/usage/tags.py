"""Routes of the tag keys of a tenant."""

from typing import Annotated

from fastapi import Path

from api.auth.access import TenantContext
from api.routes.parameters import TenantId
from api.routes.route import admin_router
from api.schemas.usage.tags import TagKeyBody, TagKeyItem, TagKeysFound
from api.services.usage import tags
from metering.tags.tags import KEY_PATTERN

router = admin_router()
TagKey = Annotated[str, Path(pattern=KEY_PATTERN, examples=["feature"])]


@router.get("/tenants/{tenant_id}/tag-keys")
async def tag_keys(tenant_id: TenantId, context: TenantContext) -> TagKeysFound:
    """The tag keys whose usage is added up by value."""
    return TagKeysFound(items=await tags.list_tag_keys(context, tenant_id))


@router.put("/tenants/{tenant_id}/tag-keys/{key}")
async def set_tag_key(tenant_id: TenantId, key: TagKey, body: TagKeyBody, context: TenantContext) -> TagKeyItem:
    """Declare a tag key, or change its bound."""
    return await tags.declare_tag_key(context, tenant_id, key, body)


@router.delete("/tenants/{tenant_id}/tag-keys/{key}", status_code=204)
async def remove_tag_key(tenant_id: TenantId, key: TagKey, context: TenantContext) -> None:
    """Stop adding up the usage of a tag key. Its past usage stays in the reports."""
    await tags.remove_tag_key(context, tenant_id, key)
