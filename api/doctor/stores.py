"""Postgres, its schema, and Redis."""

import time
from dataclasses import replace

import asyncpg
from redis.exceptions import RedisError

from api.doctor.findings import CHECK_S, Checkup
from core.postgres.connection import Connection, UnexpectedPooler, check_pooler, connect
from core.postgres.url import PostgresUrl
from core.redis.client import connect_redis
from core.redis.mode import refused_mode
from core.resilience.outage import STORE_ERRORS
from migrations.upgrade import newest_revision

_OLDEST_POSTGRES = 15
_OLDEST_REDIS = 7
_SKEW_S = 2.0
_POOL_OVERHEAD = 6  # connections of a process beside its pool: journal lanes, fallback, listening


async def postgres(patient: Checkup) -> None:
    """Whether it answers, and is new enough."""
    if not patient.settings.database_url:
        patient.fault("Postgres", "DATABASE_URL is not set", "set it, or run `naka up` in this folder")
        return
    try:
        patient.postgres = await _connected(patient.settings.postgres)
    except (*STORE_ERRORS, ValueError) as error:
        says = "refuses" if isinstance(error, asyncpg.PostgresError) else "cannot be reached"
        patient.fault("Postgres", f"{says}: {type(error).__name__}", "look at DATABASE_URL")
        return
    version = patient.postgres.get_server_version()
    patient.judge(
        "Postgres",
        good=version.major >= _OLDEST_POSTGRES,
        says=f"version {version.major}.{version.minor}",
        otherwise=f"version {version.major} is older than {_OLDEST_POSTGRES}",
        mend=f"use Postgres {_OLDEST_POSTGRES} or newer",
    )


async def writable(patient: Checkup) -> None:
    """Whether it takes writes."""
    replica, read_only = await patient.postgres.fetchrow(
        "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean"
    )
    patient.judge(
        "writable",
        good=not replica and not read_only,
        says="it takes writes",
        otherwise="it is a replica" if replica else "default_transaction_read_only is on",
        mend="point DATABASE_URL at the primary" if replica else "switch it off for this database and role",
    )


async def _connected(url: PostgresUrl) -> Connection:
    """A connection, also through a pooler that the settings do not name: `pooler` says so."""
    try:
        return await connect(url, "naka doctor", timeout_s=CHECK_S)
    except asyncpg.ProtocolViolationError:
        return await connect(replace(url, pooler="session"), "naka doctor", timeout_s=CHECK_S)


async def pooler(patient: Checkup) -> None:
    """Whether DATABASE_POOLER says what stands before Postgres.

    In transaction mode a connection is on another server process as soon as others have taken its last one.
    """
    settings = patient.settings
    if settings.database_pooler == "none":
        try:
            await check_pooler(settings.postgres, timeout_s=CHECK_S)
        except UnexpectedPooler as error:
            patient.fault("pooler", str(error), "see Poolers in docs/deploying.md")
            return
    moves = settings.database_pooler != "transaction" and await _moves(patient)
    mode = settings.database_pooler
    if moves:
        says = f"there is one in transaction mode, and DATABASE_POOLER is {mode}"
        patient.fault("pooler", says, "set DATABASE_POOLER=transaction, and DATABASE_DIRECT_URL for the worker")
    elif settings.postgres_direct.pooler == "transaction":
        says = "transaction mode, and the worker has no way to listen"
        patient.fault("pooler", says, "set DATABASE_DIRECT_URL to Postgres itself, or a pooler in session mode")
    else:
        patient.ok("pooler", "none" if mode == "none" else f"{mode} mode")


async def _moves(patient: Checkup) -> bool:
    """Whether one connection met several server processes: never so without a pooler in transaction mode."""
    ask = "SELECT pg_backend_pid()"
    first = await patient.postgres.fetchval(ask)
    others = [await connect(patient.settings.postgres, "naka doctor", timeout_s=CHECK_S) for _ in range(3)]
    try:
        for other in others:
            await other.execute("BEGIN")
            await other.fetchval(ask)
        return bool(first != await patient.postgres.fetchval(ask))
    except (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError):
        return True  # a named statement was made on another server process
    finally:
        for other in others:
            await other.close(timeout=CHECK_S)


async def durability(patient: Checkup) -> None:
    """Whether a commit lasts."""
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


async def connections(patient: Checkup) -> None:
    """Whether there are enough."""
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


async def schema(patient: Checkup) -> None:
    """Whether it is this version's."""
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


async def redis(patient: Checkup) -> None:
    """Whether it answers, takes writes, and is new enough."""
    if not patient.settings.redis_url:
        patient.fault("Redis", "REDIS_URL is not set", "set it, or run `naka up` in this folder")
        return
    try:
        redis = connect_redis(patient.settings.redis_url, timeout_s=CHECK_S / 2)
        info = await redis.info()
    except (RedisError, OSError, ValueError) as error:
        patient.fault("Redis", f"cannot be reached: {type(error).__name__}", "look at REDIS_URL")
        return
    patient.redis = redis
    refused = refused_mode(info)
    if refused is not None:
        patient.fault("Redis", f"it is {refused}", "look at REDIS_URL")
        return
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


async def eviction(patient: Checkup) -> None:
    """Whether counters stay."""
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


async def clocks(patient: Checkup) -> None:
    """Whether all agree."""
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
