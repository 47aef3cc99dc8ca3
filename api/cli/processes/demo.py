"""The demo: a tenant with a user, an admin, and a small plan, made once, so that a newcomer has something to try.

Its keys are in the home folder's `demo.json`, readable by its owner only. The operator's own key belongs to a tenant
of its own, `operator`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.catalogue.plans import Price, find_plan, list_plans, publish_plan, put_on_plan
from billing.catalogue.profiles import Profile, Supplier, find_profile, find_supplier, set_profile, set_supplier
from billing.gst.gstin import check_character
from billing.rating.overage import Meter, MeterTerms, PastAllowance, Terms
from core.errors import NotFound
from core.postgres.database import Database
from core.tenancy.accounts import create_key, create_tenant, create_user, find_tenant
from core.tenancy.audit import Actor
from core.tenancy.directory import Directory
from core.tenancy.models import User
from core.tenancy.principal import Scope, Unauthenticated
from metering.quota.limits import Limit, LimitSet, PlanLimits
from metering.quota.limits import Meter as Limited
from metering.quota.windows import WindowKind

_ACTOR = Actor("cli:naka up")
_LIMITS = PlanLimits(
    user=LimitSet(
        (
            Limit(Limited.REQUESTS, WindowKind.MINUTE, 60),
            Limit(Limited.TOKENS, WindowKind.DAY, 200_000),
        ),
        concurrency=10,
    ),
    tenant=LimitSet((Limit(Limited.SPEND, WindowKind.PERIOD, 20_000_000),), concurrency=100),
)
_FREE = {
    Meter.INPUT_TOKENS: (1_000_000, 0),
    Meter.OUTPUT_TOKENS: (200_000, 0),
    Meter.CACHE_READ_TOKENS: (1_000_000, 0),
    Meter.CACHE_WRITE_TOKENS: (200_000, 0),
}
_STARTER = {
    Meter.INPUT_TOKENS: (3_000_000, 40_000),
    Meter.OUTPUT_TOKENS: (600_000, 200_000),
    Meter.CACHE_READ_TOKENS: (3_000_000, 4_000),
    Meter.CACHE_WRITE_TOKENS: (600_000, 50_000),
}
_TEAM = {
    Meter.INPUT_TOKENS: (10_000_000, 35_000),
    Meter.OUTPUT_TOKENS: (2_000_000, 175_000),
    Meter.CACHE_READ_TOKENS: (10_000_000, 3_500),
    Meter.CACHE_WRITE_TOKENS: (2_000_000, 44_000),
}
"""What each includes a month, and the paise for a million units past that."""


def _price(base_paise: int, meters: Mapping[Meter, tuple[int, int]], ceiling_paise: int | None) -> Price:
    priced = tuple(MeterTerms(meter, allowance, rate) for meter, (allowance, rate) in meters.items())
    past = PastAllowance.BLOCK if ceiling_paise is None else PastAllowance.BILL
    return Price(base_paise, Terms(priced, past, ceiling_paise), when_unpaid="free")


_CATALOGUE: tuple[dict[str, Any], ...] = (
    {"code": "free", "name": "Free", "price": _price(0, _FREE, None)},
    {"code": "starter", "name": "Starter", "price": _price(99_900, _STARTER, 500_000)},
    {"code": "team", "name": "Team", "price": _price(299_900, _TEAM, 2_000_000)},
)
_OPERATOR = Supplier(
    legal_name="Sample Supplier Private Limited",
    lines=("1 Residency Road",),
    city="Bengaluru",
    postal_code="560025",
    state="29",
    gstin="29AAACS0000A1Z" + check_character("29AAACS0000A1Z"),
    email="accounts@supplier.example",
)
_CUSTOMER = Profile(
    legal_name="Demo Customer Private Limited",
    lines=("2 Marine Drive",),
    city="Mumbai",
    postal_code="400020",
    country="IN",
    email="billing@demo.example",
    state="27",
)
_KEYS = {
    "chat_key": [Scope.CHAT, Scope.USAGE_READ],
    "tenant_admin_key": [Scope.TENANT_ADMIN, Scope.CHAT, Scope.USAGE_READ],
    "platform_admin_key": [Scope.PLATFORM_ADMIN],
}
"""An admin hands out only scopes that its own key has, so the tenant's has all that its users need."""


async def demo_keys(database: Database, known: Mapping[str, str], zone: ZoneInfo) -> dict[str, str]:
    """The demo's three keys: those that are `known`, as far as they still are good, else new ones."""
    async with database.session() as session:
        await _sample(session, zone)
    directory = Directory(database, ttl_s=0)
    keys = {name: known[name] for name in _KEYS if name in known and await _is_good(directory, known[name], name)}
    if len(keys) == len(_KEYS):
        return keys
    async with database.session() as session:
        demo = await _user(session, "demo", "Demo", "ada")
        admin = await _user(session, "demo", "Demo", "grace")
        operator = await _user(session, "operator", "The operator", "root")
        wanted = {
            "chat_key": demo,
            "tenant_admin_key": admin,
            "platform_admin_key": operator,
        }
        for name, user in wanted.items():
            if name not in keys:
                scopes = _KEYS[name]
                _, secret = await create_key(
                    session, _ACTOR, user, name="naka up", scopes=scopes, models=None, expires_at=None, live=False
                )
                keys[name] = secret.plaintext
    return keys


async def _is_good(directory: Directory, key: str, name: str) -> bool:
    """Whether a known key still is good, and has the scopes of today: an earlier version gave some fewer."""
    try:
        principal = await directory.authenticate(key, fresh=True)
    except Unauthenticated:
        return False
    return principal.scopes >= set(_KEYS[name])


async def _catalogue(session: AsyncSession) -> None:
    """What is missing of the sample: a database of one's own keeps its plans of these names, and its supplier."""
    if await find_supplier(session) is None:
        await set_supplier(session, _ACTOR, _OPERATOR)
    known = {plan.code for plan in await list_plans(session)}
    for plan in _CATALOGUE:
        if plan["code"] not in known:
            await publish_plan(session, _ACTOR, limits=_LIMITS, **plan)


async def _sample(session: AsyncSession, zone: ZoneInfo) -> None:
    """The catalogue, and the demo's tenant on its free plan.

    A tenant that an earlier version made stays on the plan it has: it may have limits that somebody relies on.
    """
    await _catalogue(session)
    tenant_id, is_new = await _tenant(session, "demo", "Demo")
    if await find_profile(session, tenant_id) is None:
        await set_profile(session, _ACTOR, tenant_id, _CUSTOMER)
    if is_new:
        await put_on_plan(session, _ACTOR, tenant_id, await find_plan(session, "free"), zone)


async def _tenant(session: AsyncSession, slug: str, name: str) -> tuple[UUID, bool]:
    """The tenant, and whether it was made just now."""
    try:
        return (await find_tenant(session, slug)).id, False
    except NotFound:
        return (await create_tenant(session, _ACTOR, slug=slug, name=name)).id, True


async def _user(session: AsyncSession, slug: str, name: str, external_id: str) -> User:
    """The user, made with its tenant where they are missing."""
    tenant_id, _ = await _tenant(session, slug, name)
    found = await session.scalar(select(User).where(User.tenant_id == tenant_id, User.external_id == external_id))
    return found or await create_user(session, _ACTOR, tenant_id, external_id=external_id)


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    fresh = path.with_suffix(path.suffix + ".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
