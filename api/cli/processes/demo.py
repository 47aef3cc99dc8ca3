"""The demo data of `naka up`: plans, a tenant with a user and an admin, and an operator's key. Created once.

The keys are in the home folder's `demo.json`, readable by its owner only. The operator's key belongs to a separate
tenant, `operator`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.cli.processes.month import DEMO, Customer
from billing.catalogue.plans import Price, find_plan, give_default_plan, list_plans, publish_plan, put_on_plan
from billing.catalogue.profiles import Supplier, find_profile, find_supplier, set_profile, set_supplier
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

ACTOR = Actor("cli:naka up")


def _limits(tokens_a_day: int, spend_micro_usd: int) -> PlanLimits:
    """Of each user: requests a minute and tokens a day. Of the tenant: the provider's cost in a period."""
    return PlanLimits(
        user=LimitSet(
            (Limit(Limited.REQUESTS, WindowKind.MINUTE, 60), Limit(Limited.TOKENS, WindowKind.DAY, tokens_a_day)),
            concurrency=10,
        ),
        tenant=LimitSet((Limit(Limited.SPEND, WindowKind.PERIOD, spend_micro_usd),), concurrency=100),
    )


_METERS = (Meter.INPUT_TOKENS, Meter.OUTPUT_TOKENS, Meter.CACHE_READ_TOKENS, Meter.CACHE_WRITE_TOKENS)


def _price(
    base_paise: int,
    ceiling_paise: int | None,
    *terms: tuple[int, int],
    past: PastAllowance | None = None,
    threshold_paise: int | None = None,
) -> Price:
    """`terms` of each meter: the units included a month, and the overage price in paise per million units."""
    priced = tuple(MeterTerms(meter, *each) for meter, each in zip(_METERS, terms, strict=True))
    past = past or (PastAllowance.BLOCK if ceiling_paise is None else PastAllowance.BILL)
    when_unpaid: Literal["block", "free"] = "block" if past is PastAllowance.PREPAID else "free"
    return Price(
        base_paise, Terms(priced, past, ceiling_paise), when_unpaid=when_unpaid, threshold_paise=threshold_paise
    )


_FREE = _price(0, None, (1_000_000, 0), (200_000, 0), (1_000_000, 0), (200_000, 0))
_STARTER = _price(99_900, 500_000, (3_000_000, 40_000), (600_000, 200_000), (3_000_000, 4_000), (600_000, 50_000))
_TEAM = _price(299_900, 2_000_000, (10_000_000, 35_000), (2_000_000, 175_000), (10_000_000, 3_500), (2_000_000, 44_000))
_METERED_TERMS = ((0, 45_000), (0, 225_000), (0, 4_500), (0, 55_000))
_METERED = _price(0, 1_000_000, *_METERED_TERMS, threshold_paise=30_000)
_PREPAID = _price(0, None, *_METERED_TERMS, past=PastAllowance.PREPAID)
_CATALOGUE = {
    "free": ("Free", _FREE, _limits(200_000, 20_000_000)),
    "starter": ("Starter", _STARTER, _limits(500_000, 60_000_000)),
    "team": ("Team", _TEAM, _limits(2_000_000, 300_000_000)),
    "metered": ("Metered", _METERED, _limits(100_000, 60_000_000)),
    "prepaid": ("Prepaid", _PREPAID, _limits(500_000, 60_000_000)),
}
DEMO_PLAN = "free"
"""The plan of tenants without a subscription."""
_OPERATOR = Supplier(
    legal_name="Sample Supplier Private Limited",
    lines=("1 Residency Road",),
    city="Bengaluru",
    postal_code="560025",
    state="29",
    gstin="29AAACS0000A1Z" + check_character("29AAACS0000A1Z"),
    email="accounts@supplier.example",
)
USER_SCOPES, ADMIN_SCOPES = [Scope.CHAT, Scope.USAGE_READ], [Scope.TENANT_ADMIN, Scope.CHAT, Scope.USAGE_READ]
"""An admin grants only scopes of its own key, so the tenant's admin key has those of its users."""
_KEYS = {
    "chat_key": USER_SCOPES,
    "tenant_admin_key": ADMIN_SCOPES,
    "platform_admin_key": [Scope.PLATFORM_ADMIN],
}


async def demo_keys(database: Database, known: Mapping[str, str], zone: ZoneInfo) -> dict[str, str]:
    """The demo's three keys: the `known` ones that are still valid, and new ones for the rest."""
    async with database.session() as session:
        await _sample(session, zone)
    directory = Directory(database, ttl_s=0)
    keys = {name: known[name] for name in _KEYS if name in known and await _is_valid(directory, known[name], name)}
    if len(keys) == len(_KEYS):
        return keys
    async with database.session() as session:
        users = {
            "chat_key": await _user(session, DEMO.slug, DEMO.name, "ada"),
            "tenant_admin_key": await _user(session, DEMO.slug, DEMO.name, "grace"),
            "platform_admin_key": await _user(session, "operator", "The operator", "root"),
        }
        for name, scopes in _KEYS.items():
            if name not in keys:
                keys[name] = await demo_key(session, users[name], scopes, name="naka up")
    return keys


async def demo_tenant(session: AsyncSession, customer: Customer, zone: ZoneInfo) -> UUID:
    """The customer's tenant, on its own plan if it is new; creates what is missing of it. The rest stays."""
    tenant_id, is_new = await _tenant(session, customer.slug, customer.name)
    if await find_profile(session, tenant_id) is None:
        await set_profile(session, ACTOR, tenant_id, customer.profile)
    if is_new:
        await put_on_plan(session, ACTOR, tenant_id, await find_plan(session, customer.own_plan), zone)
    return tenant_id


async def demo_key(session: AsyncSession, user: User, scopes: list[Scope], *, name: str) -> str:
    """A new key of a user, in plain text."""
    _, secret = await create_key(
        session, ACTOR, user, name=name, scopes=scopes, models=None, expires_at=None, live=False
    )
    return secret.plaintext


async def _is_valid(directory: Directory, key: str, name: str) -> bool:
    """Whether a key is valid and has this version's scopes: earlier versions granted fewer."""
    try:
        principal = await directory.authenticate(key, fresh=True)
    except Unauthenticated:
        return False
    return principal.scopes >= set(_KEYS[name])


async def _sample(session: AsyncSession, zone: ZoneInfo) -> None:
    """Adds what is missing of the supplier, the plans, and the demo's tenant on the free plan. The rest stays."""
    if await find_supplier(session) is None:
        await set_supplier(session, ACTOR, _OPERATOR)
    known = {plan.code for plan in await list_plans(session)}
    for code, (name, price, limits) in _CATALOGUE.items():
        if code not in known:
            await publish_plan(session, ACTOR, code=code, name=name, limits=limits, price=price)
    await demo_tenant(session, DEMO, zone)
    operator_id, _ = await _tenant(session, "operator", "The operator")
    await give_default_plan(session, ACTOR, operator_id, DEMO_PLAN, zone)


async def _tenant(session: AsyncSession, slug: str, name: str) -> tuple[UUID, bool]:
    """The tenant, and whether it is new."""
    try:
        return (await find_tenant(session, slug)).id, False
    except NotFound:
        return (await create_tenant(session, ACTOR, slug=slug, name=name)).id, True


async def _user(session: AsyncSession, slug: str, name: str, external_id: str) -> User:
    """The user; creates it and its tenant if missing."""
    tenant_id, _ = await _tenant(session, slug, name)
    found = await session.scalar(select(User).where(User.tenant_id == tenant_id, User.external_id == external_id))
    return found or await create_user(session, ACTOR, tenant_id, external_id=external_id)


def write_private(path: Path, text: str) -> None:
    """Writes a file atomically, readable by its owner only."""
    fresh = path.with_suffix(path.suffix + ".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
