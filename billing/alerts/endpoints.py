"""A tenant's endpoint for alerts: one URL, and the secret that signs its messages.

In production only https to a public address is called (`core.network.tenant_urls`), without redirects. A secret is
shown once; during a rotation the old and the new one sign.
"""

import base64
import secrets
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import AlertEndpoint
from core.clock import now_ms
from core.errors import NotFound
from core.network.tenant_urls import checked_url
from core.tenancy.audit import Actor, record

SECRET_BYTES = 32


def encode_secret(secret: bytes) -> str:
    """The secret in the format of the Standard Webhooks libraries."""
    return "whsec_" + base64.b64encode(secret).decode()


async def set_endpoint(
    session: AsyncSession, actor: Actor, tenant_id: UUID, url: str, *, production: bool
) -> tuple[AlertEndpoint, bytes | None]:
    """Creates or changes the tenant's endpoint; returns it with its secret if it is new. Raises Invalid."""
    url = checked_url(url, production=production)
    row = await session.get(AlertEndpoint, tenant_id, with_for_update=True)
    secret = None
    before = None if row is None else {"url": row.url}
    if row is None:
        secret = secrets.token_bytes(SECRET_BYTES)
        row = AlertEndpoint(tenant_id=tenant_id, url=url, secret=secret, created_ms=now_ms())
        session.add(row)
    row.url, row.enabled = url, True
    target, after = f"tenant:{tenant_id}", {"url": url}
    record(session, actor, "alerts.endpoint", tenant_id=tenant_id, target=target, before=before, after=after)
    await session.flush()
    return row, secret


async def rotate_secret(session: AsyncSession, actor: Actor, tenant_id: UUID) -> bytes:
    """Replaces the secret; the previous one signs too until the next rotation. Raises NotFound."""
    row = await find_endpoint(session, tenant_id)
    row.previous_secret, row.secret = row.secret, secrets.token_bytes(SECRET_BYTES)
    record(session, actor, "alerts.rotate", tenant_id=tenant_id, target=f"tenant:{tenant_id}")
    return row.secret


async def remove_endpoint(session: AsyncSession, actor: Actor, tenant_id: UUID) -> None:
    """Deletes the endpoint. Raises NotFound."""
    await session.delete(await find_endpoint(session, tenant_id))
    record(session, actor, "alerts.remove", tenant_id=tenant_id, target=f"tenant:{tenant_id}")


async def find_endpoint(session: AsyncSession, tenant_id: UUID) -> AlertEndpoint:
    """The tenant's endpoint. Raises NotFound."""
    row = await session.get(AlertEndpoint, tenant_id)
    if row is None:
        raise NotFound("no endpoint is set")
    return row
