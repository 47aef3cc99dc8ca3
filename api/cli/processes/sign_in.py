"""`naka sign-in`: one-time links into the pages of a running `naka up`, one for each role of its demo."""

import asyncio
import json
from collections.abc import Mapping

import typer

from api.cli.command import HOME, load_settings
from api.services.accounts.sign_in_links import LINK_TTL_S, make_link
from core.errors import NotFound
from core.postgres.database import Database
from core.redis.client import connect_redis
from core.settings import Settings, SettingsError
from core.tenancy.directory import Directory

LINKS_FOR_MIN = LINK_TTL_S // 60
_ROLES = (
    ("Tenant admin", "tenant_admin_key", "/account"),
    ("User", "chat_key", "/"),
    ("Operator", "platform_admin_key", "/operator"),
)
"""Each role of the demo, its key in `demo.json`, and the page that its link opens."""


def sign_in() -> None:
    """Print one-time sign-in links for the demo of `naka up`. It runs in this folder."""
    settings = load_settings()
    if settings.is_production:
        raise SettingsError("sign-in links are for development, and NAKA_ENV is production")
    try:
        demo: dict[str, str] = json.loads((HOME / "demo.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        raise NotFound(f"there is no {HOME / 'demo.json'}: start `naka up` in this folder first") from None
    for role, link in asyncio.run(demo_links(settings, demo["url"], demo)):
        typer.echo(f"{role:13} {link}")


async def demo_links(settings: Settings, url: str, keys: Mapping[str, str]) -> list[tuple[str, str]]:
    """A new link for each role. Raises Unavailable, and Unauthenticated when a key was revoked."""
    database, redis = Database(settings.postgres, pool_size=1), connect_redis(settings.redis_url, timeout_s=2)
    directory = Directory(database, ttl_s=0)
    try:
        return [
            (role, f"{url}{await make_link(redis, await directory.authenticate(keys[name]))}?next={page}")
            for role, name, page in _ROLES
        ]
    finally:
        await redis.aclose()
        await database.close()
