"""Where Razorpay brings its events: verified on the bytes as they came, kept, acknowledged; nothing else is done here.

Nobody has a key for it: the signature is the key. Razorpay takes every 2xx within 5 s for done, and brings the event
again after anything else: so 401 for what it did not sign, and 503 while Postgres is away. 410 for what is older than
its own retries, which end 24 h after the event: Razorpay never gets to see that answer, unless this server's clock is
wrong, and then it is better asked again than lost.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from pydantic import BaseModel

from api.auth.access import RuntimeDep
from api.http.body import read_body
from api.http.parameters import ANYTHING, Reads
from billing.webhooks.inbox import MAX_BYTES
from core.tenancy.principal import Unauthenticated

router = APIRouter(tags=["webhooks"], dependencies=[Depends(Reads(ANYTHING))])

_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
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
    401: {"description": "No signature of Razorpay's, or a wrong one: nothing was kept", "content": _PROBLEM},
    410: {"description": "Older than Razorpay's own retries: nothing was kept", "content": _PROBLEM},
    413: {"description": "The body is too large", "content": _PROBLEM},
    415: {"description": "The body is not JSON", "content": _PROBLEM},
    503: {"description": "Postgres does not answer: nothing was kept", "content": _PROBLEM},
}


class Kept(BaseModel):
    """The event is in safe hands. `again`: it was already."""

    kept: bool = True
    again: bool


@router.post("/webhooks/razorpay", responses=_ANSWERS, openapi_extra=_BODY)
async def razorpay_event(
    request: Request,
    runtime: RuntimeDep,
    signature: Annotated[str | None, Header(alias="x-razorpay-signature", description="HMAC of the body")] = None,
    event_id: Annotated[str | None, Header(alias="x-razorpay-event-id", description="The same on every try")] = None,
) -> Kept:
    """Take an event of Razorpay's."""
    body = await read_body(request.scope, request.receive, max_bytes=MAX_BYTES)
    if not runtime.inbox.is_genuine(body, signature):
        raise Unauthenticated("no signature of Razorpay's")
    return Kept(again=not await runtime.inbox.store(body, event_id))
