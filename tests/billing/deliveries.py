"""Razorpay's webhook deliveries, and subscribers that they refer to."""

import hashlib
import hmac
import json
import time
from typing import Any
from uuid import UUID

from sqlalchemy import select

from billing.context import BillingContext
from billing.models import BillingFinding, Subscription, WebhookEvent
from core.clock import now_ms
from core.ids import uuid7
from tests.billing.operator import OperatorSetup
from tests.simulated_razorpay import WEBHOOK_SECRET, Razorpay

ACCOUNT = "acc_T7mQx2LdVb9KcA"
MADE_S = int(time.time())
GROSS_PAISE = 354_000
SUPPLY = {"treatment": "intra_state", "place": "29", "components": [["CGST", 900], ["SGST", 900]]}


def event_body(kind: str = "subscription.charged", account: str | None = ACCOUNT, /, **entities: Any) -> bytes:
    """The body of an event with `entities`."""
    shown = {name: {"entity": entity} for name, entity in entities.items()}
    said = {"entity": "event", "event": kind, "contains": [*shown], "payload": shown, "created_at": MADE_S}
    return json.dumps(said if account is None else said | {"account_id": account}, separators=(",", ":")).encode()


def signed(body: bytes, event_id: str | None = None, secret: str = WEBHOOK_SECRET) -> dict[str, str]:
    """The headers of a signed delivery."""
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    named = {} if event_id is None else {"x-razorpay-event-id": event_id}
    return {"content-type": "application/json", "x-razorpay-signature": signature, **named}


async def store_event(context: BillingContext, body: bytes, event_id: str | None = None, **fields: Any) -> str:
    """Stores an event in the inbox."""
    key = event_id or uuid7().hex[-14:]
    kind = json.loads(body)["event"]
    given = {"state": "received", "tries": 0, "received_ms": now_ms(), "due_ms": now_ms(), "kind": kind, "body": body}
    async with context.database.session() as session:
        session.add(WebhookEvent(event_id=key, **(given | fields)))
    return key


async def read_event(context: BillingContext, event_id: str) -> WebhookEvent:
    """The stored event."""
    async with context.database.session() as session:
        return await session.get_one(WebhookEvent, event_id)


async def findings(context: BillingContext) -> list[str]:
    """The kinds of all findings."""
    async with context.database.session() as session:
        return sorted((await session.scalars(select(BillingFinding.kind))).all())


async def subscriber(
    setup: OperatorSetup, razorpay: Razorpay, method: str | None = "upi", **fields: Any
) -> Subscription:
    """A new tenant with a subscription at Razorpay, authorised there unless `method` is None; not fetched yet."""
    context, tenant_id, subscription_id = setup.context, await setup.tenant(), uuid7()
    plan = await context.razorpay.create_plan(name="Team", amount_paise=GROSS_PAISE, notes={})
    notes = {"tenant_id": str(tenant_id), "naka_subscription": str(subscription_id)}
    made = await context.razorpay.create_subscription(plan_id=plan.id, total_count=12, notes=notes)
    given: dict[str, Any] = {
        "state": "submitted",
        "is_open": True,
        "plan_code": "team",
        "plan_version": 1,
        "supply": SUPPLY,
        "gross_paise": GROSS_PAISE,
        "total_count": 12,
        "created_ms": now_ms(),
        "razorpay_id": made.id,
    }
    row = Subscription(tenant_id=tenant_id, id=subscription_id, **(given | fields))
    async with context.database.session() as session:
        session.add(row)
    if method is not None:
        razorpay.authorise(made.id, method)
    return row


async def read_subscription(context: BillingContext, tenant_id: UUID, subscription_id: UUID) -> Subscription:
    """The current row."""
    async with context.database.session() as session:
        return await session.get_one(Subscription, (tenant_id, subscription_id))
