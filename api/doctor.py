"""What is wrong with a set-up, and how to mend it: every check that can be made is made, each within a few seconds.

A check that leans on a server that is not there is `not checked`, not a fault of its own. No check changes anything,
and no secret is ever in what it says: of an error only its kind is told, unless the text is ours.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.upstream import ChatPrompt, Upstream
from billing.razorpay import Razorpay
from core.clock import now_ms
from core.database import asyncpg_dsn
from core.settings import Settings, SettingsError
from metering.gauges import read_gauges
from metering.partitions import months_around
from metering.spool import waiting
from migrations.upgrade import newest_revision

_CHECK_S = 6
_OLDEST_POSTGRES = 15
_OLDEST_REDIS = 7
_SKEW_S = 2.0
_LATE_S = 2 * 3600
_BOOKS_S = 2 * 86_400
_POOL_OVERHEAD = 6  # connections of a process beside its pool: journal lanes, fallback, listening


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    UNCHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what it says, and what mends it."""

    name: str
    verdict: Verdict
    says: str
    mend: str = ""


@dataclass(slots=True)
class _Patient:
    settings: Settings
    postgres: Any = None
    redis: Any = None
    has_schema: bool = False
    findings: list[Finding] = field(default_factory=list)

    def ok(self, name: str, says: str) -> None:
        """It is well."""
        self.findings.append(Finding(name, Verdict.OK, says))

    def warn(self, name: str, says: str, mend: str) -> None:
        """It works, and may not for long."""
        self.findings.append(Finding(name, Verdict.WARNING, says, mend))

    def fault(self, name: str, says: str, mend: str) -> None:
        """It does not work."""
        self.findings.append(Finding(name, Verdict.FAULT, says, mend))

    def judge(self, name: str, *, good: bool, says: str, otherwise: str, mend: str, is_fault: bool = True) -> None:
        """One or the other."""
        if good:
            self.ok(name, says)
        else:
            (self.fault if is_fault else self.warn)(name, otherwise, mend)


async def examine(settings: Settings) -> list[Finding]:
    """All checks, in the order in which they lean on each other."""
    patient = _Patient(settings)
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
            await patient.postgres.close(timeout=_CHECK_S)
        if patient.redis is not None:
            await patient.redis.aclose()
    return patient.findings


async def _within(patient: _Patient, name: str, check: Callable[[_Patient], Awaitable[None]]) -> None:
    try:
        async with asyncio.timeout(_CHECK_S):
            await check(patient)
    except TimeoutError:
        patient.fault(name, f"no answer within {_CHECK_S} s", "look at the network between here and there")
    except Exception as error:  # noqa: BLE001 - whatever breaks, the other checks are made
        patient.fault(name, f"it could not be checked: {type(error).__name__}", "look at the server's own log")


async def _mode(patient: _Patient) -> None:
    settings = patient.settings
    try:
        settings.require_servers()
    except SettingsError as error:
        patient.fault("settings", str(error), "set it in the environment, or in .env in development")
        return
    patient.ok("settings", f"complete for {settings.naka_env}")


async def _postgres(patient: _Patient) -> None:
    if not patient.settings.database_url:
        patient.fault("Postgres", "DATABASE_URL is not set", "set it, or run `naka up` in this folder")
        return
    try:
        patient.postgres = await asyncpg.connect(asyncpg_dsn(patient.settings.database_url), timeout=_CHECK_S)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, TimeoutError) as error:
        patient.fault("Postgres", f"cannot be reached: {type(error).__name__}", "look at DATABASE_URL")
        return
    version = patient.postgres.get_server_version()
    patient.judge(
        "Postgres",
        good=version.major >= _OLDEST_POSTGRES,
        says=f"version {version.major}.{version.minor}",
        otherwise=f"version {version.major} is older than {_OLDEST_POSTGRES}",
        mend=f"use Postgres {_OLDEST_POSTGRES} or newer",
    )


async def _durable(patient: _Patient) -> None:
    names = ("fsync", "synchronous_commit", "full_page_writes")
    off = [name for name in names if await patient.postgres.fetchval(f"SHOW {name}") == "off"]
    patient.judge(
        "durability",
        good=not off,
        says="a commit lasts",
        otherwise=f"off: {', '.join(off)}; a crash may lose what was counted",
        mend="switch it on in postgresql.conf; only tests may do without",
        is_fault=patient.settings.naka_env == "production",
    )


async def _connections(patient: _Patient) -> None:
    most = int(await patient.postgres.fetchval("SHOW max_connections"))
    each = patient.settings.database_pool_size + _POOL_OVERHEAD
    patient.judge(
        "connections",
        good=most >= 3 * each,
        says=f"{most} allowed, about {each} a process",
        otherwise=f"only {most} allowed, and each process takes about {each}",
        mend="raise max_connections, or lower DATABASE_POOL_SIZE",
        is_fault=False,
    )


async def _schema(patient: _Patient) -> None:
    wanted = newest_revision()
    try:
        found = await patient.postgres.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        found = None
    patient.has_schema = found == wanted
    patient.judge(
        "schema",
        good=patient.has_schema,
        says=f"revision {found}",
        otherwise=f"revision {found or 'none'}, and this version needs {wanted}",
        mend="run `naka migrate`",
    )


async def _redis(patient: _Patient) -> None:
    if not patient.settings.redis_url:
        patient.fault("Redis", "REDIS_URL is not set", "set it, or run `naka up` in this folder")
        return
    try:
        redis = Redis.from_url(patient.settings.redis_url, socket_connect_timeout=_CHECK_S, socket_timeout=_CHECK_S)
        info = await redis.info()
    except (RedisError, OSError, ValueError) as error:
        patient.fault("Redis", f"cannot be reached: {type(error).__name__}", "look at REDIS_URL")
        return
    patient.redis = redis
    version = str(info.get("redis_version", "0"))
    if info.get("role") == "slave":
        patient.fault("Redis", "it is a replica, which takes no writes", "point REDIS_URL at the primary")
        return
    patient.judge(
        "Redis",
        good=int(version.partition(".")[0]) >= _OLDEST_REDIS,
        says=f"version {version}",
        otherwise=f"version {version} is older than {_OLDEST_REDIS}",
        mend=f"use Redis {_OLDEST_REDIS} or Valkey",
    )


async def _eviction(patient: _Patient) -> None:
    info = await patient.redis.info("memory")
    policy = str(info.get("maxmemory_policy", "noeviction"))
    patient.judge(
        "eviction",
        good=policy == "noeviction" or not int(info.get("maxmemory", 0)),
        says="counters are not evicted",
        otherwise=f"{policy}: evicted counters are rebuilt from Postgres, which costs time when memory is short",
        mend="set maxmemory-policy noeviction",
        is_fault=False,
    )


async def _clocks(patient: _Patient) -> None:
    began = time.time()
    theirs = float(await patient.postgres.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))
    seconds, micro = await patient.redis.time()
    here = (began + time.time()) / 2
    skew = max(abs(theirs - here), abs(seconds + micro / 1_000_000 - here))
    patient.judge(
        "clocks",
        good=skew < _SKEW_S,
        says=f"here, Postgres and Redis agree within {skew:.1f} s",
        otherwise=f"they differ by {skew:.0f} s, and so do the ends of days and periods",
        mend="run a time service (chrony) on each host",
        is_fault=False,
    )


async def _months(patient: _Patient) -> None:
    wanted = [name for name, *_ in months_around(now_ms())][1:3]
    missing = [name for name in wanted if await patient.postgres.fetchval("SELECT to_regclass($1)", name) is None]
    patient.judge(
        "months",
        good=not missing,
        says="this month and the next have their tables",
        otherwise=f"missing: {', '.join(missing)}",
        mend="run `naka worker`, which makes them ahead of time",
    )


async def _price(patient: _Patient) -> None:
    model = patient.settings.chat_model
    known = await patient.postgres.fetchval("SELECT EXISTS (SELECT FROM prices WHERE model = $1)", model)
    patient.judge(
        "prices",
        good=bool(known),
        says=f"the list knows {model}",
        otherwise=f"the list does not know CHAT_MODEL {model}: every request is refused",
        mend="naka price add, or set another CHAT_MODEL",
    )


async def _operator(patient: _Patient) -> None:
    query = "SELECT EXISTS (SELECT FROM api_keys WHERE 'platform:admin' = ANY (scopes) AND revoked_at IS NULL)"
    patient.judge(
        "operator's key",
        good=bool(await patient.postgres.fetchval(query)),
        says="there is one",
        otherwise="nobody has a key with platform:admin",
        mend="naka key create USER_ID operator --scope platform:admin",
        is_fault=False,
    )


async def _processes(patient: _Patient) -> None:
    gauges = await read_gauges(patient.postgres, dead_after_s=patient.settings.dead_after_s)
    patient.judge(
        "API",
        good=gauges.living_processes > 0,
        says=f"{gauges.living_processes} processes serve",
        otherwise="no process serves",
        mend="run `naka serve`",
        is_fault=False,
    )
    late = gauges.worker_overdue_s
    patient.judge(
        "worker",
        good=late is not None and late < _LATE_S,
        says="it does its hourly work",
        otherwise="none ever ran" if late is None else f"its hourly work waits for {int(late // 3600)} h",
        mend="run `naka worker`",
    )
    if gauges.age_s is None or gauges.age_s > _BOOKS_S:
        patient.warn("books", "they were not checked for two days", "run `naka reconcile`; a worker does it each night")
    else:
        patient.judge(
            "books",
            good=not gauges.drifts,
            says="the last check found no drift",
            otherwise=f"the last check found {gauges.drifts} drifts",
            mend="run `naka reconcile`, and see what it says of mending",
        )


async def _inbox(patient: _Patient) -> None:
    query = "SELECT count(*) FROM webhook_events WHERE state = 'parked'"
    parked = int(await patient.postgres.fetchval(query))
    patient.judge(
        "webhooks",
        good=not parked,
        says="none is parked",
        otherwise=f"{parked} are parked: a person has to look",
        mend="naka webhook list --state parked, then replay",
        is_fault=False,
    )


async def _supplier(patient: _Patient) -> None:
    patient.judge(
        "operator's profile",
        good=bool(await patient.postgres.fetchval("SELECT EXISTS (SELECT FROM operator_profile)")),
        says="it stands on bills",
        otherwise="it is not set: nobody can subscribe, no bill can be made out",
        mend="naka operator set --help",
        is_fault=bool(patient.settings.razorpay_key_id),
    )


async def _spool(patient: _Patient) -> None:
    folder: Path = patient.settings.spool_dir
    if not await asyncio.to_thread(_writable, folder):
        patient.fault("spool", "SPOOL_DIR cannot be written", "give this user the folder; settlements wait there")
        return
    waits, aside = await asyncio.to_thread(waiting, folder)
    patient.judge(
        "spool",
        good=not waits and not aside,
        says="writable, and nothing waits",
        otherwise=f"{waits} settlements wait, {aside} were refused by Postgres",
        mend="they are replayed by any process with this folder; refused ones: see docs/operating.md",
        is_fault=bool(aside),
    )


def _writable(folder: Path) -> bool:
    """Whether it can be written, or made."""
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return os.access(existing, os.W_OK)


async def _anthropic(patient: _Patient) -> None:
    upstream = Upstream(patient.settings)
    try:
        await upstream.count_tokens(ChatPrompt(patient.settings.chat_model, "", "hello"))
    except Exception as error:  # noqa: BLE001 - of an error only its kind is told
        code = getattr(error, "code", type(error).__name__)
        patient.fault(
            "Anthropic", f"does not take a question: {code}", "look at ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL"
        )
    else:
        patient.ok("Anthropic", f"takes the key, and knows {patient.settings.chat_model}")
    finally:
        await upstream.close()


async def _razorpay(patient: _Patient) -> None:
    settings = patient.settings
    if not settings.razorpay_key_id:
        patient.warn(
            "Razorpay", "RAZORPAY_KEY_ID is not set: nothing is collected", "see docs/howto/go-live-with-razorpay.md"
        )
        return
    razorpay = Razorpay.from_settings(settings)
    now_s = int(time.time())
    try:
        await razorpay.list_payments(since=now_s - 60, until=now_s)
    except Exception as error:  # noqa: BLE001 - as above
        patient.fault(
            "Razorpay", f"does not take the key: {type(error).__name__}", "look at RAZORPAY_KEY_ID and its secret"
        )
    else:
        patient.ok("Razorpay", "takes the key")
    finally:
        razorpay.close()
    live = settings.razorpay_key_id.startswith("rzp_live_")
    patient.judge(
        "Razorpay's mode",
        good=live == (settings.naka_env == "production"),
        says="live" if live else "test",
        otherwise=f"a {'live' if live else 'test'} key in {settings.naka_env}",
        mend="a live key belongs to NAKA_ENV=production, a test key to development",
        is_fault=live,
    )
    patient.judge(
        "webhook secret",
        good=bool(settings.razorpay_webhook_secret),
        says="set",
        otherwise="RAZORPAY_WEBHOOK_SECRET is not set: every delivery is refused",
        mend="copy it from the webhook's page in Razorpay's dashboard",
    )


_CHECKS: list[tuple[str, Callable[[_Patient], Awaitable[None]], tuple[str, ...]]] = [
    ("settings", _mode, ()),
    ("Postgres", _postgres, ()),
    ("durability", _durable, ("postgres",)),
    ("connections", _connections, ("postgres",)),
    ("schema", _schema, ("postgres",)),
    ("Redis", _redis, ()),
    ("eviction", _eviction, ("redis",)),
    ("clocks", _clocks, ("postgres", "redis")),
    ("months", _months, ("postgres", "has_schema")),
    ("prices", _price, ("postgres", "has_schema")),
    ("operator's key", _operator, ("postgres", "has_schema")),
    ("processes", _processes, ("postgres", "has_schema")),
    ("operator's profile", _supplier, ("postgres", "has_schema")),
    ("webhooks", _inbox, ("postgres", "has_schema")),
    ("spool", _spool, ()),
    ("Anthropic", _anthropic, ()),
    ("Razorpay", _razorpay, ()),
]
