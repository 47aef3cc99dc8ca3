"""Who looks at a page: the session's principal, and the names that a person knows it by."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import select

from api.credentials import authenticate, credential_of
from api.routes.access import RuntimeDep
from core.tenancy.models import ApiKey, Tenant, User
from core.tenancy.principal import Principal, Scope


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who is signed in."""

    principal: Principal
    tenant: str
    user: str
    key_prefix: str

    @property
    def places(self) -> list[tuple[str, str]]:
        """Where this key may go: (path, label)."""
        allowed = self.principal.scopes
        found = [("/", "Chat")] if Scope.CHAT in allowed else []
        if self.is_admin:
            found += [("/account", "Account"), ("/reports", "Reports")]
        if Scope.PLATFORM_ADMIN in allowed:
            found.append(("/operator", "Operator"))
        return found

    @property
    def is_admin(self) -> bool:
        """Whether the account and its reports are this visitor's business."""
        return bool({Scope.TENANT_ADMIN, Scope.PLATFORM_ADMIN} & self.principal.scopes)


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
        return Visitor(principal, tenant, user, prefix)


Anybody = Annotated[Visitor, Depends(PageAccess(None))]
AccountAdmin = Annotated[Visitor, Depends(PageAccess(Scope.TENANT_ADMIN))]
Operator = Annotated[Visitor, Depends(PageAccess(Scope.PLATFORM_ADMIN))]
