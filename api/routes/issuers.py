"""Routes of the issuers of JWTs that a tenant trusts for its own users, under `/v1/admin`."""

from api.auth.access import TenantContext
from api.routes.parameters import IssuerId, TenantId
from api.routes.route import admin_router
from api.schemas.accounts.issuers import IssuerItem, NewIssuer
from api.services.accounts import issuers

router = admin_router()


@router.post("/tenants/{tenant_id}/issuers", status_code=201)
async def new_issuer(tenant_id: TenantId, body: NewIssuer, context: TenantContext) -> IssuerItem:
    """Accept the JWTs of an issuer for a tenant's users. An issuer with an audience belongs to one tenant."""
    return await issuers.register_issuer(context, tenant_id, body)


@router.get("/tenants/{tenant_id}/issuers")
async def issuers_of_tenant(tenant_id: TenantId, context: TenantContext) -> list[IssuerItem]:
    """The issuers of a tenant, oldest first; at most 20."""
    return await issuers.list_issuers(context, tenant_id)


@router.delete("/issuers/{issuer_id}", status_code=204)
async def end_issuer(issuer_id: IssuerId, context: TenantContext) -> None:
    """Remove an issuer: its tokens start no request from now on. Idempotent."""
    await issuers.remove_issuer(context, issuer_id)
