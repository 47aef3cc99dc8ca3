"""Who may call a route: dependencies that turn the key (or session) into a principal with the scope that it needs.

These routes are not metered and not hot, so the key is looked up in Postgres each time: a revocation counts at once.
"""

from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from api.credentials import authenticate, credential_of
from api.problems import REQUEST_ID
from api.runtime import Runtime
from core.tenancy.audit import Actor
from core.tenancy.principal import Principal, Scope

_bearer = HTTPBearer(auto_error=False, description="An API key: `nk_live_...` or `nk_test_...`")


def runtime_of(request: Request) -> Runtime:
    """The parts of this process."""
    return cast("Runtime", request.app.state.runtime)


RuntimeDep = Annotated[Runtime, Depends(runtime_of)]


class Access:
    """Lets a key in that has `scope`. Raises Unauthenticated, Forbidden, RateLimited, Unavailable."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(
        self, request: Request, runtime: RuntimeDep, _: Annotated[object, Security(_bearer)]
    ) -> Principal:
        """The principal of the request's key, or of the session's."""
        runtime.rate.spend(credential_of(request.scope))  # before the look-up: a refusal costs no connection
        principal = await authenticate(runtime.directory, request.scope, fresh=True)
        principal.require(self.scope)
        return principal


Reader = Annotated[Principal, Depends(Access(Scope.USAGE_READ))]
TenantAdmin = Annotated[Principal, Depends(Access(Scope.TENANT_ADMIN))]
PlatformAdmin = Annotated[Principal, Depends(Access(Scope.PLATFORM_ADMIN))]


def actor_of(request: Request, principal: Principal) -> Actor:
    """Who the audit log names for a change made over HTTP."""
    return Actor(f"key:{principal.key_id}", principal.key_id, request.scope.get(REQUEST_ID))


def tenant_filter(principal: Principal) -> UUID | None:
    """The tenant that an admin is confined to; None for a platform admin."""
    return None if principal.is_platform_admin else principal.tenant_id
