"""Delivery of alerts as Standard Webhooks: signed, retried, with every attempt logged in the database.

At least once: receivers detect repeats by `webhook-id`, the alert's id. A 2xx within 10 s is a delivery. Anything else
is retried after the pauses below, then the alert has `failed`. A 410 fails it at once and disables the endpoint. A slow
endpoint delays only its own tenant. Signatures carry the real time, not the test clock's. Source: standardwebhooks.com,
specification 1.0.
"""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aiohttp
import msgspec
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from standardwebhooks import Webhook

from billing.context import BillingContext
from billing.models import Alert, AlertDelivery, AlertEndpoint
from billing.models.states import AlertState
from core.clock import now_ms, to_iso
from core.logs import get_logger
from core.network.routes import Routes

PAUSES_S = (5, 300, 1800, 7200, 18_000, 36_000, 36_000)
_TIMEOUT_S = 10
_LEASE_MS = 60_000
_AT_ONCE = 16
"""Tenants that one process delivers to concurrently."""
_POLL_S = 1.0
"""Interval of looking for further due alerts while deliveries run."""
_OK, _REDIRECT, _GONE = 200, 300, 410

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one attempt: the status, or the error."""

    status: int | None
    error: str | None
    took_ms: int

    @property
    def is_delivered(self) -> bool:
        """Whether the status is a 2xx."""
        return self.status is not None and _OK <= self.status < _REDIRECT


async def deliver_alerts(context: BillingContext) -> None:
    """The duty ALERTS: delivers due alerts until none is left or running. Workers share them."""
    production = context.settings.is_production
    async with Routes(context.settings.proxies, _TIMEOUT_S, limit=_AT_ONCE, confined=production) as routes:
        await _deliver_all(context, routes)


async def _deliver_all(context: BillingContext, routes: Routes) -> None:
    running: dict[UUID, asyncio.Task[None]] = {}
    try:
        while True:
            for alert, endpoint in await _claim(context, busy=running, most=_AT_ONCE - len(running)):
                running[alert.tenant_id] = asyncio.create_task(_deliver_one(context, routes, alert, endpoint))
            if not running:
                return
            done, _ = await asyncio.wait(running.values(), timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED)
            running = {tenant_id: task for tenant_id, task in running.items() if task not in done}
            for task in done:
                task.result()
    finally:
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)


async def send_alert(routes: Routes, alert: Alert, endpoint: AlertEndpoint) -> Outcome:
    """Makes one attempt. Never raises for the receiver's behaviour."""
    body = msgspec.json.encode(message_of(alert)).decode()
    headers = signed_headers(alert.id, body, endpoint) | {"content-type": "application/json", "user-agent": "Naka/1"}
    began = time.monotonic()
    status, error = None, None
    try:
        status = await routes.post(endpoint.url, body, headers)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as failure:
        error = type(failure).__name__
    return Outcome(status, error, round((time.monotonic() - began) * 1000))


def message_of(alert: Alert) -> dict[str, Any]:
    """The body, with `type`, `timestamp` and `data`."""
    return {"type": alert.kind, "timestamp": to_iso(alert.at_ms), "data": alert.data}


def signed_headers(message_id: UUID, body: str, endpoint: AlertEndpoint) -> dict[str, str]:
    """The three headers of Standard Webhooks, signed with both secrets during a rotation."""
    at = datetime.now(UTC)
    secrets = [secret for secret in (endpoint.secret, endpoint.previous_secret) if secret]
    return {
        "webhook-id": str(message_id),
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(str(message_id), at, body) for secret in secrets),
    }


async def _claim(context: BillingContext, *, busy: Collection[UUID], most: int) -> list[tuple[Alert, AlertEndpoint]]:
    """Leases the first due alert of each tenant that is not `busy`, `most` at most.

    If this process dies, another takes over when the lease ends.
    """
    if most <= 0:
        return []
    at_ms = now_ms()
    is_due = (Alert.state == AlertState.PENDING, Alert.due_ms <= at_ms)
    first = (
        select(Alert.tenant_id, Alert.id)
        .join(AlertEndpoint, AlertEndpoint.tenant_id == Alert.tenant_id)
        .where(*is_due, AlertEndpoint.enabled, Alert.tenant_id.not_in(list(busy)))
        .ext(distinct_on(Alert.tenant_id))
        .order_by(Alert.tenant_id, Alert.due_ms, Alert.id)
        .subquery("first")
    )
    async with context.database.session() as session:
        query = (
            select(Alert, AlertEndpoint)
            .join(first, (first.c.tenant_id == Alert.tenant_id) & (first.c.id == Alert.id))
            .join(AlertEndpoint, AlertEndpoint.tenant_id == Alert.tenant_id)
            .where(*is_due)
            .order_by(Alert.due_ms)
            .limit(most)
            .with_for_update(of=Alert, skip_locked=True)
        )
        claimed = [(row[0], row[1]) for row in (await session.execute(query)).all()]
        for alert, _ in claimed:
            alert.tries += 1
            alert.due_ms = at_ms + _LEASE_MS
    return claimed


async def _deliver_one(context: BillingContext, routes: Routes, alert: Alert, to: AlertEndpoint) -> None:
    """Makes one attempt, and stores it and the alert's new state."""
    outcome = await send_alert(routes, alert, to)
    at_ms = now_ms()
    async with context.database.session() as session:
        row = await session.get_one(Alert, (alert.tenant_id, alert.id), with_for_update=True)
        session.add(
            AlertDelivery(
                tenant_id=alert.tenant_id,
                alert_id=alert.id,
                attempt=alert.tries,
                at_ms=at_ms,
                status=outcome.status,
                error=outcome.error,
                took_ms=outcome.took_ms,
            )
        )
        if outcome.is_delivered:
            row.state, row.due_ms = AlertState.DELIVERED, None
        elif outcome.status == _GONE or alert.tries > len(PAUSES_S):
            row.state, row.due_ms = AlertState.FAILED, None
        else:
            row.due_ms = at_ms + PAUSES_S[alert.tries - 1] * 1000
        endpoint = await session.get(AlertEndpoint, alert.tenant_id, with_for_update=True)
        if outcome.status == _GONE and endpoint is not None:
            endpoint.enabled = False
    log.info("alert_sent", alert=str(alert.id), status=outcome.status, error=outcome.error)
