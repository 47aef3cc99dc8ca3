"""All checks, one after the other."""

import asyncio
from collections.abc import Awaitable, Callable

from api.doctor import books, process, providers, roles, stores
from api.doctor.findings import CHECK_S, Checkup, Finding, Verdict
from core.settings import Settings


async def examine(settings: Settings) -> list[Finding]:
    """All checks, in the order in which they lean on each other."""
    patient = Checkup(settings)
    try:
        for name, check, leans_on in _CHECKS:
            missing = next((each for each in leans_on if not getattr(patient, each)), None)
            if missing is not None:
                words = {"has_schema": "the schema", "postgres": "Postgres", "redis": "Redis"}[missing]
                patient.findings.append(Finding(name, Verdict.UNCHECKED, f"it needs {words}"))
                continue
            await _within(patient, name, check)
    finally:
        if patient.postgres is not None:
            await patient.postgres.close(timeout=CHECK_S)
        if patient.redis is not None:
            await patient.redis.aclose()
    return patient.findings


async def _within(patient: Checkup, name: str, check: Callable[[Checkup], Awaitable[None]]) -> None:
    try:
        async with asyncio.timeout(CHECK_S):
            await check(patient)
    except TimeoutError:
        patient.fault(name, f"no answer within {CHECK_S} s", "look at the network between here and there")
    except Exception as error:  # noqa: BLE001 - whatever breaks, the other checks are made
        patient.fault(name, f"it could not be checked: {type(error).__name__}", "look at the server's own log")


_CHECKS: list[tuple[str, Callable[[Checkup], Awaitable[None]], tuple[str, ...]]] = [
    ("settings", providers.settings, ()),
    ("file descriptors", process.descriptors, ()),
    ("Postgres", stores.postgres, ()),
    ("writable", stores.writable, ("postgres",)),
    ("pooler", stores.pooler, ("postgres",)),
    ("durability", stores.durability, ("postgres",)),
    ("connections", stores.connections, ("postgres",)),
    ("schema", stores.schema, ("postgres",)),
    ("database role", roles.database_role, ("postgres", "has_schema")),
    ("privileges", roles.privileges, ("postgres", "has_schema")),
    ("Redis", stores.redis, ()),
    ("eviction", stores.eviction, ("redis",)),
    ("clocks", stores.clocks, ("postgres", "redis")),
    ("months", books.months, ("postgres", "has_schema")),
    ("prices", books.prices, ("postgres", "has_schema")),
    ("operator's key", books.operator_key, ("postgres", "has_schema")),
    ("processes", books.processes, ("postgres", "has_schema")),
    ("operator's profile", books.supplier, ("postgres", "has_schema")),
    ("webhooks", books.inbox, ("postgres", "has_schema")),
    ("spool", providers.spool, ()),
    ("Anthropic", providers.anthropic, ()),
    ("Razorpay", providers.razorpay, ()),
]
