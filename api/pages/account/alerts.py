"""Alerts: what was passed, where it is sent, and how each sending went; with a test message at one click."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from fastapi import Request
from fastapi.responses import Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.access import RuntimeDep
from api.pages.account import wording
from api.pages.account.frame import NOTHING_TYPED, REFUSALS, FormDep, Said, Typed, filled, own, parsed, refused, show
from api.pages.route import page_router
from api.pages.site import see_other
from api.pages.visitor import AccountAdmin, Visitor
from api.routes.billing import alerts as routes
from api.routes.parameters import Cursor
from api.runtime import Runtime
from billing.alerts.endpoints import find_endpoint
from billing.models import AlertDelivery, AlertEndpoint
from core.errors import NotFound

router = page_router("/account/alerts")
_SIZE = 25
_SAID = {
    "set": "Alerts are sent there from now on.",
    "removed": "Nothing is sent any more. Alerts are still listed here.",
    "tested": "A test message is on its way. How it went is in the list in a moment.",
}
_STATES = {
    "none": ("not sent", ""),
    "pending": ("on its way", "warn"),
    "delivered": ("delivered", "good"),
    "failed": ("failed", "bad"),
}
"""How a delivery stands: the tag and its tone."""
_URL = "An address begins with https:// (or http:// while you try it out) and has at most 500 characters."


@router.get("")
async def alerts_page(
    request: Request, runtime: RuntimeDep, visitor: AccountAdmin, said: Said = "", cursor: Cursor = None
) -> Response:
    """The address and the list."""
    return await _page(request, runtime, visitor, cursor=cursor, said=_SAID.get(said, ""))


@router.post("/endpoint")
async def set_endpoint(request: Request, runtime: RuntimeDep, visitor: AccountAdmin, form: FormDep) -> Response:
    """Sets the address; the first time the answer shows the secret, and only that answer."""
    try:
        body = parsed(routes.NewEndpoint, {"url": form.text("url")}, {"url": _URL})
        made = await routes.put_endpoint(body, own(visitor), runtime, request)
    except REFUSALS as error:
        typed, status = refused(form, error, "url")
        return await _page(request, runtime, visitor, typed=typed, status=status)
    if made.secret is None:
        return see_other("/account/alerts?said=set")
    return await _page(request, runtime, visitor, secret=made.secret, said=_SAID["set"], status=201)


@router.post("/endpoint/rotate")
async def rotate_secret(request: Request, runtime: RuntimeDep, visitor: AccountAdmin) -> Response:
    """A new secret, in this answer alone."""
    made = await routes.rotate_endpoint(own(visitor), runtime, request)
    return await _page(request, runtime, visitor, secret=made.secret or "", status=201)


@router.post("/endpoint/delete")
async def remove_endpoint(request: Request, runtime: RuntimeDep, visitor: AccountAdmin) -> Response:
    """Nothing is sent any more."""
    await routes.delete_endpoint(own(visitor), runtime, request)
    return see_other("/account/alerts?said=removed")


@router.post("/endpoint/test")
async def send_test(runtime: RuntimeDep, visitor: AccountAdmin) -> Response:
    """A message that says nothing but that the address works."""
    await routes.test_endpoint(own(visitor), runtime)
    return see_other("/account/alerts?said=tested")


async def _page(
    request: Request,
    runtime: Runtime,
    visitor: Visitor,
    *,
    cursor: UUID | None = None,
    typed: Typed = NOTHING_TYPED,
    secret: str = "",
    **context: Any,
) -> Response:
    tenant_id = visitor.principal.tenant_id
    found = await routes.my_alerts(own(visitor), runtime, cursor, _SIZE)
    async with runtime.database.session(tenant_id=tenant_id) as session:
        endpoint = await _endpoint(session, tenant_id)
        tries = await _tries(session, tenant_id, [alert.id for alert in found.items])
    if typed is NOTHING_TYPED and endpoint is not None:
        typed = filled({"url": endpoint.url})
    return show(
        request,
        "alerts",
        visitor,
        **context,
        typed=typed,
        secret=secret,
        endpoint=endpoint,
        found=found,
        tries=tries,
        states=_STATES,
        wording=wording,
        is_production=runtime.settings.naka_env == "production",
        waits=any(alert.delivery == "pending" and alert.type == "alerts.test" for alert in found.items),
    )


async def _endpoint(session: AsyncSession, tenant_id: UUID) -> AlertEndpoint | None:
    try:
        return await find_endpoint(session, tenant_id)
    except NotFound:
        return None


async def _tries(session: AsyncSession, tenant_id: UUID, alerts: Sequence[UUID]) -> dict[UUID, list[AlertDelivery]]:
    """Every try of these, first to last."""
    query = select(AlertDelivery).where(AlertDelivery.tenant_id == tenant_id, AlertDelivery.alert_id.in_(alerts))
    found: dict[UUID, list[AlertDelivery]] = defaultdict(list)
    for row in await session.scalars(query.order_by(AlertDelivery.attempt)):
        found[row.alert_id].append(row)
    return found
