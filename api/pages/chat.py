"""The chat at `/`: what an end user sees, and the reference for whoever builds one of their own."""

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
    """There is none, and a browser that asks is told so without an error."""
    return Response(status_code=204)


@router.get("/")
async def chat_page(request: Request, runtime: RuntimeDep, visitor: Anybody) -> Response:
    """Streams `/chat` in the visitor's name."""
    visitor.principal.require(Scope.CHAT)
    return render(request, "chat.html", visitor, model=runtime.settings.chat_model)
