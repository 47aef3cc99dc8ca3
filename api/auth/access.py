"""Who may call a route: dependencies that turn the key (or session) into a principal with the scope that it needs.

These routes are not metered and not hot, so the key is looked up in Postgres each time: a revocation counts at once.
"""

from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from api.auth.credentials import authenticate, credential_of
from api.http.problems import REQUEST_ID
from api.runtime import Runtime
from api.services.context import ServiceContext
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


def context_of(request: Request, runtime: Runtime, principal: Principal) -> ServiceContext:
    """The context of a service call for this caller."""
    return ServiceContext(
        settings=runtime.settings,
        database=runtime.database,
        changes=runtime.changes,
        actor=actor_of(request, principal),
        principal=principal,
        billing_context=runtime.billing,
    )


def reader_context(request: Request, runtime: RuntimeDep, principal: Reader) -> ServiceContext:
    """A caller with usage:read."""
    return context_of(request, runtime, principal)


def tenant_context(request: Request, runtime: RuntimeDep, principal: TenantAdmin) -> ServiceContext:
    """A caller with tenant:admin."""
    return context_of(request, runtime, principal)


def platform_context(request: Request, runtime: RuntimeDep, principal: PlatformAdmin) -> ServiceContext:
    """A caller with platform:admin."""
    return context_of(request, runtime, principal)


ReaderContext = Annotated[ServiceContext, Depends(reader_context)]
TenantContext = Annotated[ServiceContext, Depends(tenant_context)]
PlatformContext = Annotated[ServiceContext, Depends(platform_context)]


def actor_of(request: Request, principal: Principal) -> Actor:
    """Who the audit log names for a change made over HTTP."""
    return Actor(f"key:{principal.key_id}", principal.key_id, request.scope.get(REQUEST_ID))


def tenant_filter(principal: Principal) -> UUID | None:
    """The tenant that an admin is confined to; None for a platform admin."""
    return None if principal.is_platform_admin else principal.tenant_id
