"""The visitor's own sign-in: who they are here, their sessions, sign-out everywhere, and their other accounts."""

from uuid import UUID

from fastapi import Request
from fastapi.responses import Response

from api.auth.access import RuntimeDep
from api.auth.credentials import drop_session, session_of
from api.pages.once import leave
from api.pages.route import page_router
from api.pages.sign_in import begin_session, origin_of
from api.pages.site import render, see_other
from api.pages.visitor import Anybody, home_of
from api.services.accounts import sessions
from api.services.members import arrivals
from core.tenancy.sessions import hash_token

router = page_router()


@router.get("/session")
async def session_page(request: Request, runtime: RuntimeDep, visitor: Anybody) -> Response:
    """Who is signed in, and where else."""
    running = await sessions.running_sessions(runtime.database, visitor.principal)
    found = await arrivals.list_memberships(runtime.database, visitor.principal)
    return render(request, "session.html", visitor, running=running, memberships=found)


@router.post("/session/end-all")
async def sign_out_everywhere(request: Request, runtime: RuntimeDep, visitor: Anybody) -> Response:
    """Ends every session of the visitor's key, in every browser."""
    origin = origin_of(request)
    await sessions.sign_out_everywhere(runtime.database, runtime.changes, origin, visitor.principal)
    runtime.identities.forget(visitor.principal.tenant_id)
    answer = leave(request, "/sign-in", said="You are signed out in every browser.")
    drop_session(answer)
    answer.headers["clear-site-data"] = '"storage"'
    return answer


@router.post("/session/switch/{tenant_id}")
async def switch_account(request: Request, runtime: RuntimeDep, visitor: Anybody, tenant_id: UUID) -> Response:
    """Goes on in another account of the same person, in a session of its own."""
    principal = await arrivals.switch(runtime.database, visitor.principal, tenant_id)
    token = session_of(request.scope)
    answer = see_other(home_of(principal))
    await begin_session(request, runtime, principal, answer, previous=None if token is None else hash_token(token))
    return answer
