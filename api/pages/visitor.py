"""Who looks at a page: the session's principal, and the names that a person knows it by."""

from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import select

from api.auth.access import RuntimeDep, context_of
from api.auth.credentials import authenticate, credential_of
from api.services.context import ServiceContext
from core.tenancy.models import ApiKey, Tenant, User
from core.tenancy.principal import Principal, Scope


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who is signed in."""

    principal: Principal
    tenant: str
    user: str
    key_prefix: str
    context: ServiceContext

    @property
    def places(self) -> list[tuple[str, str]]:
        """Pages this key may open: (path, label)."""
        return places_of(self.principal)

    @property
    def is_admin(self) -> bool:
        """Whether this visitor administers its account."""
        return _is_admin(self.principal)

    @property
    def account_context(self) -> ServiceContext:
        """The context without the operator's scope: on the account's pages an operator sees its own tenant only."""
        scopes = (self.principal.scopes | {Scope.TENANT_ADMIN}) - {Scope.PLATFORM_ADMIN}
        return replace(self.context, principal=replace(self.principal, scopes=scopes))


def places_of(principal: Principal) -> list[tuple[str, str]]:
    """Pages that a key may open: (path, label)."""
    found = [("/", "Chat")] if Scope.CHAT in principal.scopes else []
    if _is_admin(principal):
        found += [("/account", "Account"), ("/reports", "Reports")]
    if Scope.PLATFORM_ADMIN in principal.scopes:
        found.append(("/operator", "Operator"))
    return found


def _is_admin(principal: Principal) -> bool:
    return bool({Scope.TENANT_ADMIN, Scope.PLATFORM_ADMIN} & principal.scopes)


class PageAccess:
    """Lets a visitor in whose key has `scope`.

    Raises Unauthenticated, Forbidden, ForeignOrigin, RateLimited, Unavailable.
    """

    def __init__(self, scope: Scope | None) -> None:
        self._scope = scope

    async def __call__(self, request: Request, runtime: RuntimeDep) -> Visitor:
        """The visitor of this request. Any good key will do where no scope is asked for."""
        runtime.rate.spend(credential_of(request.scope))  # before the look-up: a refusal costs no connection
        principal = await authenticate(runtime.directory, request.scope, fresh=True)
        if self._scope is not None:
            principal.require(self._scope)
        names = (
            select(Tenant.name, User.external_id, ApiKey.prefix)
            .join(User, (User.tenant_id == Tenant.id) & (User.id == principal.user_id))
            .join(ApiKey, (ApiKey.tenant_id == Tenant.id) & (ApiKey.id == principal.key_id))
            .where(Tenant.id == principal.tenant_id)
        )
        async with runtime.database.session(tenant_id=principal.tenant_id) as session:
            tenant, user, prefix = (await session.execute(names)).one()
        return Visitor(principal, tenant, user, prefix, context_of(request, runtime, principal))


Anybody = Annotated[Visitor, Depends(PageAccess(None))]
AccountAdmin = Annotated[Visitor, Depends(PageAccess(Scope.TENANT_ADMIN))]
Operator = Annotated[Visitor, Depends(PageAccess(Scope.PLATFORM_ADMIN))]
