"""The signed-in visitor of a page: its principal, the names that people know it by, and its account's status."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.auth.access import RuntimeDep, caller_of, context_of, runtime_of
from api.auth.credentials import PRINCIPAL
from api.pages.banner import Banner, banner_of
from api.schemas.accounts.sessions import Caller
from api.services.accounts.sessions import describe_caller
from api.services.billing.standing import standing_of
from api.services.context import ServiceContext
from billing.standing.status import MoneyStatus
from core.errors import NakaError
from core.tenancy.principal import Forbidden, Principal, Scope


@dataclass(frozen=True, slots=True)
class Visitor:
    """A signed-in person. `money` None: an error page, which reads as little as it can, or a POST, which redirects."""

    principal: Principal
    tenant: str
    user: str
    key_prefix: str
    context: ServiceContext
    money: MoneyStatus | None = None

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

    @property
    def banner(self) -> Banner | None:
        """The line at the top of every page of an account that has something overdue."""
        return None if self.money is None else banner_of(self.money, self.context.zone, is_admin=self.is_admin)


def places_of(principal: Principal) -> list[tuple[str, str]]:
    """Pages that a key may open: (path, label)."""
    found = [("/", "Chat")] if Scope.CHAT in principal.scopes else []
    if _is_admin(principal):
        found.append(("/account", "Account"))
    if principal.may(Scope.TENANT_READ):
        found.append(("/reports", "Reports"))
    if Scope.PLATFORM_ADMIN in principal.scopes:
        found.append(("/operator", "Operator"))
    return found


def home_of(principal: Principal) -> str:
    """The page that a key is for: the chat, else the operator's, else the account."""
    places = [path for path, _ in places_of(principal)]
    if Scope.CHAT in principal.scopes or not places:
        return "/"
    return "/operator" if "/operator" in places else places[0]


def _is_admin(principal: Principal) -> bool:
    return bool({Scope.TENANT_ADMIN, Scope.PLATFORM_ADMIN} & principal.scopes)


class PageAccess:
    """Admits visitors whose key has `scope`; None admits any valid key. Raises as `caller_of`.

    Pages show and change what belongs to the key, so they refuse tokens and JWTs of users that a key acts for.
    """

    def __init__(self, scope: Scope | None) -> None:
        self._scope = scope

    async def __call__(self, request: Request, runtime: RuntimeDep) -> Visitor:
        """The visitor of this request."""
        principal = await caller_of(request, runtime, self._scope)
        if principal.is_delegated:
            raise Forbidden("Pages need a session or an API key. A token is for requests of its user only.")
        names = await describe_caller(runtime.database, principal)
        context = context_of(request, runtime, principal)
        money = await standing_of(context, principal.tenant_id) if request.method == "GET" else None
        return Visitor(principal, names.tenant, names.user, names.key_prefix, context, money)


async def visitor_or_none(request: Request, *, is_away: bool = False) -> Visitor | None:
    """The visitor of an error page, which has to be shown whatever fails: None without a valid session or own key.

    `is_away`: Postgres does not answer, so nobody is looked up, and no names are shown.
    """
    runtime, principal = runtime_of(request), request.scope.get(PRINCIPAL)
    names = Caller(tenant="", user="", key_prefix="")
    try:
        if principal is None and not is_away:
            principal = await runtime.identities.principal_of(request.scope)
        if principal is not None and not is_away:
            names = await describe_caller(runtime.database, principal)
    except NakaError:
        return None
    if principal is None or principal.is_delegated:
        return None
    return Visitor(principal, names.tenant, names.user, names.key_prefix, context_of(request, runtime, principal))


Anybody = Annotated[Visitor, Depends(PageAccess(None))]
UsageReader = Annotated[Visitor, Depends(PageAccess(Scope.TENANT_READ))]
AccountAdmin = Annotated[Visitor, Depends(PageAccess(Scope.TENANT_ADMIN))]
Operator = Annotated[Visitor, Depends(PageAccess(Scope.PLATFORM_ADMIN))]
