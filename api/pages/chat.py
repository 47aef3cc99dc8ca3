"""The chat at `/`: for end users, and a reference for clients of `/chat`."""

import re
from collections.abc import Sequence

from fastapi import Request
from fastapi.responses import Response

from api.auth.access import RuntimeDep
from api.pages.route import page_router
from api.pages.site import render
from api.pages.visitor import Anybody
from core.errors import Unavailable
from core.tenancy.principal import Scope

router = page_router()
_DATE = re.compile(r"-\d{8}$")


@router.get("/favicon.ico")
async def favicon() -> Response:
    """No icon: browsers that ask get no error."""
    return Response(status_code=204)


@router.get("/")
async def chat_page(request: Request, runtime: RuntimeDep, visitor: Anybody) -> Response:
    """The chat page, which streams `/chat` with the visitor's session. Unknown models: the default one only."""
    visitor.principal.require(Scope.CHAT)
    settings = runtime.settings
    try:
        models = _without_dated(await runtime.allowed_models.of(visitor.principal))
    except Unavailable:
        models = [settings.chat_model]
    return render(
        request,
        "chat.html",
        visitor,
        model=settings.chat_model,
        models=models,
        most_tokens=settings.chat_max_tokens,
        most_bytes=settings.request_body_max_bytes,
    )


def _without_dated(models: Sequence[str]) -> list[str]:
    """Returns the names, without those that only add a date to another one."""
    return sorted(model for model in models if _DATE.sub("", model) == model or _DATE.sub("", model) not in models)
