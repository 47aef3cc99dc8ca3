"""Short-lived tokens for browsers, made by a product's backend."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from api.auth.access import Access, RuntimeDep, principal_of
from api.routes.answers import NO_TEXT, not_kept
from api.schemas.accounts.tokens import NewToken, TokenMade
from api.services.accounts import tokens
from api.services.context import ServiceContext
from core.tenancy.principal import Scope

router = APIRouter(prefix="/v1", tags=["tokens"], dependencies=[Depends(not_kept)], responses={400: NO_TEXT})
BackendContext = Annotated[ServiceContext, Depends(Access(Scope.CHAT_AS_USER))]


@router.post("/tokens", status_code=201)
async def new_token(body: NewToken, request: Request, context: BackendContext, runtime: RuntimeDep) -> TokenMade:
    """Make a short-lived token for a user, who is created on first sight. Needs a key with `chat:as-user`."""
    del context
    return await tokens.make_token(principal_of(request), body, end_users=runtime.end_users, tokens=runtime.tokens)
