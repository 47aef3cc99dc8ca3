"""Behind PgBouncer, in session and transaction mode: everything works, and the accounts are exact."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.doctor import stores
from api.doctor.findings import Checkup, Verdict
from api.schemas.usage.spool import Retried
from api.services.context import ServiceContext
from api.services.usage.spool import retry_poisoned
from core.postgres.connection import UnexpectedPooler, check_pooler, connect
from core.postgres.database import Connections, Database
from core.postgres.url import parse
from core.settings import Settings
from core.tenancy.audit import Actor
from tests.harness import Api, Books, Simulator, chat, client, environment, running
from tests.metering.faults import USAGE, row_of
from tests.metering.process import recorder, start_process
from tests.pgbouncer import PgBouncer

REQUESTS = 30


@pytest.fixture(params=["session", "transaction"])
def pooled(request: pytest.FixtureRequest, database_url: str) -> Iterator[dict[str, str]]:
    """The settings of a process behind PgBouncer, whose direct way is for the worker's queue and migrations."""
    with PgBouncer(database_url, request.param) as pooler:
        yield {"DATABASE_URL": pooler.url, "DATABASE_POOLER": request.param, "DATABASE_DIRECT_URL": database_url}


@pytest.mark.slow
@pytest.mark.parametrize("pooled", ["transaction"], indirect=True)  # both: python -m tests.matrix.pgbouncer
async def test_a_day_behind_it_is_counted_exactly(
    pooled: dict[str, str], database_url: str, redis_url: str, tmp_path: Path
) -> None:
    simulator, books = Simulator(), Books(database_url)
    account = await books.account()
    settings = environment(database_url, redis_url, simulator.url) | pooled
    try:
        with running(Api(settings, tmp_path / "api.log")) as api:
            async with client(api.url) as http:
                answers = await asyncio.gather(*(chat(http, account, f"number {number}") for number in range(REQUESTS)))
                assert all(answer.done for answer in answers), [answer.raw for answer in answers if not answer.done]
                report = await http.get("/v1/usage", headers=account.headers)
                assert report.status_code == 200, report.text
                page = await http.post("/sign-in", data={"key": account.key}, headers={"origin": api.url})
                assert page.status_code == 303
        await books.settled(account, REQUESTS)
        requests = await books.sums("usage_requests", account.tenant_id)
        assert requests == await books.sums("usage_daily", account.tenant_id)
        assert requests == await books.sums("usage_meters", account.tenant_id)
        assert requests["input_tokens"] == sum(row["input_tokens"] for row in simulator.ledger())
        assert api.log.read_text().splitlines()[2:] == [], api.log.read_text()
    finally:
        await books.close()
        simulator.stop()


async def test_the_lanes_settings_hold_in_each_of_their_statements(pooled: dict[str, str]) -> None:
    url = parse(pooled["DATABASE_URL"], "transaction" if pooled["DATABASE_POOLER"] == "transaction" else "session")
    ask = "SELECT current_setting('enable_seqscan'), current_setting('jit')"
    lanes = [
        await connect(url, f"lane {n}", timeout_s=5, settings={"enable_seqscan": "off", "jit": "off"}) for n in (1, 2)
    ]
    plain = await connect(url, "plain", timeout_s=5)

    async def asks(connection: Any, expected: tuple[str, str]) -> None:
        for _ in range(20):
            assert tuple(await connection.fetchrow(ask)) == expected
            async with connection.transaction():
                assert tuple(await connection.fetchrow(ask)) == expected

    row = await plain.fetchrow(ask)
    assert row is not None
    default = tuple(row)
    assert default[0] == "on"
    await asyncio.gather(*(asks(lane, ("off", "off")) for lane in lanes), asks(plain, default))
    for connection in (*lanes, plain):
        await connection.close()


async def test_a_pooler_that_nobody_named_is_said_and_not_taken_for_an_outage(pooled: dict[str, str]) -> None:
    with pytest.raises(UnexpectedPooler, match="DATABASE_POOLER"):
        await check_pooler(parse(pooled["DATABASE_URL"]), timeout_s=5)


async def test_one_server_connection_serves_many_clients_in_turn(database_url: str) -> None:
    """Two of a pool take turns on one server connection: a named statement would be another's, or nobody's."""
    with PgBouncer(database_url, "transaction", size=1) as pooler:
        pool = Connections(parse(pooler.url, "transaction"), max_size=4)
        await pool.start()

        async def asks(number: int) -> int:
            async with pool.acquire() as connection:
                answers = [await connection.fetchval("SELECT $1::int + $2", number, step) for step in range(10)]
                return int(sum(answers))

        assert await asyncio.gather(*map(asks, range(8))) == [10 * number + 45 for number in range(8)]
        await pool.close()


async def test_poisoned_settlements_are_retried_behind_it(
    pooled: dict[str, str], database_url: str, redis_url: str, tmp_path: Path
) -> None:
    settings = Settings(
        _env_file=None,
        database_url=pooled["DATABASE_URL"],
        database_pooler=pooled["DATABASE_POOLER"],
        redis_url=redis_url,
        spool_dir=tmp_path,
    )
    process, books = await start_process(database_url, redis_url, spool_dir=tmp_path), Books(database_url)
    database = Database(settings.postgres)
    context = ServiceContext(settings=settings, database=database, changes=None, actor=Actor("cli:test"))
    try:
        grant = await process.admit(await books.account())
        await process.spool.set_aside(await process.settlements._measure(grant, recorder(USAGE)))
        assert await retry_poisoned(context) == Retried(settled=1, refused_again=0)
        row = await row_of(books, grant)
        assert (row["state"], row["output_tokens"]) == ("settled", USAGE.output_tokens)
    finally:
        await database.close()
        await process.stop()
        await books.close()


async def test_the_doctor_says_which_mode_it_met(pooled: dict[str, str]) -> None:
    mode = pooled["DATABASE_POOLER"]

    async def says(**changed: str) -> tuple[Verdict, str]:
        given: dict[str, Any] = {name.lower(): value for name, value in pooled.items()} | changed
        patient = Checkup(Settings(_env_file=None, **given))
        await stores.postgres(patient)
        await stores.pooler(patient)
        await patient.postgres.close()
        (found,) = [finding for finding in patient.findings if finding.name == "pooler"]
        return found.verdict, f"{found.says} {found.mend}"

    assert await says() == (Verdict.OK, f"{mode} mode ")
    verdict, words = await says(database_pooler="none")
    assert (verdict, "DATABASE_POOLER" in words) == (Verdict.FAULT, True)
    verdict, words = await says(database_pooler="session")
    assert verdict is (Verdict.OK if mode == "session" else Verdict.FAULT), words
    verdict, words = await says(database_pooler="transaction", database_direct_url="")
    assert (verdict, "DATABASE_DIRECT_URL" in words) == (Verdict.FAULT, True)
    assert await says(database_url=pooled["DATABASE_DIRECT_URL"], database_pooler="none") == (Verdict.OK, "none ")
