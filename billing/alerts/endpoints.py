"""Where a tenant hears of its alerts: one URL, and the secret that signs what is sent there.

The URL is the tenant's, the call is ours: so in production only https to a public address is called
(`billing.alerts.public_addresses`), and no redirect is followed. A URL is read by the library that will call it, so
that the two cannot understand it differently. A secret is shown once, when it is made; while
it is rotated both sign. Postgres away: Unavailable.
"""

import base64
import re
import secrets
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from yarl import URL

from billing.alerts.public_addresses import is_public, literal
from billing.models import AlertEndpoint
from core.clock import now_ms
from core.errors import Invalid, NotFound
from core.tenancy.audit import Actor, record

SECRET_BYTES = 32
MAX_URL = 500
_AUTHORITY_ENDS = re.compile(r"[/?#]")
_HTTPS = 443
_UNPRIVILEGED = 1024
_PRIVATE_NAMES = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".onion")


def written(secret: bytes) -> str:
    """A secret as the Standard Webhooks libraries take it."""
    return "whsec_" + base64.b64encode(secret).decode()


def checked_url(url: str, *, production: bool) -> str:
    """The URL, if it may be called. Raises Invalid."""
    try:
        parts = URL(url)
        host, port = parts.host, parts.port
    except ValueError as error:
        raise Invalid("this is not a URL") from error
    if parts.scheme not in {"http", "https"} or not host or not port or len(url) > MAX_URL or not url.isprintable():
        raise Invalid("an endpoint is an http or https URL")
    authority = _AUTHORITY_ENDS.split(url.partition("//")[2], maxsplit=1)[0]
    if "@" in authority or "%" in authority or "#" in url:
        raise Invalid("an endpoint's URL has no user, password or fragment: what is sent is signed")
    if production and parts.scheme != "https":
        raise Invalid("an endpoint is https")
    if production and port != _HTTPS and port < _UNPRIVILEGED:
        raise Invalid("an endpoint's port is 443, or 1024 and above")
    if production and not _may_be_public(host):
        raise Invalid("an endpoint is at a public address")
    return url


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


def _may_be_public(host: str) -> bool:
    """Whether a host is a public address, or a name that may have one: that is seen when it is called."""
    address = literal(host)
    if address is not None:
        return is_public(address)
    name = host.lower().removesuffix(".")
    return "." in name and not name.endswith(_PRIVATE_NAMES)
