"""Migration 0012 under traffic: tables are not rewritten, older processes go on writing, detached months come back."""

import asyncio
import time
from datetime import UTC, date, datetime
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config

import migrations
from core.clock import to_ms
from core.ids import uuid7, uuid7_floor
from metering.admission.snapshot import read_snapshot
from metering.counts import COUNT_COLUMNS, LATER_COLUMNS, REPORTED_COLUMNS
from metering.journal.journal import settle_batch
from metering.pricing.tokens import Usage
from tests import servers
from tests.harness import Books
from tests.metering.rows import KOLKATA, request, settlement
from tests.servers import asyncpg_dsn

OLD = tuple(name for name in REPORTED_COLUMNS if name not in LATER_COLUMNS)
OLD_ADD = f"""
SELECT naka_add_usage(array_agg(ROW($1::uuid, $2::uuid, $3::date, $4::text, $5::uuid, $6::text,
                                    {", ".join(str(number + 1) for number in range(len(OLD)))})::naka_usage),
                      0::smallint)
"""
"""As the statements of version 0011 call it, with one element."""
OPENED_BEFORE = """
INSERT INTO usage_requests (tenant_id, id, user_id, key_id, process_id, state, epoch, price_id, period_id, day,
                            opened_at, deadline_at, model_asked, held_prompt_tokens, held_output_tokens, held_nano_usd)
VALUES ($1, $2, $3, $4, $2, 'open', 1, $5, $6, $7, $8, $9, $10, 1, 2, 3)
"""
ROLLUPS = ("usage_daily", "usage_monthly", "usage_by_day", "usage_meters")
FILES = """
SELECT relname, relfilenode FROM pg_class
 WHERE relkind = 'r' AND relname ~ '^usage_'
"""


async def test_a_process_of_the_older_version_goes_on_writing(books: Books) -> None:
    account = await books.account()
    asked = request(account)
    at = (asked.user_id, asked.day, asked.period_id, asked.key_id, asked.model)
    async with books.connection() as connection:
        await connection.execute(OLD_ADD, asked.tenant_id, *at)
        await connection.execute(
            OPENED_BEFORE,
            asked.tenant_id,
            asked.id,
            asked.user_id,
            asked.key_id,
            asked.price_id,
            asked.period_id,
            asked.day,
            asked.opened_at,
            asked.deadline_at,
            asked.model,
        )
        snapshot = await read_snapshot(connection, KOLKATA, asked.tenant_id, None, asked.opened_ms)
        assert snapshot.holds[asked.id].amounts == (1, 1, 2, 0, 3)
        assert await settle_batch(connection, [settlement(asked, Usage(1, 2, 3, 4, 5, 1, 6))], 1) == {asked.id}
        for table in ROLLUPS:
            names = COUNT_COLUMNS if table == "usage_meters" else REPORTED_COLUMNS
            sums = ", ".join(f"sum({name})::bigint AS {name}" for name in names)
            row = await connection.fetchrow(f"SELECT {sums} FROM {table} WHERE tenant_id = $1", asked.tenant_id)
            before = {name: number + 1 for number, name in enumerate(OLD)}
            after = dict(zip(COUNT_COLUMNS, settlement(asked, Usage(1, 2, 3, 4, 5, 1, 6)).counts.values, strict=True))
            assert dict(row) == {name: before.get(name, 0) + after.get(name, 0) for name in names}, table


@pytest.mark.parametrize("kind", ["iteration", "unheard"])
async def test_an_entry_may_be_of_an_iteration(books: Books, kind: str) -> None:
    insert = "INSERT INTO usage_entries (tenant_id, id, kind, period_id, actor, reason) VALUES ($1, $2, $3, $4, $4, $4)"
    entry = (uuid7(), uuid7(), kind, "2026-11")
    if kind == "iteration":
        await books.fetch(insert, *entry)
        return
    with pytest.raises(asyncpg.CheckViolationError):
        await books.fetch(insert, *entry)


async def test_the_price_list_knows_what_multiplies_a_price(books: Books) -> None:
    rows = await books.fetch("SELECT model, factors::text AS factors, web_search_rate FROM prices")
    assert {row["web_search_rate"] for row in rows} == {10_000_000}
    factors = {row["model"]: row["factors"] for row in rows}
    batch, us, fast = '"service_tier:batch": 500', '"inference_geo:us": 1100', '"speed:fast": 2000'
    assert all(batch in found for found in factors.values())
    without_us = {model for model, found in factors.items() if us not in found}
    assert without_us == {
        "claude-sonnet-4-5",
        "claude-sonnet-4-5-20250929",
        "claude-haiku-4-5",
        "claude-haiku-4-5-20251001",
        "claude-opus-4-5",
        "claude-opus-4-5-20251101",
    }
    with_fast = {model for model, found in factors.items() if fast in found}
    assert with_fast == {"claude-fable-5-2", "claude-opus-5-5", "claude-opus-5", "claude-opus-4-8"}


@pytest.mark.slow
async def test_an_upgrade_is_in_nobodys_way_and_rewrites_nothing(database_url: str) -> None:
    owner, month, detached = servers.owner(database_url), date(2031, 5, 1), "usage_requests_2031_05_detached"
    await asyncio.to_thread(_downgrade, owner, "0011")
    connection = await asyncpg.connect(asyncpg_dsn(owner))
    await connection.execute("SELECT naka_make_month($1)", month)
    await connection.execute("SELECT naka_detach_month($1, 0, false)", month)
    files = set(await connection.fetch(FILES))
    assert detached in {row["relname"] for row in files}
    reader = await asyncpg.connect(asyncpg_dsn(database_url))
    await reader.execute("BEGIN")
    await reader.fetch("SELECT FROM usage_requests LIMIT 1")
    upgrade = asyncio.create_task(asyncio.to_thread(servers.migrated, owner))
    began, waited = time.monotonic(), list[float]()
    while time.monotonic() - began < 5 and max(waited, default=0) < 0.1:
        assert not upgrade.done(), "the reader's lock is in its way"
        asked = time.monotonic()
        await connection.fetch("SELECT FROM usage_requests LIMIT 1")  # behind the lock that the upgrade asks for
        waited.append(time.monotonic() - asked)
        await asyncio.sleep(0.02)
    assert 0.05 < max(waited) < 3, "it gives up, and tries again"
    await reader.close()
    await upgrade
    assert files.issubset(await connection.fetch(FILES)), "what was there is not written anew"
    first, after = (uuid7_floor(to_ms(datetime(2031, at, 1, tzinfo=UTC))) for at in (5, 6))
    await connection.execute(
        f"ALTER TABLE usage_requests ATTACH PARTITION {detached} FOR VALUES FROM ('{first}') TO ('{after}')"
    )
    await connection.close()


def _downgrade(url: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    command.downgrade(config, revision)
