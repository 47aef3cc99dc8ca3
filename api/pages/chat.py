"""The chat at `/`: for end users, and a reference for clients of `/chat`."""

import re
from collections.abc import Sequence

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from api.auth.access import RuntimeDep
from api.pages.banner import banner_of
from api.pages.route import page_router
from api.pages.site import render, see_other
from api.pages.visitor import Anybody, home_of
from api.services.billing.standing import check_payments
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
    home = home_of(visitor.principal)
    if home != "/":
        return see_other(home)  # this key cannot chat
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


@router.post("/account-status")
async def account_status(visitor: Anybody) -> Response:
    """The status of the visitor's account after asking Razorpay, for the scripts of pages."""
    context, is_admin = visitor.context, visitor.is_admin
    status = await check_payments(context, visitor.principal.tenant_id)
    banner = banner_of(status, context.zone, is_admin=is_admin)
    shown = {"banner": banner and banner.as_json(), "fingerprint": status.fingerprint if is_admin else None}
    return JSONResponse(shown, headers={"cache-control": "no-store"})


def _without_dated(models: Sequence[str]) -> list[str]:
    """Returns the names, without those that only add a date to another one."""
    return sorted(model for model in models if _DATE.sub("", model) == model or _DATE.sub("", model) not in models)
