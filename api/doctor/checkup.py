"""Runs every check."""

import asyncio
from collections.abc import Awaitable, Callable

from api.doctor import books, host, providers, stores
from api.doctor.findings import CHECK_S, Checkup, Finding, Verdict
from core.settings import Settings


async def examine(settings: Settings) -> list[Finding]:
    """The findings of every check, run in the order of their dependencies."""
    checkup = Checkup(settings)
    try:
        for name, check, needs in _CHECKS:
            missing = next((each for each in needs if not getattr(checkup, each)), None)
            if missing is not None:
                words = {"has_schema": "the schema", "postgres": "Postgres", "redis": "Redis"}[missing]
                checkup.findings.append(Finding(name, Verdict.UNCHECKED, f"it needs {words}"))
                continue
            await _within(checkup, name, check)
    finally:
        if checkup.postgres is not None:
            await checkup.postgres.close(timeout=CHECK_S)
        if checkup.redis is not None:
            await checkup.redis.aclose()
    return checkup.findings


async def _within(checkup: Checkup, name: str, check: Callable[[Checkup], Awaitable[None]]) -> None:
    try:
        async with asyncio.timeout(CHECK_S):
            await check(checkup)
    except TimeoutError:
        checkup.fault(name, f"no answer within {CHECK_S} s", "check the network between this host and the server")
    except Exception as error:  # noqa: BLE001 - the other checks run whatever fails
        checkup.fault(name, f"could not be checked: {type(error).__name__}", "check the server's log")


_CHECKS: list[tuple[str, Callable[[Checkup], Awaitable[None]], tuple[str, ...]]] = [
    ("settings", host.settings, ()),
    ("file descriptors", host.descriptors, ()),
    ("Postgres", stores.postgres, ()),
    ("writable", stores.writable, ("postgres",)),
    ("pooler", stores.pooler, ("postgres",)),
    ("durability", stores.durability, ("postgres",)),
    ("connections", stores.connections, ("postgres",)),
    ("schema", stores.schema, ("postgres",)),
    ("database role", stores.database_role, ("postgres", "has_schema")),
    ("privileges", stores.privileges, ("postgres", "has_schema")),
    ("Redis", stores.redis, ()),
    ("eviction", stores.eviction, ("redis",)),
    ("clocks", stores.clocks, ("postgres", "redis")),
    ("months", books.months, ("postgres", "has_schema")),
    ("prices", books.prices, ("postgres", "has_schema")),
    ("plans", books.tenant_plans, ("postgres", "has_schema")),
    ("operator's key", books.operator_key, ("postgres", "has_schema")),
    ("processes", books.processes, ("postgres", "has_schema")),
    ("operator's profile", books.supplier, ("postgres", "has_schema")),
    ("webhooks", books.inbox, ("postgres", "has_schema")),
    ("spool", host.spool, ()),
    ("Anthropic", providers.anthropic, ()),
    ("Razorpay", providers.razorpay, ()),
    ("sign-in", providers.sign_in, ()),
]
