"""Routes of tenants, users, keys, limits, personal data and the audit log, under `/v1/admin`.

Only the operator creates tenants. `docs/privacy.md` says what an erasure leaves.
"""

from typing import Annotated

from fastapi import Query, Response

from api.auth.access import PlatformContext, RuntimeDep, TenantContext
from api.routes.parameters import Cursor, KeyId, PageSize, TenantId, TenantWanted, UserId
from api.routes.route import admin_router
from api.routes.streamed import StreamedAnswer
from api.schemas.accounts.keys import KeyItem, KeyMade, NewKey, Rotation
from api.schemas.accounts.limits import Limits, LimitsSet
from api.schemas.accounts.privacy import AuditItem, Erasure, Exported
from api.schemas.accounts.tenants import NewTenant, NewUsers, PlanChoice, TenantItem
from api.schemas.accounts.users import NewUser, UserItem, UserState
from api.schemas.pages import DEFAULT_SIZE, Page
from api.services.accounts import audit, keys, limits, privacy, tenants, users

router = admin_router()


@router.post("/tenants", status_code=201)
async def new_tenant(body: NewTenant, context: PlatformContext) -> TenantItem:
    """Create a tenant."""
    return await tenants.create_tenant(context, body)


@router.get("/tenants")
async def all_tenants(context: TenantContext, cursor: Cursor = None, size: PageSize = DEFAULT_SIZE) -> Page[TenantItem]:
    """All tenants, oldest first; for a tenant's admin, its own."""
    return await tenants.list_tenants(context, after=cursor, size=size)


@router.get("/tenants/{tenant_id}")
async def one_tenant(tenant_id: TenantId, context: TenantContext) -> TenantItem:
    """A tenant."""
    return await tenants.find_tenant(context, tenant_id)


@router.put("/tenants/{tenant_id}/plan")
async def tenant_plan(tenant_id: TenantId, body: PlanChoice, context: PlatformContext) -> TenantItem:
    """Change the plan of a tenant, from now on."""
    return await tenants.change_plan(context, tenant_id, body)


@router.post("/tenants/{tenant_id}/users", status_code=201)
async def new_user(tenant_id: TenantId, body: NewUser, context: TenantContext) -> UserItem:
    """Create a user of a tenant."""
    return await users.create_user(context, tenant_id, body)


@router.get("/tenants/{tenant_id}/users")
async def users_of_tenant(
    tenant_id: TenantId, context: TenantContext, cursor: Cursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[UserItem]:
    """The users of a tenant, oldest first."""
    return await users.list_users(context, tenant_id, after=cursor, size=size)


@router.get("/users/{user_id}")
async def one_user(user_id: UserId, context: TenantContext) -> UserItem:
    """A user of a tenant."""
    return await users.find_user(context, user_id)


@router.put("/users/{user_id}/state")
async def user_state(user_id: UserId, body: UserState, context: TenantContext) -> UserItem:
    """Disable a user, whose requests are then refused at once, or enable it again. Idempotent."""
    return await users.set_disabled(context, user_id, disabled=body.disabled)


Descendants = Annotated[bool, Query(description="Also revoke every key derived from it")]


@router.post("/users/{user_id}/keys", status_code=201)
async def new_key(user_id: UserId, body: NewKey, context: TenantContext) -> KeyMade:
    """Create a key for a user. Only this answer contains the secret."""
    return await keys.create_key(context, user_id, body)


@router.get("/users/{user_id}/keys")
async def keys_of_user(
    user_id: UserId, context: TenantContext, cursor: Cursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[KeyItem]:
    """The keys of a user, oldest first, including ended ones."""
    return await keys.list_keys(context, user_id, after=cursor, size=size)


@router.delete("/keys/{key_id}", status_code=204)
async def end_key(key_id: KeyId, context: TenantContext, *, descendants: Descendants = False) -> None:
    """Revoke a key at once. Idempotent. Without `descendants`, keys derived from it stay valid."""
    await keys.revoke_key(context, key_id, descendants=descendants)


@router.post("/keys/{key_id}/rotate", status_code=201)
async def rotation(key_id: KeyId, body: Rotation, context: TenantContext) -> KeyMade:
    """Create a successor of a key, with the same rights; the old key ends after the overlap."""
    return await keys.rotate_key(context, key_id, body)


@router.get("/users/{user_id}/limits")
async def user_limits(user_id: UserId, context: TenantContext) -> LimitsSet:
    """The limits of a user."""
    return await limits.find_user_limits(context, user_id)


@router.put("/users/{user_id}/limits")
async def set_user_limits(user_id: UserId, body: Limits, context: TenantContext) -> LimitsSet:
    """Replace the limits of a user."""
    return await limits.set_user_limits(context, user_id, body)


@router.get("/tenants/{tenant_id}/limits")
async def tenant_limits(tenant_id: TenantId, context: TenantContext) -> LimitsSet:
    """The limits of a tenant as a whole."""
    return await limits.find_tenant_limits(context, tenant_id)


@router.get("/tenants/{tenant_id}/user-limits")
async def limits_of_all_users(tenant_id: TenantId, context: TenantContext) -> LimitsSet:
    """The limits of each user of a tenant that has no limits of its own."""
    return await limits.find_default_limits(context, tenant_id)


@router.put("/tenants/{tenant_id}/user-limits")
async def set_limits_of_all_users(tenant_id: TenantId, body: Limits, context: TenantContext) -> LimitsSet:
    """Replace the limits of each user of a tenant that has no limits of its own."""
    return await limits.set_default_limits(context, tenant_id, body)


@router.get("/tenants/{tenant_id}/new-users")
async def new_users(tenant_id: TenantId, context: TenantContext) -> NewUsers:
    """Whether requests that name an unknown user create it, and how many users a minute at most."""
    return await tenants.find_new_users(context, tenant_id)


@router.put("/tenants/{tenant_id}/new-users")
async def set_new_users(tenant_id: TenantId, body: NewUsers, context: TenantContext) -> NewUsers:
    """Set whether requests that name an unknown user create it, and how many users a minute at most."""
    return await tenants.set_new_users(context, tenant_id, body)


@router.put("/tenants/{tenant_id}/limits")
async def set_tenant_limits(tenant_id: TenantId, body: Limits, context: PlatformContext) -> LimitsSet:
    """Replace the limits of a tenant as a whole."""
    return await limits.set_tenant_limits(context, tenant_id, body)


@router.post("/users/{user_id}/erase")
async def erasure(user_id: UserId, context: TenantContext) -> Erasure:
    """Erase the person: keys end, names and addresses go, usage and bills stay. Irreversible."""
    return await privacy.erase_user(context, user_id)


@router.get(
    "/users/{user_id}/export",
    response_class=Response,
    responses={200: {"description": "Everything", "model": Exported}},
)
async def export(user_id: UserId, context: TenantContext, runtime: RuntimeDep) -> Response:
    """Everything known about a user, including its requests. Message texts are never stored."""
    return await StreamedAnswer.begin(
        privacy.export_user(context, user_id, database=runtime.reports),
        media_type="application/json",
        filename=f"user-{user_id}.json",
        write_timeout_s=runtime.settings.client_write_timeout_s,
    )


@router.get("/audit")
async def audit_log(
    context: TenantContext, tenant_id: TenantWanted = None, cursor: Cursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[AuditItem]:
    """Changes, newest first."""
    return await audit.list_audit(context, tenant_id=tenant_id, before=cursor, size=size)
