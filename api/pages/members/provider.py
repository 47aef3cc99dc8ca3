"""Sign-in at the identity provider: to it, back from it, and by the link of an invitation.

Both ways lead over a page that loads the next address at once. To the provider, because a form's policy allows no other
site; back, because browsers send the session's strict cookie only with what our own page loads.
"""

from typing import Annotated

from fastapi import Depends, Form, Path, Query, Request
from fastapi.responses import Response

from api.auth.access import RuntimeDep
from api.auth.credentials import is_secure, require_own_origin, session_of
from api.auth.oidc import RefusedByProvider
from api.auth.sign_in_state import (
    Started,
    browser_of,
    mark_browser,
    new_browser,
    secrets_of,
    unmark_browser,
)
from api.auth.sign_in_throttle import TooManyAttempts
from api.http.client_address import client_address, network_of
from api.http.head import ASKED_HEAD
from api.http.parameters import ANYTHING, Reads
from api.pages.once import leave
from api.pages.route import page_router
from api.pages.sign_in import begin_session, local_path, origin_of, sign_in_form, sign_in_path
from api.pages.site import render
from api.pages.visitor import home_of
from api.runtime import Runtime
from api.services.members import invitations
from api.services.members.arrivals import Arrival, arrive
from core.errors import NotFound, Unavailable
from core.identity.invitations import hash_token as hash_invitation
from core.identity.persons import ClaimRules, NotAdmitted, read_person
from core.tenancy.sessions import hash_token

router = page_router()
_NEXT_MAX = 2000
_TOKEN_MAX = 100
_CODE_MAX = 4000
_CALLBACK = "/sign-in/oidc/callback"
_OVER = "This sign-in is over, or began in another browser. Start again."


@router.post("/sign-in/oidc")
async def to_provider(
    request: Request,
    runtime: RuntimeDep,
    next: Annotated[str, Form(max_length=_NEXT_MAX)] = "",  # noqa: A002 - its name in the form
    invitation: Annotated[str, Form(max_length=_TOKEN_MAX)] = "",
) -> Response:
    """Begins a sign-in, and leads to the provider."""
    _require_provider(runtime)
    require_own_origin(request.scope)
    try:
        await runtime.sign_in_state.admit(client_address(request.scope))
        redirect_uri = f"{site_of(request)}{_CALLBACK}"
        url, kept = await runtime.oidc.begin(redirect_uri)
        token, hashed = new_browser(browser_of(request.scope))
        session = session_of(request.scope)
        started = Started(
            nonce=kept.nonce,
            verifier=kept.verifier,
            redirect_uri=redirect_uri,
            browser=hashed,
            next_path=local_path(next),
            invited=hash_invitation(invitation).hex() if invitation else "",
            previous="" if session is None else hash_token(session).hex(),
        )
        await runtime.sign_in_state.keep(kept.state, started)
    except TooManyAttempts as error:
        words = f"Too many sign-ins began at your address. Try again in {error.retry_after_s} seconds."
        return leave(request, sign_in_path(next), error=words, status=429, retry_after_s=error.retry_after_s)
    except Unavailable as error:
        return leave(request, sign_in_path(next), error=str(error), status=503, retry_after_s=error.retry_after_s)
    answer = render(request, "again.html", target=url)
    mark_browser(answer, request.scope, token)
    return answer


@router.get(_CALLBACK, dependencies=[Depends(Reads(ANYTHING))])
async def from_provider(
    request: Request,
    runtime: RuntimeDep,
    code: Annotated[str, Query(max_length=_CODE_MAX)] = "",
    state: Annotated[str, Query(max_length=_TOKEN_MAX)] = "",
    iss: Annotated[str, Query(max_length=_NEXT_MAX)] = "",
) -> Response:
    """Ends a sign-in: begins a session, and opens the page that was asked for."""
    _require_provider(runtime)
    if ASKED_HEAD in request.scope or "prefetch" in request.headers.get("sec-purpose", ""):
        return Response(status_code=503)  # what looks at links, or loads them ahead, must not use up the sign-in
    next_path = ""
    try:
        started = await runtime.sign_in_state.take(state, browser_of(request.scope)) if state else None
        if started is None:
            return sign_in_form(request, status=400, error=_OVER)
        next_path = started.next_path
        answer = await _finish(request, runtime, started, code=code, state=state, iss=iss)
    except (NotAdmitted, RefusedByProvider) as error:
        status = 403 if isinstance(error, NotAdmitted) else 400
        runtime.directory.activity_log.failed(network_of(client_address(request.scope)), "")
        answer = sign_in_form(request, next_path, status=status, error=str(error))
    except Unavailable as error:
        answer = sign_in_form(request, next_path, status=503, error=str(error))
    unmark_browser(answer, request.scope)
    return answer


async def _finish(request: Request, runtime: Runtime, started: Started, *, code: str, state: str, iss: str) -> Response:
    settings = runtime.settings
    if not code or (iss and iss != settings.oidc_issuer):  # RFC 9207: the answer is another provider's
        raise RefusedByProvider
    claims = await runtime.oidc.finish(code, started.redirect_uri, secrets_of(state, started))
    rules = ClaimRules(settings.oidc_allowed_domains, settings.oidc_role_claim, settings.oidc_tenant_claim)
    invited = bytes.fromhex(started.invited) if started.invited else None
    arrival = Arrival(read_person(claims, rules), origin_of(request), invited)
    principal = await arrive(runtime.database, runtime.changes, settings, arrival)
    runtime.identities.forget(principal.tenant_id)
    answer = render(request, "again.html", target=started.next_path or home_of(principal))
    previous = bytes.fromhex(started.previous) if started.previous else None
    await begin_session(request, runtime, principal, answer, previous=previous)
    return answer


@router.get("/sign-in/invitation/{token}")
async def invitation_page(
    request: Request, runtime: RuntimeDep, token: Annotated[str, Path(max_length=_TOKEN_MAX)]
) -> Response:
    """An invitation, and the button that leads to the provider. Opening it uses nothing up."""
    _require_provider(runtime)
    try:
        invited = await invitations.read_link(runtime.database, token)
    except NotAdmitted as error:
        return sign_in_form(request, status=404, error=str(error))
    provider = runtime.settings.oidc_shown_name
    return render(request, "invitation.html", invited=invited, token=token, provider=provider)


def site_of(request: Request) -> str:
    """This site's address: PUBLIC_URL in production, and where the browser is in development."""
    settings = request.app.state.runtime.settings
    if settings.is_production:
        return str(settings.public_url)
    return f"{'https' if is_secure(request.scope) else 'http'}://{request.url.netloc}"


def _require_provider(runtime: Runtime) -> None:
    if not runtime.oidc.is_configured:
        raise NotFound("there is no such page")
