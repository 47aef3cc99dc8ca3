"""FastAPI dependencies that authenticate a caller and require a scope.

Unmetered routes read the key from Postgres on each request, so a revocation takes effect at once.
"""

from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from api.auth.credentials import PRINCIPAL, credential_of
from api.auth.identities import named_user
from api.http.problems import REQUEST_ID
from api.runtime import Runtime
from api.services.context import ServiceContext
from core.tenancy.audit import Actor
from core.tenancy.principal import Principal, Scope

_bearer = HTTPBearer(auto_error=False, description="An API key, or a short-lived token")


def runtime_of(request: Request) -> Runtime:
    """Returns the runtime of this process."""
    return cast("Runtime", request.app.state.runtime)


RuntimeDep = Annotated[Runtime, Depends(runtime_of)]


async def caller_of(request: Request, runtime: Runtime, scope: Scope | None) -> Principal:
    """Returns the principal of the request's key or session, which has `scope`; None admits any valid key.

    Raises Unauthenticated, Forbidden, ForeignOrigin, RateLimited, Unavailable.
    """
    runtime.rate.spend(credential_of(request.scope))  # before the look-up, so that a refusal costs no connection
    principal = await runtime.identities.principal_of(request.scope, fresh=True)
    if scope is not None:
        principal.require(scope)
    return principal


def context_of(request: Request, runtime: Runtime, principal: Principal) -> ServiceContext:
    """Returns the context of a service call by this caller."""
    return ServiceContext(
        settings=runtime.settings,
        database=runtime.database,
        changes=runtime.changes,
        actor=Actor(f"key:{principal.key_id}", principal.key_id, request.scope.get(REQUEST_ID)),
        principal=principal,
        billing_context=runtime.billing,
    )


def principal_of(request: Request) -> Principal:
    """Returns the principal of a request that was authenticated."""
    return cast("Principal", request.scope[PRINCIPAL])


class Access:
    """Requires `scope`. Raises as `caller_of`."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(
        self, request: Request, runtime: RuntimeDep, _: Annotated[object, Security(_bearer)]
    ) -> ServiceContext:
        """Returns the context of the request's caller."""
        return context_of(request, runtime, await caller_of(request, runtime, self.scope))


class OwnAccess(Access):
    """Requires `scope`, as `Access`; a key that acts for users sees what the user has that the header names.

    Raises UserUnknown, UserDisabled, and as `caller_of`.
    """

    async def __call__(
        self, request: Request, runtime: RuntimeDep, _: Annotated[object, Security(_bearer)]
    ) -> ServiceContext:
        """Returns the context of the request's caller, or of the user that it names."""
        return context_of(request, runtime, await acting_caller_of(request, runtime, self.scope))


async def acting_caller_of(request: Request, runtime: Runtime, scope: Scope | None) -> Principal:
    """Returns the request's caller, which has `scope`, or the user that it names in the header. Creates no user.

    Raises UserUnknown, UserDisabled, and as `caller_of`.
    """
    principal = await caller_of(request, runtime, scope)
    if named_user(request.scope) is None:
        return principal
    return await runtime.identities.acting_for(request.scope, principal, creates=False, fresh=True)


ReaderContext = Annotated[ServiceContext, Depends(OwnAccess(Scope.USAGE_READ))]
UsageContext = Annotated[ServiceContext, Depends(Access(Scope.TENANT_READ))]
TenantContext = Annotated[ServiceContext, Depends(Access(Scope.TENANT_ADMIN))]
PlatformContext = Annotated[ServiceContext, Depends(Access(Scope.PLATFORM_ADMIN))]
