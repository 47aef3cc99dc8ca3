"""Checks of Postgres, its schema, roles and privileges, and Redis."""

import time
from dataclasses import replace

import asyncpg
from redis.exceptions import RedisError

from api.doctor.findings import CHECK_S, Checkup
from core.postgres.connection import Connection, UnexpectedPooler, check_pooler, connect
from core.postgres.roles import TENANT
from core.postgres.url import PostgresUrl
from core.redis.client import connect_redis
from core.redis.mode import refused_mode
from core.resilience.outage import STORE_ERRORS
from migrations.privileges import differences
from migrations.upgrade import newest_revision

_OLDEST_POSTGRES = 15
_OLDEST_REDIS = 7
_SKEW_S = 2.0
_POOL_OVERHEAD = 6  # connections of a process beside its pool: journal lanes, fallback, listening
_OWNS = """
SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,
       EXISTS (SELECT FROM pg_class WHERE relname = 'usage_requests' AND pg_has_role(relowner, 'USAGE')) AS is_owner,
       pg_has_role($1::name, 'MEMBER') AS may_confine
"""


async def postgres(checkup: Checkup) -> None:
    """Postgres answers, and is new enough."""
    if not checkup.settings.database_url:
        checkup.fault("Postgres", "DATABASE_URL is not set", "set it, or run `naka up` in this folder")
        return
    try:
        checkup.postgres = await _connected(checkup.settings.postgres)
    except (*STORE_ERRORS, ValueError) as error:
        says = "refuses" if isinstance(error, asyncpg.PostgresError) else "cannot be reached"
        checkup.fault("Postgres", f"{says}: {type(error).__name__}", "check DATABASE_URL")
        return
    version = checkup.postgres.get_server_version()
    checkup.judge(
        "Postgres",
        good=version.major >= _OLDEST_POSTGRES,
        says=f"version {version.major}.{version.minor}",
        otherwise=f"version {version.major} is older than {_OLDEST_POSTGRES}",
        mend=f"use Postgres {_OLDEST_POSTGRES} or newer",
    )


async def writable(checkup: Checkup) -> None:
    """Postgres accepts writes."""
    replica, read_only = await checkup.postgres.fetchrow(
        "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean"
    )
    checkup.judge(
        "writable",
        good=not replica and not read_only,
        says="accepts writes",
        otherwise="it is a replica" if replica else "default_transaction_read_only is on",
        mend="point DATABASE_URL at the primary" if replica else "switch it off for this database and role",
    )


async def _connected(url: PostgresUrl) -> Connection:
    """Connects, also through a pooler that the settings do not name: the check `pooler` reports that."""
    try:
        return await connect(url, "naka doctor", timeout_s=CHECK_S)
    except asyncpg.ProtocolViolationError:
        return await connect(replace(url, pooler="session"), "naka doctor", timeout_s=CHECK_S)


async def pooler(checkup: Checkup) -> None:
    """DATABASE_POOLER names the pooler in front of Postgres, if any.

    In transaction mode a connection moves to another server process when others use its previous one.
    """
    settings = checkup.settings
    if settings.database_pooler == "none":
        try:
            await check_pooler(settings.postgres, timeout_s=CHECK_S)
        except UnexpectedPooler as error:
            checkup.fault("pooler", str(error), "see Poolers in docs/deploying.md")
            return
    moves = settings.database_pooler != "transaction" and await _moves(checkup)
    mode = settings.database_pooler
    if moves:
        says = f"a pooler in transaction mode, and DATABASE_POOLER is {mode}"
        checkup.fault("pooler", says, "set DATABASE_POOLER=transaction, and DATABASE_DIRECT_URL for the worker")
    elif settings.postgres_direct.pooler == "transaction":
        says = "transaction mode, in which the worker cannot LISTEN"
        checkup.fault("pooler", says, "set DATABASE_DIRECT_URL to Postgres itself, or a pooler in session mode")
    else:
        checkup.ok("pooler", "none" if mode == "none" else f"{mode} mode")


async def _moves(checkup: Checkup) -> bool:
    """Whether one connection used several server processes, which only a pooler in transaction mode causes."""
    ask = "SELECT pg_backend_pid()"
    first = await checkup.postgres.fetchval(ask)
    others: list[Connection] = []
    try:
        for _ in range(3):
            other = await connect(checkup.settings.postgres, "naka doctor", timeout_s=CHECK_S)
            others.append(other)
            await other.execute("BEGIN")
            await other.fetchval(ask)
        return bool(first != await checkup.postgres.fetchval(ask))
    except (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError):
        return True  # the named statement is on another server process
    finally:
        for other in others:
            await other.close(timeout=CHECK_S)


async def durability(checkup: Checkup) -> None:
    """A committed transaction survives a crash."""
    names = ("fsync", "synchronous_commit", "full_page_writes")
    off = [name for name in names if await checkup.postgres.fetchval(f"SHOW {name}") == "off"]
    checkup.judge(
        "durability",
        good=not off,
        says="commits survive a crash",
        otherwise=f"off: {', '.join(off)}; a crash may lose counted usage",
        mend="switch it on in postgresql.conf",
        is_fault=checkup.settings.is_production,
    )


async def connections(checkup: Checkup) -> None:
    """Postgres allows enough connections."""
    most = int(await checkup.postgres.fetchval("SHOW max_connections"))
    each = checkup.settings.database_pool_size + _POOL_OVERHEAD
    checkup.judge(
        "connections",
        good=most >= 3 * each,
        says=f"{most} allowed, about {each} a process",
        otherwise=f"only {most} allowed, and each process takes about {each}",
        mend="raise max_connections, or lower DATABASE_POOL_SIZE",
        is_fault=False,
    )


async def schema(checkup: Checkup) -> None:
    """The schema is this version's."""
    wanted = newest_revision()
    try:
        found = await checkup.postgres.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        found = None
    checkup.has_schema = found == wanted
    checkup.judge(
        "schema",
        good=checkup.has_schema,
        says=f"revision {found}",
        otherwise=f"revision {found or 'none'}, and this version needs {wanted}",
        mend="run `naka migrate`",
    )


async def database_role(checkup: Checkup) -> None:
    """The application's role cannot change its own schema, and can act as a tenant's."""
    held = await checkup.postgres.fetchrow(_OWNS, TENANT)
    if not held["may_confine"]:
        checkup.fault("database role", f"not a member of {TENANT}: requests of tenants fail", "run `naka migrate`")
        return
    checkup.judge(
        "database role",
        good=not held["is_superuser"] and not held["is_owner"],
        says="cannot change the schema, the audit log or the ledger",
        otherwise="the application can change its own schema, and row-level security does not hold for it",
        mend="set DATABASE_MIGRATION_URL and another role in DATABASE_URL: see docs/operating.md",
        is_fault=False,
    )


async def privileges(checkup: Checkup) -> None:
    """Each role has exactly its declared privileges."""
    wrong = [each.name for each in await differences(checkup.postgres) if each.statements]
    checkup.judge(
        "privileges",
        good=not wrong,
        says="as declared for every table",
        otherwise=f"not as declared: {', '.join(wrong[:5])}{', ...' if len(wrong) > 5 else ''}",  # noqa: PLR2004
        mend="run `naka migrate`, as the owner of the schema and the database",
        is_fault=False,
    )


async def redis(checkup: Checkup) -> None:
    """Redis answers, accepts writes, and is new enough."""
    if not checkup.settings.redis_url:
        checkup.fault("Redis", "REDIS_URL is not set", "set it, or run `naka up` in this folder")
        return
    try:
        redis = connect_redis(checkup.settings.redis_url, timeout_s=CHECK_S / 2)
        info = await redis.info()
    except (RedisError, OSError, ValueError) as error:
        checkup.fault("Redis", f"cannot be reached: {type(error).__name__}", "check REDIS_URL")
        return
    checkup.redis = redis
    refused = refused_mode(info)
    if refused is not None:
        checkup.fault("Redis", f"{refused}", "check REDIS_URL")
        return
    version = str(info.get("redis_version", "0"))
    if info.get("role") == "slave":
        checkup.fault("Redis", "a replica, which accepts no writes", "point REDIS_URL at the primary")
        return
    checkup.judge(
        "Redis",
        good=int(version.partition(".")[0]) >= _OLDEST_REDIS,
        says=f"version {version}",
        otherwise=f"version {version} is older than {_OLDEST_REDIS}",
        mend=f"use Redis {_OLDEST_REDIS} or Valkey",
    )


async def eviction(checkup: Checkup) -> None:
    """Redis evicts no counters."""
    info = await checkup.redis.info("memory")
    policy = str(info.get("maxmemory_policy", "noeviction"))
    checkup.judge(
        "eviction",
        good=policy == "noeviction" or not int(info.get("maxmemory", 0)),
        says="counters are not evicted",
        otherwise=f"{policy}: evicted counters are rebuilt from Postgres, which is slow",
        mend="set maxmemory-policy noeviction",
        is_fault=False,
    )


async def clocks(checkup: Checkup) -> None:
    """The clocks of this host, Postgres and Redis agree."""
    began = time.time()
    theirs = float(await checkup.postgres.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))
    seconds, micro = await checkup.redis.time()
    here = (began + time.time()) / 2
    skew = max(abs(theirs - here), abs(seconds + micro / 1_000_000 - here))
    checkup.judge(
        "clocks",
        good=skew < _SKEW_S,
        says=f"this host, Postgres and Redis agree within {skew:.1f} s",
        otherwise=f"differ by {skew:.0f} s, and so do the ends of days and periods",
        mend="run a time service (chrony) on each host",
        is_fault=False,
    )
