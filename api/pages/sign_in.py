"""Signing in: a key for a session; and out again.

The key comes in the body of a form that only our own page can send, is looked at once, and goes nowhere else. A wrong
one is answered alike whatever is wrong with it, and slows the next attempt of its address down.
"""

from typing import Annotated
from uuid import UUID

from fastapi import Form, Query, Request
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.access import RuntimeDep
from api.auth.credentials import drop_session, is_secure, read_key, require_own_origin, session_of, set_session
from api.auth.sign_in_throttle import TooManyAttempts
from api.http.client_address import client_address, network_of
from api.http.problems import REQUEST_ID
from api.pages.route import page_router
from api.pages.site import render, see_other
from api.pages.visitor import places_of
from core.resilience.shares import OWNER
from core.tenancy.audit import Actor, record
from core.tenancy.keys import visible_prefix
from core.tenancy.principal import Principal, Scope, Unauthenticated
from core.tenancy.sessions import begin_session, end_session

SIGN_IN_MAX_BYTES = 16 * 1024
"""The form needs no key, so its body is small."""

router = page_router()
_KEY_MAX = 200
_NEXT_MAX = 2000

Next = Annotated[str, Query(max_length=_NEXT_MAX)]


@router.get("/sign-in")
async def sign_in_page(request: Request, next: Next = "") -> Response:  # noqa: A002 - its name in the URL
    """Asks for a key."""
    return render(request, "sign_in.html", next=_local(next), error="")


@router.post("/sign-in")
async def sign_in(
    request: Request,
    runtime: RuntimeDep,
    key: Annotated[str, Form(max_length=_KEY_MAX)] = "",
    next: Annotated[str, Form(max_length=_NEXT_MAX)] = "",  # noqa: A002 - its name in the form
) -> Response:
    """Begins a session, and goes on to where the visitor wanted to."""
    require_own_origin(request.scope)
    address = client_address(request.scope)
    OWNER.set(network_of(address))  # wrong keys from one address take no connection from others
    try:
        await runtime.attempts.admit(address)
        principal = await runtime.directory.authenticate(read_key(key), fresh=True)
    except Unauthenticated:
        await runtime.attempts.wrong(address)
        runtime.directory.traces.failed(network_of(address), visible_prefix(key.strip()))
        words = "This key was not accepted. Check that you copied all of it, or ask for a new one."
        return render(request, "sign_in.html", status=401, next=_local(next), error=words)
    except TooManyAttempts as error:
        words = f"Too many wrong keys came from your address. Try again in {error.retry_after_s} seconds."
        page = render(request, "sign_in.html", status=429, next=_local(next), error=words)
        page.headers["retry-after"] = str(error.retry_after_s)
        return page
    OWNER.set(principal.tenant_id)
    ttl_s = runtime.settings.session_s
    async with runtime.database.session() as session:
        if (before := session_of(request.scope)) is not None:
            await end_session(session, before)  # who comes with another key leaves with the one before
        token = await begin_session(session, principal, ttl_s=ttl_s)
        _record(session, request, "session.begin", principal.tenant_id, principal.key_id)
    response = see_other(_local(next) or _home(principal))
    set_session(response, token, secure=is_secure(request.scope), ttl_s=ttl_s)
    return response


@router.post("/sign-out")
async def sign_out(request: Request, runtime: RuntimeDep) -> Response:
    """Ends the session here and on every process. Asked again, nothing more happens."""
    require_own_origin(request.scope)
    token = session_of(request.scope)
    if token is not None:
        async with runtime.database.session() as session:
            ended = await end_session(session, token)
            if ended is not None:
                _record(session, request, "session.end", *ended)
        if ended is not None:
            runtime.directory.forget(ended[0])
            await runtime.changes.publish(ended[0])
    response = see_other("/sign-in")
    drop_session(response)
    response.headers["clear-site-data"] = '"storage"'
    return response


def _record(session: AsyncSession, request: Request, action: str, tenant_id: UUID, key_id: UUID) -> None:
    """Who signs in or out, and from where."""
    actor = Actor(f"key:{key_id}", key_id, request.scope.get(REQUEST_ID))
    after = {"address": client_address(request.scope)}
    record(session, actor, action, tenant_id=tenant_id, target=f"key:{key_id}", after=after)


def _local(path: str) -> str:
    """The path, if it is one of ours; a name of a host, or what a browser would take for one, is not."""
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_ours and not path.startswith(("/sign-in", "/sign-out")) else ""


def _home(principal: Principal) -> str:
    places = places_of(principal)
    if Scope.CHAT in principal.scopes or not places:
        return "/"
    return places[0][0]
