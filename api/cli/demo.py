"""The demo: a tenant with a user, an admin, and a small plan, made once, so that a newcomer has something to try.

Its keys are in the home folder's `demo.json`, readable by its owner only. The operator's own key belongs to a tenant
of its own, `operator`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.plans import publish_plan, put_on_plan
from core.database import Database
from core.errors import NotFound
from core.tenancy.accounts import create_key, create_tenant, create_user, find_tenant
from core.tenancy.audit import Actor
from core.tenancy.directory import Directory
from core.tenancy.models import User
from core.tenancy.principal import Scope, Unauthenticated
from metering.limits import Limit, LimitSet, Meter, PlanLimits
from metering.windows import WindowKind

_ACTOR = Actor("cli:naka up")
_LIMITS = PlanLimits(
    user=LimitSet(
        (
            Limit(Meter.REQUESTS, WindowKind.MINUTE, 60),
            Limit(Meter.TOKENS, WindowKind.DAY, 200_000),
        ),
        concurrency=10,
    ),
    tenant=LimitSet((Limit(Meter.SPEND, WindowKind.PERIOD, 20_000_000),), concurrency=100),
)
_KEYS = ("chat_key", "tenant_admin_key", "platform_admin_key")


async def demo_keys(database: Database, known: Mapping[str, str]) -> dict[str, str]:
    """The demo's three keys: those that are `known`, as far as they still are good, else new ones."""
    directory = Directory(database, ttl_s=0)
    keys = {name: known[name] for name in _KEYS if name in known and await _is_good(directory, known[name])}
    if len(keys) == len(_KEYS):
        return keys
    async with database.session() as session:
        demo = await _user(session, "demo", "Demo", "ada")
        admin = await _user(session, "demo", "Demo", "grace")
        operator = await _user(session, "operator", "The operator", "root")
        wanted = {
            "chat_key": (demo, [Scope.CHAT, Scope.USAGE_READ]),
            "tenant_admin_key": (admin, [Scope.TENANT_ADMIN, Scope.USAGE_READ]),
            "platform_admin_key": (operator, [Scope.PLATFORM_ADMIN]),
        }
        for name, (user, scopes) in wanted.items():
            if name not in keys:
                _, secret = await create_key(
                    session, _ACTOR, user, name="naka up", scopes=scopes, models=None, expires_at=None, live=False
                )
                keys[name] = secret.plaintext
    return keys


async def _is_good(directory: Directory, key: str) -> bool:
    try:
        await directory.authenticate(key, fresh=True)
    except Unauthenticated:
        return False
    return True


async def _user(session: AsyncSession, slug: str, name: str, external_id: str) -> User:
    """The user, made with its tenant where they are missing; the demo's tenant is put on the demo's plan."""
    try:
        tenant_id: UUID = (await find_tenant(session, slug)).id
    except NotFound:
        tenant_id = (await create_tenant(session, _ACTOR, slug=slug, name=name)).id
        if slug == "demo":
            plan = await publish_plan(session, _ACTOR, code="demo", name="Demo", limits=_LIMITS)
            await put_on_plan(session, _ACTOR, tenant_id, plan)
    found = await session.scalar(select(User).where(User.tenant_id == tenant_id, User.external_id == external_id))
    return found or await create_user(session, _ACTOR, tenant_id, external_id=external_id)


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    fresh = path.with_suffix(path.suffix + ".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
