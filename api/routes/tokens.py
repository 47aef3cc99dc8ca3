"""Short-lived tokens for browsers, made by a product's backend."""

from typing import Annotated

from fastapi import Depends, Request

from api.auth.access import Access, RuntimeDep, principal_of
from api.routes.route import uncached_router
from api.schemas.accounts.tokens import NewToken, TokenMade
from api.services.accounts import tokens
from api.services.context import ServiceContext
from core.tenancy.principal import Scope

router = uncached_router("tokens", "/v1")
BackendContext = Annotated[ServiceContext, Depends(Access(Scope.CHAT_AS_USER))]


@router.post("/tokens", status_code=201)
async def new_token(body: NewToken, request: Request, context: BackendContext, runtime: RuntimeDep) -> TokenMade:
    """Make a short-lived token for a user, who is created on first sight. Needs a key with `chat:as-user`."""
    del context
    return await tokens.make_token(principal_of(request), body, end_users=runtime.end_users, tokens=runtime.tokens)
