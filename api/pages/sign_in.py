"""Sign-in, which exchanges a key or a one-time link for a session, and sign-out.

The key is stored nowhere. Every wrong key gets the same answer, and delays the next attempt from its address.
"""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import Form, Path, Query, Request
from fastapi.responses import HTMLResponse, Response

from api.auth.access import RuntimeDep
from api.auth.credentials import drop_session, is_secure, read_key, require_own_origin, session_of, set_session
from api.auth.sign_in_throttle import TooManyAttempts
from api.http.client_address import client_address, network_of
from api.http.head import ASKED_HEAD
from api.http.problems import REQUEST_ID
from api.pages.once import leave, take
from api.pages.route import page_router
from api.pages.site import render, see_other
from api.pages.visitor import home_of
from api.runtime import Runtime
from api.schemas.accounts.sessions import Origin
from api.services.accounts import sessions
from api.services.accounts.sign_in_links import take_link
from core.errors import NotFound
from core.resilience.shares import OWNER
from core.tenancy.keys import visible_prefix
from core.tenancy.principal import Principal, Unauthenticated, UserDisabled
from core.tenancy.sessions import hash_token

SIGN_IN_MAX_BYTES = 16 * 1024
"""The form is open to everybody, so its body is small."""

router = page_router()
_KEY_MAX = 200
_NEXT_MAX = 2000
_TOKEN_MAX = 100

Next = Annotated[str, Query(max_length=_NEXT_MAX)]


@router.get("/sign-in")
async def sign_in_page(request: Request, next: Next = "") -> Response:  # noqa: A002 - its name in the URL
    """The form for a key, with the refusal of the last one if any."""
    left = take(request)
    error, said = left.get("error", ""), left.get("said", "")
    page = sign_in_form(request, next, status=left.get("status", 200), error=error, said=said)
    if "retry_after_s" in left:
        page.headers["retry-after"] = str(left["retry_after_s"])
    return page


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
        return leave(request, sign_in_path(next), error=words, status=401)
    except UserDisabled as error:
        return leave(request, sign_in_path(next), error=str(error), status=403)
    except TooManyAttempts as error:
        words = f"Too many wrong keys came from your address. Try again in {error.retry_after_s} seconds."
        return leave(request, sign_in_path(next), error=words, status=429, retry_after_s=error.retry_after_s)
    return await _signed_in(request, runtime, principal, next)


@router.get("/sign-in/link/{token}")
async def one_time_link(
    request: Request,
    runtime: RuntimeDep,
    token: Annotated[str, Path(max_length=_TOKEN_MAX)],
    next: Next = "",  # noqa: A002 - its name in the URL
) -> Response:
    """Signs in with a link of `naka up` or `naka sign-in`, which works once. In development only."""
    if runtime.settings.is_production:
        raise NotFound("there is no such page")
    if ASKED_HEAD in request.scope or "prefetch" in request.headers.get("sec-purpose", ""):
        return Response(status_code=503)  # what looks at links, or loads them ahead, must not use this one up
    try:
        principal = await take_link(runtime.redis, runtime.database, token)
    except Unauthenticated:
        words = "This link was used already, or is older than 15 minutes. `naka sign-in` prints new ones."
        return sign_in_form(request, next, status=401, error=words)
    return await _signed_in(request, runtime, principal, next)


@router.post("/sign-out")
async def sign_out(request: Request, runtime: RuntimeDep) -> Response:
    """Ends the session on every process. Idempotent."""
    require_own_origin(request.scope)
    token = session_of(request.scope)
    if token is not None:
        tenant_id = await sessions.sign_out(runtime.database, runtime.changes, origin_of(request), token)
        if tenant_id is not None:
            runtime.identities.forget(tenant_id)
    response = see_other("/sign-in")
    drop_session(response)
    response.headers["clear-site-data"] = '"storage"'
    return response


async def _signed_in(request: Request, runtime: Runtime, principal: Principal, wanted: str) -> Response:
    """The redirect to the page that was asked for, with a session in place of the browser's earlier one."""
    token = session_of(request.scope)
    answer = see_other(local_path(wanted) or home_of(principal))
    await begin_session(request, runtime, principal, answer, previous=None if token is None else hash_token(token))
    return answer


async def begin_session(
    request: Request, runtime: Runtime, principal: Principal, answer: Response, *, previous: bytes | None
) -> None:
    """Begins a session, whose cookie goes with `answer`. `previous`: the hash of the session to end in its place."""
    OWNER.set(principal.tenant_id)
    ttl_s = runtime.settings.session_s
    token = await sessions.sign_in(runtime.database, principal, origin_of(request), ttl_s=ttl_s, previous=previous)
    set_session(answer, token, secure=is_secure(request.scope), ttl_s=ttl_s)


def sign_in_form(
    request: Request, next_path: str = "", *, status: int = 200, error: str = "", said: str = ""
) -> HTMLResponse:
    """The page to sign in on, with an error or a notice."""
    provider = request.app.state.runtime.settings.oidc_shown_name
    given = {"next": local_path(next_path), "error": error, "said": said, "provider": provider}
    return render(request, "sign_in.html", status=status, **given)


def origin_of(request: Request) -> Origin:
    """The client, for the audit log."""
    return Origin(address=client_address(request.scope), request_id=request.scope.get(REQUEST_ID))


def sign_in_path(next_path: str) -> str:
    """The address of the form, for the same page."""
    path = local_path(next_path)
    return f"/sign-in?{urlencode({'next': path})}" if path else "/sign-in"


def local_path(path: str) -> str:
    """The path if it stays on this site, else nothing. Browsers take two slashes for the start of a host name."""
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_ours and not path.startswith(("/sign-in", "/sign-out")) else ""
