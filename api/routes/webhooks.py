"""The route that receives Razorpay's events: verifies the signature of the raw bytes, stores, acknowledges.

The signature replaces a key. Razorpay takes every 2xx within 5 s as received and sends the event again after any other
answer: 401 for a wrong signature, 503 while Postgres is down. 410 for an event older than Razorpay's own retries, which
end after 24 h: it is only seen when this server's clock is wrong, and then the event must be sent again, not lost.
"""

from typing import Annotated, Any

from fastapi import Depends, Header, Request
from pydantic import BaseModel

from api.auth.access import RuntimeDep
from api.http.body import read_body
from api.http.parameters import ANYTHING, Reads
from api.routes.answers import PROBLEM
from api.routes.route import api_router
from billing.webhooks.inbox import MAX_BYTES
from core.tenancy.principal import Unauthenticated

router = api_router("webhooks", dependencies=[Depends(Reads(ANYTHING))])

_SAMPLE: dict[str, Any] = {
    "entity": "event",
    "account_id": "acc_T7mQx2LdVb9KcA",
    "event": "subscription.charged",
    "contains": ["subscription", "payment"],
    "payload": {},
    "created_at": 1796409361,
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}, "example": _SAMPLE}},
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    401: {"description": "Razorpay's signature is missing or wrong: nothing was stored", "content": PROBLEM},
    410: {"description": "Older than Razorpay's own retries: nothing was stored", "content": PROBLEM},
    413: {"description": "The body is too large", "content": PROBLEM},
    415: {"description": "The body is not JSON", "content": PROBLEM},
    503: {"description": "Postgres does not answer: nothing was stored", "content": PROBLEM},
}


class Kept(BaseModel):
    """The event is stored. `again`: it was already."""

    kept: bool = True
    again: bool


@router.post("/webhooks/razorpay", responses=_ANSWERS, openapi_extra=_BODY)
async def razorpay_event(
    request: Request,
    runtime: RuntimeDep,
    signature: Annotated[str | None, Header(alias="x-razorpay-signature", description="HMAC of the body")] = None,
    event_id: Annotated[
        str | None, Header(alias="x-razorpay-event-id", description="The same for every delivery of an event")
    ] = None,
) -> Kept:
    """Receive an event from Razorpay."""
    body = await read_body(request.scope, request.receive, max_bytes=MAX_BYTES)
    if not runtime.inbox.is_genuine(body, signature):
        raise Unauthenticated("Razorpay's signature is missing or wrong")
    return Kept(again=not await runtime.inbox.store(body, event_id))
