"""Rows for lists: requests, entries and changes over months, spread as unluckily for a list as may be.

A *whale* has most rows, a *former* customer none but in the oldest tenth, and there also is the only use of an old key
and an old model. `FILTERS`, `ENTRIES` and `CHANGES` are what is asked of them; `page_cost` is what a page reads.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import now_ms
from core.postgres.database import Database
from core.tenancy.lists import list_audit
from metering.journal.partitions import ensure_partitions
from metering.reports.requests import EntryFilter, RequestFilter, list_entries, list_requests

Read = Callable[[AsyncSession, UUID | None], Awaitable[Any]]
"""A page from a cursor on."""

WHALE, FORMER, RARE = (UUID(int=0x1000 + number) for number in range(3))
HEAVY, LIGHT, GONE = (UUID(int=0x2000 + number) for number in range(3))
KEY, OLD_KEY = UUID(int=0x3000), UUID(int=0x3001)
MODEL, OLD_MODEL = "claude-sonnet-4-6", "claude-2"
MONTH_MS = 30 * 86_400_000
SIZE = 50

_SPREAD = """
generate_series(1, $1::bigint) AS n
CROSS JOIN LATERAL (SELECT $2::bigint + n * ($3::bigint / $1::bigint) AS at) t
CROSS JOIN LATERAL (
  SELECT (lpad(to_hex(at), 12, '0') || '7' || lpad(to_hex(n % 4096), 3, '0')
          || '8' || substr(md5(n::text), 1, 15))::uuid AS id,
         CASE WHEN n % 5000 = 7 THEN $6::uuid WHEN n * 10 <= $1::bigint AND n % 20 = 0 THEN $5::uuid ELSE $4::uuid END
         AS tenant_id,
         n * 10 <= $1::bigint AND n % 50 = 1 AS is_old
) v
CROSS JOIN LATERAL (
  SELECT CASE WHEN tenant_id <> $4::uuid OR is_old OR n % 3 > 0 THEN $7::uuid WHEN n % 10000 = 0 THEN $8::uuid
              ELSE md5((n % 20000)::text)::uuid END AS user_id
) u
"""
_REQUESTS = f"""
INSERT INTO usage_requests (tenant_id, id, user_id, key_id, state, day, period_id, opened_at, settled_at, outcome,
                            source, model, model_known, requests, input_tokens, output_tokens, cost_nano_usd)
SELECT tenant_id, id, user_id, CASE WHEN is_old THEN $10::uuid ELSE $9::uuid END,
       CASE WHEN n > $1::bigint - 40 THEN 'open' WHEN is_old AND n % 100 = 1 THEN 'void' ELSE 'settled' END,
       to_timestamp(at / 1000)::date, '2026-11', to_timestamp(at / 1000), to_timestamp(at / 1000), 'completed', 'final',
       CASE WHEN is_old THEN $12 ELSE $11 END, true, 1, 500, 120, 3300000
  FROM {_SPREAD}
"""
_ENTRIES = f"""
INSERT INTO usage_entries (tenant_id, id, kind, request_id, user_id, period_id, actor, reason)
SELECT tenant_id, id, CASE WHEN is_old THEN 'credit' ELSE 'revision' END, id, user_id, '2026-11', 'test', 'test'
  FROM {_SPREAD}
"""
_CHANGES = f"""
INSERT INTO audit_log (tenant_id, id, actor, action, target)
SELECT tenant_id, id, 'key:' || n % 100, CASE WHEN is_old THEN 'price.add' ELSE 'key.create' END, user_id::text
  FROM {_SPREAD}
"""
FILTERS: dict[str, RequestFilter] = {
    "all": RequestFilter(),
    "open": RequestFilter(state="open"),
    "settled": RequestFilter(state="settled"),
    "void (all old)": RequestFilter(state="void"),
    "model": RequestFilter(model=MODEL),
    "model (all old)": RequestFilter(model=OLD_MODEL),
    "tenant": RequestFilter(tenant_id=WHALE),
    "tenant (all old)": RequestFilter(tenant_id=FORMER),
    "tenant (rare)": RequestFilter(tenant_id=RARE),
    "tenant, open": RequestFilter(tenant_id=WHALE, state="open"),
    "tenant, model (all old)": RequestFilter(tenant_id=WHALE, model=OLD_MODEL),
    "user": RequestFilter(tenant_id=WHALE, user_id=HEAVY),
    "user (rare)": RequestFilter(tenant_id=WHALE, user_id=LIGHT),
    "user (none)": RequestFilter(tenant_id=WHALE, user_id=GONE),
    "key": RequestFilter(tenant_id=WHALE, user_id=HEAVY, key_id=KEY),
    "key (all old)": RequestFilter(tenant_id=WHALE, user_id=HEAVY, key_id=OLD_KEY),
    "key, void": RequestFilter(tenant_id=WHALE, user_id=HEAVY, key_id=OLD_KEY, state="void"),
}
ENTRIES: dict[str, EntryFilter] = {
    "entries": EntryFilter(),
    "entries, kind (all old)": EntryFilter(kind="credit"),
    "entries, tenant (all old)": EntryFilter(tenant_id=FORMER),
    "entries, user (rare)": EntryFilter(tenant_id=WHALE, user_id=LIGHT),
}
CHANGES: dict[str, dict[str, Any]] = {
    "changes": {"tenant_id": None},
    "changes, tenant (all old)": {"tenant_id": FORMER},
    "changes, action (all old)": {"tenant_id": None, "action": "price."},
    "changes, actor (none)": {"tenant_id": WHALE, "actor": "cli:"},
}


async def fill(connection: Any, rows: int, *, months: int) -> None:
    """So many requests over the last `months` of 30 days, and a tenth of that of entries and of changes."""
    first_ms = now_ms() - months * MONTH_MS
    for month in range(months + 1):
        await ensure_partitions(connection, first_ms + month * MONTH_MS)
    spread = (first_ms, months * MONTH_MS, WHALE, FORMER, RARE, HEAVY, LIGHT)
    await connection.execute(_REQUESTS, rows, *spread, KEY, OLD_KEY, MODEL, OLD_MODEL, timeout=3600)
    for statement in (_ENTRIES, _CHANGES):
        await connection.execute(statement, rows // 10, *spread, timeout=3600)
    for table in ("usage_requests", "usage_entries", "audit_log"):
        await connection.execute(f"VACUUM ANALYZE {table}", timeout=3600)


def lists() -> dict[str, Read]:
    """Each list, as a function of a session and a cursor."""

    def requests(wanted: RequestFilter) -> Read:
        return lambda session, before: list_requests(session, replace(wanted, before=before), limit=SIZE)

    def entries(wanted: EntryFilter) -> Read:
        return lambda session, before: list_entries(session, replace(wanted, before=before), limit=SIZE)

    def changes(wanted: dict[str, Any]) -> Read:
        return lambda session, before: list_audit(session, before=before, limit=SIZE, **wanted)

    made = {name: requests(wanted) for name, wanted in FILTERS.items()}
    made |= {name: entries(wanted) for name, wanted in ENTRIES.items()}
    return made | {name: changes(wanted) for name, wanted in CHANGES.items()}


async def page_cost(database: Database, read: Read, before: UUID | None = None) -> tuple[int, Any]:
    """How many blocks of Postgres all statements of a page read together, and the page."""
    ran: list[tuple[str, Any]] = []

    def remember(*execution: Any) -> None:
        ran.append((execution[2], execution[3]))

    engine = database.engine.sync_engine
    async with database.session() as session:
        event.listen(engine, "before_cursor_execute", remember)
        page = await read(session, before)
        event.remove(engine, "before_cursor_execute", remember)
        connection, blocks = await session.connection(), 0
        for statement, parameters in ran:
            if "set_config" in statement:
                await connection.exec_driver_sql(statement, parameters)
                continue
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
            plan = (await connection.exec_driver_sql(explain, parameters)).scalar_one()[0]["Plan"]
            blocks += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return blocks, page
