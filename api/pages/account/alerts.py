"""Alerts: the list with its deliveries, the endpoint that receives them, and a test message."""

from fastapi import Request
from fastapi.responses import Response

from api.pages.account.frame import (
    NOTHING_TYPED,
    REFUSALS,
    FormDep,
    Said,
    filled,
    leave_refused,
    parsed,
    refused,
    show,
    taken,
)
from api.pages.once import leave
from api.pages.route import page_router
from api.pages.site import see_other
from api.pages.visitor import AccountAdmin
from api.routes.parameters import Cursor
from api.schemas.billing.alerts import NewEndpoint
from api.services.billing import alerts

router = page_router("/account/alerts")
_SIZE = 25
_SAID = {
    "set": "Alerts are sent to this address.",
    "removed": "Alerts are no longer sent. They are still listed here.",
    "tested": "A test message is being sent. Its result appears in the list in a moment.",
}
_STATES = {
    "none": ("not sent", ""),
    "pending": ("on its way", "warn"),
    "delivered": ("delivered", "good"),
    "failed": ("failed", "bad"),
}
"""Tag and tone of a delivery."""
_URL = "An address begins with https:// (or http:// during development) and has at most 500 characters."


@router.get("")
async def alerts_page(request: Request, visitor: AccountAdmin, said: Said = "", cursor: Cursor = None) -> Response:
    """The endpoint and the list."""
    context = visitor.account_context
    typed, status, left = taken(request)
    detail = await alerts.describe_alerts(context, before=cursor, size=_SIZE)
    if typed is NOTHING_TYPED and detail.endpoint is not None:
        typed = filled({"url": detail.endpoint.url})
    return show(
        request,
        "alerts",
        visitor,
        status=status,
        said=_SAID.get(said, ""),
        typed=typed,
        secret=left.get("secret", ""),
        rotated=left.get("rotated", False),
        endpoint=detail.endpoint,
        found=detail.alerts,
        tries=detail.deliveries,
        states=_STATES,
        is_production=context.settings.is_production,
        waits=any(alert.delivery == "pending" and alert.type == "alerts.test" for alert in detail.alerts.items),
    )


@router.post("/endpoint")
async def set_endpoint(request: Request, visitor: AccountAdmin, form: FormDep) -> Response:
    """Sets the endpoint; only the page after the first answer shows its secret."""
    try:
        body = parsed(NewEndpoint, {"url": form.text("url")}, {"url": _URL})
        made = await alerts.set_endpoint(visitor.account_context, body)
    except REFUSALS as error:
        typed, status = refused(form, error, "url")
        return leave_refused(request, "/account/alerts", typed, status)
    if made.secret is None:
        return see_other("/account/alerts?said=set")
    return leave(request, "/account/alerts?said=set", secret=made.secret, status=201)


@router.post("/endpoint/rotate")
async def rotate_secret(request: Request, visitor: AccountAdmin) -> Response:
    """Creates a new secret, which only the page after this answer shows."""
    made = await alerts.rotate_secret(visitor.account_context)
    return leave(request, "/account/alerts", secret=made.secret or "", rotated=True, status=201)


@router.post("/endpoint/delete")
async def remove_endpoint(visitor: AccountAdmin) -> Response:
    """Stops sending alerts."""
    await alerts.remove_endpoint(visitor.account_context)
    return see_other("/account/alerts?said=removed")


@router.post("/endpoint/test")
async def send_test(visitor: AccountAdmin) -> Response:
    """Sends a test message."""
    await alerts.send_test(visitor.account_context)
    return see_other("/account/alerts?said=tested")
