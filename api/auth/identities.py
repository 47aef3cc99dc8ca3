"""Whose request it is: of an API key, a short-lived token, a product's JWT, or the session of a browser.

Every door asks here: the usage middleware, `Access`, body admission, token counts, pages. A key with the scope
`chat:as-user` then acts for the user that the request names. Postgres down: `Unavailable`.
"""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from starlette.datastructures import Headers
from starlette.types import Scope

from api.auth.credentials import (
    PRINCIPAL,
    SAFE_METHODS,
    UnreadableKey,
    as_typed,
    key_of,
    origin_of,
    require_own_origin,
    session_of,
)
from api.http.client_address import client_address, network_of
from core.errors import Invalid
from core.identity.delegation import act_for
from core.identity.end_users import EndUsers, UserRequired, normal_name
from core.resilience.deadline import within
from core.resilience.shares import OWNER
from core.tenancy.directory import Directory
from core.tenancy.keys import visible_prefix
from core.tenancy.principal import Principal, Unauthenticated
from core.tenancy.principal import Scope as KeyScope

USER_HEADER = "naka-user"


class BearerTokens(Protocol):
    """Credentials that are sent like a key, and are not one: short-lived tokens, JWTs of registered issuers."""

    def recognises(self, credential: str) -> bool:
        """Whether the credential has this form. Cheap, and says nothing about its validity."""

    async def principal_of(self, credential: str, *, origin: str | None, fresh: bool) -> Principal:
        """Returns the principal of the user that the credential is for.

        `origin`: of the page that sent it. Without `fresh` it may be cached. Raises Unauthenticated, UserDisabled,
        other Forbidden, TooManyNewUsers, Unavailable.
        """

    def forget(self, tenant_id: UUID | None) -> None:
        """Drops what is cached of a tenant, or of all."""


class Identities:
    """Finds principals. One per process."""

    def __init__(self, directory: Directory, end_users: EndUsers, bearers: Sequence[BearerTokens] = ()) -> None:
        self.directory = directory
        self._end_users = end_users
        self._bearers = bearers

    async def principal_of(self, scope: Scope, *, fresh: bool = False) -> Principal:
        """Returns the principal of a request and sets it on the scope; `fresh`: as Postgres has it now.

        Sets the owner of the task's pool places to the tenant. The look-ups have connections of their own. Raises
        Unauthenticated, Forbidden, ForeignOrigin, UserDisabled, Unavailable.
        """
        key = session = None
        try:
            key = key_of(scope)
            session = session_of(scope) if key is None else None
            if session is None:
                principal = await self._of_credential(scope, key, fresh=fresh)
            else:
                if scope["method"] not in SAFE_METHODS:
                    require_own_origin(scope)
                principal = await self.directory.authenticate_session(session, fresh=fresh)
        except Unauthenticated as error:
            if key is not None or session is not None or isinstance(error, UnreadableKey):
                address = network_of(client_address(scope))
                self.directory.activity_log.failed(address, visible_prefix(key or ""))
            raise
        return _accept(scope, principal)

    async def acting_for(
        self,
        scope: Scope,
        principal: Principal,
        name: str | None = None,
        *,
        creates: bool = True,
        fresh: bool = False,
        within_s: float | None = None,
    ) -> Principal:
        """Returns the principal that chats: the user that the header or `name`, of the body, names; else its own.

        A look-up waits at most `within_s`. A token or JWT is for one user, and its requests name none. Sets the
        principal on the scope. Raises Invalid for a name, UserRequired, UserUnknown, UserDisabled, Forbidden,
        TooManyNewUsers, Unavailable.
        """
        wanted = named_user(scope, name)
        if wanted is None:
            if KeyScope.CHAT not in principal.scopes and KeyScope.CHAT_AS_USER in principal.scopes:
                raise UserRequired
            return principal
        principal.require(KeyScope.CHAT_AS_USER)
        async with within(within_s):
            user = await self._end_users.named(
                principal.tenant_id, wanted, key_id=principal.key_id, creates=creates, fresh=fresh
            )
        return _accept(scope, act_for(principal, user.id))

    def forget(self, tenant_id: UUID | None) -> None:
        """Drops what is cached of a tenant, or of all."""
        self.directory.forget(tenant_id)
        self._end_users.forget(tenant_id)
        for bearer in self._bearers:
            bearer.forget(tenant_id)

    async def _of_credential(self, scope: Scope, key: str | None, *, fresh: bool) -> Principal:
        for bearer in self._bearers:
            if key is not None and bearer.recognises(key):
                principal = await bearer.principal_of(key, origin=origin_of(scope), fresh=fresh)
                self.directory.activity_log.used(principal)
                return principal
        return await self.directory.authenticate(key, fresh=fresh)


def named_user(scope: Scope, name: str | None = None) -> str | None:
    """Returns the user that the header, or `name`, names; None without one. Raises Invalid, also if they differ."""
    sent = [as_typed(value) for value in Headers(scope=scope).getlist(USER_HEADER)]
    names = {normal_name(one) for one in (sent if name is None else [*sent, name])}
    if len(names) > 1:
        raise Invalid("user: the request names two users")
    return names.pop() if names else None


def _accept(scope: Scope, principal: Principal) -> Principal:
    scope[PRINCIPAL] = principal
    OWNER.set(principal.tenant_id)
    return principal
