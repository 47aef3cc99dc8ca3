"""Times the reports over a year of a tenant with 10,000 users and 10 million requests.

    python -m tests.benchmarks.reports [--users 10000] [--rows]

Own Postgres and Valkey, with consistent generated rollups. `--rows` also generates the request rows (some minutes,
4 GB), for a drill-down. The application runs in this process over ASGI; the time printed is that of a complete answer,
Postgres included.
"""

import argparse
import asyncio
import resource
import statistics
import tempfile
import time
from collections.abc import MutableMapping
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
from fastapi import FastAPI

from api.app import create_app
from core.clock import now_ms, to_ms
from core.logs import configure_logs
from core.settings import Settings
from core.tenancy.principal import Scope
from metering.journal.partitions import ensure_partitions
from metering.quota.windows import Calendar
from sandbox.postgres import Postgres
from sandbox.valkey import Valkey
from tests import servers
from tests.harness import Account, Books

DAYS = 365
TIMES = 20
ACTIVE = 0.5
"""The share of days on which a user asks."""
A_DAY = "1 + floor(random() * 10)::bigint"
"""Requests of a user on such a day: 5.5, so that 10,000 users ask 10 million times a year."""

_DAILY = f"""
INSERT INTO usage_daily (tenant_id, user_id, day, period_id, key_id, model, requests, input_tokens, output_tokens,
                         cache_read_tokens, cost_nano_usd, errors)
SELECT $1, u.id, d::date, to_char(d, 'YYYY-MM'), $2,
       CASE WHEN u.number % 3 = 0 THEN 'claude-haiku-4-5' ELSE 'claude-sonnet-4-6' END,
       n, n * (500 + u.number % 700), n * (120 + u.number % 300), n * 40, n * 3300000, (random() < 0.02)::integer
  FROM (SELECT id, row_number() OVER (ORDER BY id) AS number FROM users WHERE tenant_id = $1) u
 CROSS JOIN generate_series($3::date, $4::date, interval '1 day') d
 CROSS JOIN LATERAL (SELECT {A_DAY} AS n WHERE u.number > 0 AND d IS NOT NULL AND random() < {ACTIVE}) active
"""
_SUMS = (
    "sum(requests), sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), sum(cache_write_5m_tokens),"
    " sum(cache_write_1h_tokens), sum(cost_nano_usd), sum(errors)"
)
_NAMES = (
    "requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens,"
    " cost_nano_usd, errors"
)
_MONTHLY = f"""
INSERT INTO usage_monthly (tenant_id, user_id, month, period_id, key_id, model, {_NAMES})
SELECT tenant_id, user_id, date_trunc('month', day)::date, period_id, key_id, model, {_SUMS}
  FROM usage_daily GROUP BY 1, 2, 3, 4, 5, 6
"""
_BY_DAY = f"""
INSERT INTO usage_by_day (tenant_id, day, period_id, model, shard, {_NAMES})
SELECT tenant_id, day, period_id, model, hashtext(user_id::text) & 3, {_SUMS} FROM usage_daily GROUP BY 1, 2, 3, 4, 5
"""
_METERS = """
INSERT INTO usage_meters (tenant_id, period_id, shard) SELECT DISTINCT tenant_id, period_id, 0 FROM usage_by_day
"""
_ROWS = """
INSERT INTO usage_requests (tenant_id, id, user_id, key_id, state, day, period_id, opened_at, settled_at, outcome,
                            source, model, model_known, requests, input_tokens, output_tokens, cost_nano_usd)
SELECT d.tenant_id, (lpad(to_hex(at), 12, '0') || '7' || substr(md5(random()::text), 1, 3) || '8'
                     || substr(md5(random()::text), 1, 15))::uuid,
       d.user_id, d.key_id, 'settled', d.day, d.period_id, to_timestamp(at / 1000.0), to_timestamp(at / 1000.0),
       'completed', 'final', d.model, true, 1, d.input_tokens / d.requests, d.output_tokens / d.requests,
       d.cost_nano_usd / d.requests
  FROM usage_daily d
 CROSS JOIN generate_series(1, d.requests) n
 CROSS JOIN LATERAL (
   SELECT (extract(epoch FROM d.day)::bigint - 19800) * 1000 + floor(random() * 86400000)::bigint + n * 0 AS at
 ) t
 WHERE d.day BETWEEN $1 AND $2
"""


def main() -> None:
    """Generates, measures, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--rows", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="naka-bench-")))
        home.chmod(0o755)
        database = stack.enter_context(Postgres(home / "postgres")).url
        valkey = stack.enter_context(Valkey(home / "valkey")).url
        database = servers.migrated(database)
        settings = Settings(
            _env_file=None,
            database_url=database,
            redis_url=valkey,
            anthropic_api_key="never-used",
            spool_dir=home / "spool",
            paise_per_usd=8_800,
        )
        configure_logs(level="error", as_json=True)
        asyncio.run(_run(settings, users=options.users, rows=options.rows))


async def _run(settings: Settings, *, users: int, rows: bool) -> None:
    books = Books(settings.database_url)
    today = Calendar(settings.timezone).date_of(now_ms())
    first = today - timedelta(days=DAYS - 1)
    admin = await books.account(scopes=[Scope.TENANT_ADMIN])
    await _generate(books, admin, users, first, today, rows=rows)
    app = create_app(settings)
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://naka", headers=admin.headers, timeout=600) as http,
    ):
        await _measure(app, http, books, first, today)
    await books.close()


async def _generate(books: Books, admin: Account, users: int, first: date, last: date, *, rows: bool) -> None:
    began = time.monotonic()
    async with books.connection() as connection:
        await connection.execute("SELECT setseed(0.5)")
        await connection.execute(
            "INSERT INTO users (tenant_id, id, external_id)"
            " SELECT $1, gen_random_uuid(), 'user-' || n || '@example.com' FROM generate_series(2, $2::int) n",
            admin.tenant_id,
            users,
        )
        await connection.execute(_DAILY, admin.tenant_id, admin.key_id, first, last, timeout=3600)
        for statement in (_MONTHLY, _BY_DAY, _METERS):
            await connection.execute(statement, timeout=3600)
        await connection.execute(
            "INSERT INTO plans (code, version, name, limits, meters) VALUES ('bench', 1, 'Bench', '{}',"
            ' \'[{"meter": "input_tokens", "allowance": 5, "rate_paise": 40000},'
            '   {"meter": "output_tokens", "allowance": 5, "rate_paise": 150000}]\')'
        )
        await connection.execute("UPDATE tenants SET plan_code = 'bench', plan_version = 1")
        month = first
        while rows and month <= last:
            await ensure_partitions(connection, to_ms(datetime(month.year, month.month, month.day, tzinfo=UTC)))
            until = min(last, (month.replace(day=1) + timedelta(days=32)).replace(day=1) - timedelta(days=1))
            await connection.execute(_ROWS, month, until, timeout=3600)
            month = until + timedelta(days=1)
        for table in ("users", "usage_daily", "usage_monthly", "usage_by_day", "usage_requests"):
            await connection.execute(f"VACUUM ANALYZE {table}", timeout=3600)
        found = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM usage_daily) AS daily, (SELECT count(*) FROM usage_monthly) AS monthly,"
            " (SELECT count(*) FROM usage_by_day) AS by_day, (SELECT sum(requests) FROM usage_by_day) AS requests"
        )
    print(f"{found['requests']:,} requests of {users:,} users, generated in {time.monotonic() - began:.0f} s")
    print(f"rows: {found['daily']:,} daily, {found['monthly']:,} monthly, {found['by_day']:,} by day\n")


async def _measure(app: FastAPI, http: httpx2.AsyncClient, books: Books, first: date, last: date) -> None:
    year = {"from": first.isoformat(), "to": last.isoformat()}
    month = {"from": (last - timedelta(days=29)).isoformat(), "to": last.isoformat()}
    report = "/v1/admin/reports/usage"
    (heavy,) = await books.fetch("SELECT user_id, key_id FROM usage_daily ORDER BY requests DESC, user_id LIMIT 1")
    heaviest = {"group_by": "user", "order": "tokens", "top": "20"}
    one = {"user_id": str(heavy["user_id"])}
    print(f"{'view':34} {'median ms':>10} {'max ms':>8} {'kB':>8}")
    for name, path, query in (
        ("a year by day", report, year | {"group_by": "day"}),
        ("a year by day and model", report, year | {"group_by": "day,model"}),
        ("a year by model", report, year | {"group_by": "model"}),
        ("a year by month", report, year | {"group_by": "month"}),
        (
            "a year, the 20 heaviest users",
            report,
            year | {"group_by": "user", "order": "tokens", "top": "20", "names": "true"},
        ),
        ("a year, all users", report, year | {"group_by": "user", "names": "true"}),
        ("30 days, the 20 heaviest users", report, month | heaviest),
        ("a year of one user by day", report, year | one | {"group_by": "day"}),
        ("a year of one key by day", report, year | {"group_by": "day", "key_id": str(heavy["key_id"])}),
        ("a user's requests", "/v1/admin/requests", one | {"limit": "50"}),
        ("a user's requests of 30 days", "/v1/admin/requests", one | month | {"limit": "50"}),
        ("page: a year by day", "/reports", year | {"by": "day"}),
        ("page: a year by user", "/reports", year | {"by": "user"}),
    ):
        await _time(http, name, path, query)
    key = http.headers["authorization"]
    await _long_csv(app, key, report, f"{urlencode(year)}&group_by=user,day&format=csv", "the year by user and day")
    await _long_csv(app, key, "/v1/admin/requests", "format=csv", "all requests")


async def _long_csv(app: FastAPI, key: str, path: str, query: str, what: str) -> None:
    """Reads and discards the body piece by piece, as a client over a socket does."""
    size = lines = 0
    before = peak = _resident_mb()
    sent = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await sent.wait()  # a client that stays
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal size, lines, peak
        size += len(message.get("body", b""))
        lines += message.get("body", b"").count(b"\n")
        peak = max(peak, _resident_mb())

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"authorization", key.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("naka", 80),
    }
    began = time.perf_counter()
    await app(scope, receive, send)
    took_s = time.perf_counter() - began
    print(f"\nCSV of {what}: {lines:,} lines, {size / 1e6:.0f} MB in {took_s:.1f} s;", end=" ")
    print(f"the process had {before:.0f} MB before, {peak:.0f} at most")


def _resident_mb() -> float:
    """Returns the current memory of this process (Linux); its high-water mark would hide smaller peaks."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


async def _time(http: httpx2.AsyncClient, name: str, path: str, query: dict[str, str]) -> None:
    times = []
    for _ in range(TIMES + 1):
        began = time.perf_counter()
        answer = await http.get(path, params=query)
        times.append((time.perf_counter() - began) * 1000)
        if answer.status_code != 200:
            print(f"{name:34} {answer.status_code}")
            return
    times = times[1:]
    print(f"{name:34} {statistics.median(times):10.0f} {max(times):8.0f} {len(answer.content) / 1000:8.0f}")


if __name__ == "__main__":
    main()
