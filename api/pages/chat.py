"""The chat at `/`: for end users, and a reference for clients of `/chat`."""

from fastapi import Request
from fastapi.responses import Response

from api.auth.access import RuntimeDep
from api.pages.route import page_router
from api.pages.site import render
from api.pages.visitor import Anybody
from core.tenancy.principal import Scope

router = page_router()


@router.get("/favicon.ico")
async def favicon() -> Response:
    """No icon: browsers that ask get no error."""
    return Response(status_code=204)


@router.get("/")
async def chat_page(request: Request, runtime: RuntimeDep, visitor: Anybody) -> Response:
    """The chat page, which streams `/chat` with the visitor's session."""
    visitor.principal.require(Scope.CHAT)
    return render(request, "chat.html", visitor, model=runtime.settings.chat_model)
