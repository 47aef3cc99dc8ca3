"""Two transactions collide in the middle of a batch: the whole batch is repeated; nothing is lost or counted twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from metering.journal.journal import Opened, Settled
from tests.harness import Account, Books
from tests.metering.faults import agree
from tests.metering.process import Process
from tests.metering.rows import request, settlement


@asynccontextmanager
async def colliding(books: Books, account: Account, table: str, times: int, sqlstate: str) -> AsyncIterator[None]:
    """Makes `times` writes of the tenant into the table fail, as if they had collided with another transaction."""
    name = f"collides_{account.tenant_id.hex}"
    await books.fetch(f"CREATE SEQUENCE {name}")
    await books.fetch(f"GRANT USAGE ON SEQUENCE {name} TO naka_app")
    await books.fetch(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF new.tenant_id = '{account.tenant_id}' AND nextval('{name}') <= {times} THEN"
        f" RAISE SQLSTATE '{sqlstate}'; END IF; RETURN new; END $$"
    )
    await books.fetch(
        f"CREATE TRIGGER {name} BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"
    )
    try:
        yield
    finally:
        await books.fetch(f"DROP TRIGGER {name} ON {table}")
        await books.fetch(f"DROP FUNCTION {name}")
        await books.fetch(f"DROP SEQUENCE {name}")


@pytest.mark.parametrize("table", ["usage_requests", "usage_daily", "usage_monthly", "usage_by_day", "usage_meters"])
async def test_a_batch_that_collides_is_done_again(process: Process, books: Books, table: str) -> None:
    account = await books.account()
    await books.fetch("INSERT INTO tenant_epochs VALUES ($1, 1)", account.tenant_id)
    requests = [request(account) for _ in range(30)]
    assert set(await asyncio.gather(*map(process.journal.opens.submit, requests))) == {Opened.OPEN}
    sqlstate = {"usage_requests": "40001"}.get(table, "40P01")
    async with colliding(books, account, table, 4, sqlstate):
        told = await asyncio.gather(*(process.journal.settlements.submit(settlement(one)) for one in requests))
    assert set(told) == {Settled.NOW}
    assert (await agree(books, account))["requests"] == 30
    assert not process.spool.active
