"""A tenant's endpoint for alerts: one URL, and the secret that signs its messages.

In production only https to a public address is called, without redirects. The URL is parsed by the library that calls
it, so that both read it alike. A secret is shown once; during a rotation the old and the new one sign.
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


def encode_secret(secret: bytes) -> str:
    """The secret in the format of the Standard Webhooks libraries."""
    return "whsec_" + base64.b64encode(secret).decode()


def checked_url(url: str, *, production: bool) -> str:
    """The URL, if it is allowed. Raises Invalid."""
    try:
        parts = URL(url)
        host, port = parts.host, parts.port
    except ValueError as error:
        raise Invalid("not a valid URL") from error
    if parts.scheme not in {"http", "https"} or not host or not port or len(url) > MAX_URL or not url.isprintable():
        raise Invalid("the endpoint must be an http or https URL")
    authority = _AUTHORITY_ENDS.split(url.partition("//")[2], maxsplit=1)[0]
    if "@" in authority or "%" in authority or "#" in url:
        raise Invalid("the endpoint's URL must not contain a user, password or fragment")
    if production and parts.scheme != "https":
        raise Invalid("the endpoint must use https")
    if production and port != _HTTPS and port < _UNPRIVILEGED:
        raise Invalid("the endpoint's port must be 443, or 1024 or above")
    if production and not _may_be_public(host):
        raise Invalid("the endpoint must have a public address")
    return url


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


def _may_be_public(host: str) -> bool:
    """Whether a host is a public address, or a name that may have one; the call checks its addresses."""
    address = literal(host)
    if address is not None:
        return is_public(address)
    name = host.lower().removesuffix(".")
    return "." in name and not name.endswith(_PRIVATE_NAMES)
