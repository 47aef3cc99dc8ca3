"""Sign-in, which exchanges a key for a session, and sign-out.

The key is stored nowhere. Every wrong key gets the same answer, and delays the next attempt from its address.
"""

from typing import Annotated

from fastapi import Form, Query, Request
from fastapi.responses import Response

from api.auth.access import RuntimeDep
from api.auth.credentials import drop_session, is_secure, read_key, require_own_origin, session_of, set_session
from api.auth.sign_in_throttle import TooManyAttempts
from api.http.client_address import client_address, network_of
from api.http.problems import REQUEST_ID
from api.pages.route import page_router
from api.pages.site import render, see_other
from api.pages.visitor import places_of
from api.schemas.accounts.sessions import Origin
from api.services.accounts import sessions
from core.resilience.shares import OWNER
from core.tenancy.keys import visible_prefix
from core.tenancy.principal import Principal, Scope, Unauthenticated

SIGN_IN_MAX_BYTES = 16 * 1024
"""The form is open to everybody, so its body is small."""

router = page_router()
_KEY_MAX = 200
_NEXT_MAX = 2000

Next = Annotated[str, Query(max_length=_NEXT_MAX)]


@router.get("/sign-in")
async def sign_in_page(request: Request, next: Next = "") -> Response:  # noqa: A002 - its name in the URL
    """The form for a key."""
    return render(request, "sign_in.html", next=_local(next), error="")


@router.post("/sign-in")
async def sign_in(
    request: Request,
    runtime: RuntimeDep,
    key: Annotated[str, Form(max_length=_KEY_MAX)] = "",
    next: Annotated[str, Form(max_length=_NEXT_MAX)] = "",  # noqa: A002 - its name in the form
) -> Response:
    """Begins a session, and redirects to the page that was asked for."""
    require_own_origin(request.scope)
    address = client_address(request.scope)
    try:
        await runtime.sign_in_throttle.check(address)
        principal = await runtime.directory.authenticate(read_key(key), fresh=True)
    except Unauthenticated:
        await runtime.sign_in_throttle.note_failure(address)
        runtime.directory.activity_log.failed(network_of(address), visible_prefix(key.strip()))
        words = "This key was not accepted. Check that you copied all of it, or ask for a new one."
        return render(request, "sign_in.html", status=401, next=_local(next), error=words)
    except TooManyAttempts as error:
        words = f"Too many wrong keys came from your address. Try again in {error.retry_after_s} seconds."
        page = render(request, "sign_in.html", status=429, next=_local(next), error=words)
        page.headers["retry-after"] = str(error.retry_after_s)
        return page
    OWNER.set(principal.tenant_id)
    ttl_s, previous = runtime.settings.session_s, session_of(request.scope)
    token = await sessions.sign_in(runtime.database, principal, _origin(request), ttl_s=ttl_s, previous=previous)
    response = see_other(_local(next) or _home(principal))
    set_session(response, token, secure=is_secure(request.scope), ttl_s=ttl_s)
    return response


@router.post("/sign-out")
async def sign_out(request: Request, runtime: RuntimeDep) -> Response:
    """Ends the session on every process. Idempotent."""
    require_own_origin(request.scope)
    token = session_of(request.scope)
    if token is not None:
        tenant_id = await sessions.sign_out(runtime.database, runtime.changes, _origin(request), token)
        if tenant_id is not None:
            runtime.directory.forget(tenant_id)
    response = see_other("/sign-in")
    drop_session(response)
    response.headers["clear-site-data"] = '"storage"'
    return response


def _origin(request: Request) -> Origin:
    return Origin(address=client_address(request.scope), request_id=request.scope.get(REQUEST_ID))


def _local(path: str) -> str:
    """The path if it stays on this site, else nothing. Browsers take two slashes for the start of a host name."""
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_ours and not path.startswith(("/sign-in", "/sign-out")) else ""


def _home(principal: Principal) -> str:
    places = places_of(principal)
    if Scope.CHAT in principal.scopes or not places:
        return "/"
    return places[0][0]
