"""Applying the declared privileges: differences are found and corrected, and the hot path is not locked."""

import asyncio
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import asyncpg
import pytest

from metering.sql import load
from migrations import locks, privileges
from migrations.access import TABLES
from migrations.locks import exclusively
from migrations.privileges import apply_access, differences
from tests import servers
from tests.core.refusals import refuses
from tests.servers import asyncpg_dsn


async def test_what_somebody_granted_by_hand_is_found_and_taken_back(owner: Any, application: Any) -> None:
    for statement in (
        "GRANT UPDATE ON audit_log TO naka_app",
        "GRANT UPDATE (total_paise) ON bills TO PUBLIC",
        "ALTER TABLE users DISABLE ROW LEVEL SECURITY",
        "DROP POLICY naka_one_tenant ON bills",
        "CREATE POLICY more ON users TO naka_tenant USING (true)",
        "ALTER POLICY naka_one_tenant ON charges USING (true)",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "GRANT EXECUTE ON FUNCTION naka_make_month TO PUBLIC",
        "REVOKE INSERT ON users FROM naka_app",
    ):
        await owner.execute(statement)
        assert len(await differences(application)) == 1, statement
        await apply_access(owner)
        assert await differences(application) == [], statement


async def test_a_table_without_a_declaration_is_refused_and_named(owner: Any, application: Any) -> None:
    """Operators' own tables and views are left alone."""
    await owner.execute("CREATE TABLE notes (tenant_id uuid); GRANT SELECT ON notes TO naka_app")
    await owner.execute("CREATE VIEW noted AS SELECT tenant_id FROM notes; GRANT SELECT ON noted TO PUBLIC")
    said = "is not declared in migrations/access.py"
    assert [each.name for each in await differences(owner) if each.says == said] == ["public.noted", "public.notes"]
    await apply_access(owner)
    assert [each.name for each in await differences(owner)] == ["public.noted", "public.notes"]
    await refuses(application, "SELECT FROM notes")
    assert not await owner.fetchval("SELECT relrowsecurity FROM pg_class WHERE relname = 'notes'")


@pytest.mark.slow
async def test_a_table_in_use_is_waited_for(owner: Any, application: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long report holds its lock; each attempt is short, so that statements do not queue behind the migration."""
    monkeypatch.setattr(privileges, "_LOCK_TIMEOUT_MS", 50)
    monkeypatch.setattr(locks, "_PAUSE_S", 0.05)
    changed = replace(TABLES["public.users"], tenant_check="(external_id <> ''::text)")
    monkeypatch.setattr(privileges, "TABLES", MappingProxyType({**TABLES, "public.users": changed}))
    async with application.transaction():
        await application.fetch("SELECT FROM users")
        applied = asyncio.create_task(apply_access(owner))
        await asyncio.sleep(0.3)
        assert not applied.done()
    await applied
    assert await differences(application) == []


async def test_a_migration_that_waits_does_not_hold_up_the_indexes_of_the_other(owner: Any, database_url: str) -> None:
    """A waiting statement would have a snapshot, for which the build waits: Postgres would end one as a deadlock."""
    other = await asyncpg.connect(asyncpg_dsn(servers.owner(database_url)))
    async with exclusively(other):
        waiting = asyncio.create_task(apply_access(owner))
        asked = "SELECT query LIKE '%advisory_lock%' FROM pg_stat_activity WHERE pid = $1"
        async with asyncio.timeout(10):
            while not await other.fetchval(asked, owner.get_server_pid()):  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.01)
        await other.execute("CREATE INDEX CONCURRENTLY ix_users_built ON users (external_id)", timeout=10)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 10)
    await other.close()


async def test_the_hot_statements_pay_nothing_for_the_policies(application: Any, owner: Any) -> None:
    """Both roles have the same plans: a constant policy is folded away."""
    for name in ("open", "settle"):
        plans = []
        for connection in (application, owner):
            await connection.execute("SET plan_cache_mode = force_generic_plan")
            await connection.execute(f"PREPARE hot AS {load(name)}")
            count = await connection.fetchval(
                "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = 'hot'"
            )
            arguments = ", ".join(["NULL"] * count)
            plans.append([row[0] for row in await connection.fetch(f"EXPLAIN (COSTS OFF) EXECUTE hot ({arguments})")])
            await connection.execute("DEALLOCATE hot")
        assert plans[0] == plans[1]
