"""Where a tenant hears of its alerts: one URL, and the secret that signs what is sent there.

The URL is the tenant's, the call is ours: so in production only https to a public address is called, the address that
was checked is the one that is connected to, and no redirect is followed. A secret is shown once, when it is made; while
it is rotated both sign. Postgres away: Unavailable.
"""

import base64
import ipaddress
import secrets
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import AlertEndpoint
from core.clock import now_ms
from core.errors import Invalid, NotFound
from core.tenancy.audit import Actor, record

SECRET_BYTES = 32
MAX_URL = 500


def written(secret: bytes) -> str:
    """A secret as the Standard Webhooks libraries take it."""
    return "whsec_" + base64.b64encode(secret).decode()


def checked_url(url: str, *, production: bool) -> str:
    """The URL, if it may be called. Raises Invalid."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Invalid("this is not a URL") from error
    if parts.scheme not in {"http", "https"} or not host or port == 0 or len(url) > MAX_URL or not url.isprintable():
        raise Invalid("an endpoint is an http or https URL")
    if parts.username or parts.password or parts.fragment:
        raise Invalid("an endpoint's URL has no user, password or fragment: what is sent is signed")
    if production and parts.scheme != "https":
        raise Invalid("an endpoint is https")
    if production and _is_private_literal(host):
        raise Invalid("an endpoint is at a public address")
    return url


def is_public(address: str) -> bool:
    """Whether an IP address may be called in production."""
    ip = ipaddress.ip_address(address)
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_global and not ip.is_multicast


async def set_endpoint(
    session: AsyncSession, actor: Actor, tenant_id: UUID, url: str, *, production: bool
) -> tuple[AlertEndpoint, bytes | None]:
    """The tenant's endpoint, and its secret if it is a new one. Raises Invalid."""
    url = checked_url(url, production=production)
    row = await session.get(AlertEndpoint, tenant_id, with_for_update=True)
    secret = None
    before = None if row is None else {"url": row.url}
    if row is None:
        secret = secrets.token_bytes(SECRET_BYTES)
        row = AlertEndpoint(tenant_id=tenant_id, url=url, secret=secret, created_ms=now_ms())
        session.add(row)
    row.url, row.enabled = url, True
    record(
        session,
        actor,
        "alerts.endpoint",
        tenant_id=tenant_id,
        target=f"tenant:{tenant_id}",
        before=before,
        after={"url": url},
    )
    await session.flush()
    return row, secret


async def rotate_secret(session: AsyncSession, actor: Actor, tenant_id: UUID) -> bytes:
    """A new secret; the one before signs as well, until the next rotation. Raises NotFound."""
    row = await find_endpoint(session, tenant_id)
    row.previous_secret, row.secret = row.secret, secrets.token_bytes(SECRET_BYTES)
    record(session, actor, "alerts.rotate", tenant_id=tenant_id, target=f"tenant:{tenant_id}")
    return row.secret


async def remove_endpoint(session: AsyncSession, actor: Actor, tenant_id: UUID) -> None:
    """Nothing is sent any more. Raises NotFound."""
    await session.delete(await find_endpoint(session, tenant_id))
    record(session, actor, "alerts.remove", tenant_id=tenant_id, target=f"tenant:{tenant_id}")


async def find_endpoint(session: AsyncSession, tenant_id: UUID) -> AlertEndpoint:
    """Raises NotFound."""
    row = await session.get(AlertEndpoint, tenant_id)
    if row is None:
        raise NotFound("no endpoint is set")
    return row


def _is_private_literal(host: str) -> bool:
    try:
        return not is_public(host)
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))
