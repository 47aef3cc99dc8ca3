"""Issuers of JWTs that a tenant trusts for its own users: registered, listed, removed."""

from uuid import UUID

from api.schemas.accounts.issuers import IssuerItem, NewIssuer
from api.services.accounts.lookups import reach_tenant
from api.services.context import ServiceContext, publish_after_commit
from core.identity import issuers
from core.identity.issuers import IssuerTerms
from core.tenancy.principal import Scope


async def register_issuer(context: ServiceContext, tenant: UUID | str, new: NewIssuer) -> IssuerItem:
    """Registers an issuer. Raises NotFound, Invalid, UnknownModel; Conflict when issuer and audience are taken.

    Only the operator registers an issuer that another tenant has or had.
    """
    from metering.pricing.price_list import require_priced  # noqa: PLC0415 - lists need no prices

    async with context.transaction(Scope.TENANT_ADMIN) as session:
        found = await reach_tenant(context, session, tenant)
        await require_priced(session, new.models or ())
        row = await issuers.register_issuer(
            session,
            context.actor,
            found.id,
            IssuerTerms(**{name: getattr(new, name) for name in NewIssuer.model_fields}),
            production=context.settings.is_production,
            shared=context.is_platform_admin,
        )
        publish_after_commit(session, found.id)
        return IssuerItem.of(row)


async def list_issuers(context: ServiceContext, tenant: UUID | str) -> list[IssuerItem]:
    """The issuers of a tenant, oldest first, at most 20. Raises NotFound."""
    async with context.transaction(Scope.TENANT_ADMIN) as session:
        found = await reach_tenant(context, session, tenant)
        return [IssuerItem.of(row) for row in await issuers.list_issuers(session, found.id)]


async def remove_issuer(context: ServiceContext, issuer_id: UUID) -> IssuerItem:
    """Removes an issuer: its tokens open no request from now on. Idempotent. Raises NotFound."""
    async with context.transaction(Scope.TENANT_ADMIN) as session:
        row = await issuers.remove_issuer(session, context.actor, issuer_id, tenant_id=context.tenant_id)
        publish_after_commit(session, row.tenant_id)
        return IssuerItem.of(row)
