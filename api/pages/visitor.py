"""The signed-in visitor of a page: its principal, the names that people know it by, and its service context."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.auth.access import RuntimeDep, caller_of, context_of
from api.services.accounts.sessions import describe_caller
from api.services.context import ServiceContext
from core.tenancy.principal import Principal, Scope


@dataclass(frozen=True, slots=True)
class Visitor:
    """A signed-in person."""

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
        """The context on the account's pages, where an operator sees its own tenant only."""
        return self.context.own


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
    """Admits visitors whose key has `scope`; None admits any valid key. Raises as `caller_of`."""

    def __init__(self, scope: Scope | None) -> None:
        self._scope = scope

    async def __call__(self, request: Request, runtime: RuntimeDep) -> Visitor:
        """The visitor of this request."""
        principal = await caller_of(request, runtime, self._scope)
        names = await describe_caller(runtime.database, principal)
        return Visitor(principal, names.tenant, names.user, names.key_prefix, context_of(request, runtime, principal))


Anybody = Annotated[Visitor, Depends(PageAccess(None))]
AccountAdmin = Annotated[Visitor, Depends(PageAccess(Scope.TENANT_ADMIN))]
Operator = Annotated[Visitor, Depends(PageAccess(Scope.PLATFORM_ADMIN))]
