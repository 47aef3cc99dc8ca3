"""What test_books_machine.py does to real servers: processes that are killed, and readings of Postgres and Redis.

One event loop for all examples, entered only while a step awaits something: between two steps nothing moves.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import redis

from core.clock import to_ms
from metering.adjustments.measurement import Measurement, effective
from metering.admission.redis_scripts import built_users_key
from metering.counts import UsageCounts
from metering.journal.group_commit import GroupCommitter
from metering.quota.counters import WindowState
from metering.quota.windows import Calendar
from tests import servers
from tests.harness import Books
from tests.metering.books_model import Asked, BooksModel, State, hash_key
from tests.metering.process import Process, start_process
from tests.metering.tagged import assert_tags_exact
from tests.servers import asyncpg_dsn

T = TypeVar("T")
_STEP_S = 30
_DAILY = ("tenant_id", "user_id", "day", "period_id", "key_id", "model")
_METER = ("tenant_id", "period_id")


@dataclass(eq=False)
class Post:
    """A process. One that sleeps does nothing, and the others cannot tell."""

    process: Process
    beats: int = 1
    asleep: bool = False

    @property
    def id(self) -> UUID:
        """Its id in Postgres."""
        return self.process.journal.process_id


@dataclass(frozen=True)
class Reading:
    """A tenant as the stores have it: its epoch, whether Postgres admits it, its hashes, by key, and who has one."""

    tenant_id: UUID
    epoch: int
    in_fallback: bool
    run_id: bytes
    hashes: dict[str, dict[bytes, bytes]]
    built: set[UUID]

    def whole(self, user_id: UUID | None) -> bool:
        """Whether the scripts would judge by that hash."""
        tenant = self.hashes[hash_key(self.tenant_id, None)]
        built = tenant.get(b"e")
        if built is None or tenant.get(b"r") != self.run_id:
            return False
        return user_id is None or self.hashes[hash_key(self.tenant_id, user_id)].get(b"e") == built

    def fresh(self, user_id: UUID | None) -> bool:
        """Whether that hash counts: it is whole, and of the epoch that Postgres opens for."""
        built = self.hashes[hash_key(self.tenant_id, None)].get(b"e")
        return self.whole(user_id) and not self.in_fallback and built == str(self.epoch).encode()

    def lost(self, user_id: UUID) -> bool:
        """Whether the user's hash was built in this epoch, and is not there: then all is built anew."""
        return not self.whole(user_id) and user_id in self.built

    def held(self, user_id: UUID | None) -> dict[UUID, bytes]:
        """The holds in that hash."""
        fields = self.hashes[hash_key(self.tenant_id, user_id)].items()
        return {UUID(name[2:].decode()): value for name, value in fields if name.startswith(b"h:")}


@dataclass
class Bench:
    """The servers, and the loop."""

    runner: asyncio.Runner
    database_url: str
    redis_url: str
    folder: Path
    redis: "redis.Redis" = field(init=False)
    books: Books = field(init=False)
    connection: Any = field(init=False)

    def __post_init__(self) -> None:
        self.redis = redis.Redis.from_url(self.redis_url)
        self.books = Books(self.database_url)
        self.connection = self.run(asyncpg.connect(asyncpg_dsn(servers.owner(self.database_url))))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs it to its end, in bounded time."""
        return self.runner.run(_bounded(work))

    def close(self) -> None:
        """Closes what the bench itself has open."""
        self.run(self.connection.close())
        self.run(self.books.close())
        self.redis.close()

    def start(self, calendar: Calendar, *, ttl_ms: int) -> Post:
        """A new process, which judges everybody else dead as soon as it looks."""
        options: dict[str, Any] = {"ttl_ms": ttl_ms, "calendar": calendar, "dead_after_s": 0, "fallback_s": 0.05}
        return Post(self.run(start_process(self.database_url, self.redis_url, spool_dir=self.folder, **options)))

    def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Rows of any query."""
        rows: list[asyncpg.Record] = self.run(self.connection.fetch(query, *args))
        return rows

    def read(self, tenant_id: UUID, users: list[UUID]) -> Reading:
        """The tenant as the stores have it."""
        rows = self.fetch("SELECT epoch, fallback_until FROM tenant_epochs WHERE tenant_id = $1", tenant_id)
        epoch, until = (rows[0]["epoch"], rows[0]["fallback_until"]) if rows else (0, None)
        keys = [hash_key(tenant_id, user_id) for user_id in (None, *users)]
        with self.redis.pipeline(transaction=True) as pipeline:
            for key in keys:
                pipeline.hgetall(key)
            hashes = dict(zip(keys, pipeline.execute(), strict=True))
        run_id = self.redis.info("server")["run_id"].encode()
        members: set[Any] = self.redis.smembers(built_users_key(tenant_id))
        built = {UUID(user.decode()) for user in members}
        return Reading(tenant_id, epoch, until is not None, run_id, hashes, built)


async def _bounded(work: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(_STEP_S):
        return await work


async def kill(process: Process, connection: Any) -> None:
    """Ends a process as SIGKILL would: sockets and files close, and nothing that it meant to do is done.

    Returns once Postgres has noticed, so that no statement of the dead still runs.
    """
    lanes: list[GroupCommitter[Any, Any]] = [
        process.journal.opens,
        process.journal.settlements,
        *process.postgres_grants._committers,
    ]
    connections = [lane._connection for lane in lanes if lane._connection is not None]
    backends = [made.get_server_pid() for made in connections if not made.is_closed()]
    tasks: list[asyncio.Future[Any] | None] = [lane._task for lane in lanes]
    tasks += [process.pipeline._task, process.pipeline._probe_task, *process.settlements.tasks]
    tasks += [*process.expired_holds._looking.values(), *process.rebuilder._building.values()]
    for made in connections:
        made.terminate()
    assert process.pool._pool is not None
    process.pool._pool.terminate()
    for close in process.pool.closing:
        await close()
    if process.spool._file is not None:
        process.spool._file.close()
    while left := [task for task in tasks if task is not None and not task.done()]:
        for task in left:
            task.cancel()  # again and again: redis-py may swallow one while it connects
        await asyncio.wait(left, timeout=0.1)
    await process.pipeline._disconnect()
    await process.database.close()
    while await connection.fetchval(  # noqa: ASYNC110 - Postgres tells nobody
        "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1)", backends
    ):
        await asyncio.sleep(0.002)


def check_postgres(bench: Bench, model: BooksModel, tenants: list[UUID], now_ms: int) -> None:
    """Every request and entry is as the model has it; and rows + entries = rollup = meters, by full keys."""
    rows = bench.fetch("SELECT * FROM usage_requests WHERE tenant_id = ANY ($1)", tenants)
    entries = bench.fetch("SELECT * FROM usage_entries WHERE tenant_id = ANY ($1) ORDER BY id", tenants)
    by_id = {row["id"]: row for row in rows}
    for asked in model.asked.values():
        mine = [entry for entry in entries if entry["request_id"] == asked.request.id]
        _check_row(asked, by_id.pop(asked.request.id, None), mine, now_ms)
    assert not by_id, f"rows that nobody asked for: {by_id}"
    given = Counter(("credit", *UsageCounts.of(entry).values) for entry in entries if entry["kind"] == "credit")
    assert given == Counter(("credit", *credit.counts.values) for credit in model.credits)
    settled = [row for row in rows if row["state"] == "settled"]
    for table, key in (("usage_daily", _DAILY), ("usage_meters", _METER)):
        there = bench.fetch(f"SELECT * FROM {table} WHERE tenant_id = ANY ($1)", tenants)
        assert _sums(there, key) == _sums([*settled, *entries], key), table
    for tenant_id in tenants:
        bench.run(assert_tags_exact(bench.books, tenant_id))


def _check_row(asked: Asked, row: Any, entries: list[Any], now_ms: int) -> None:
    if asked.state in {State.HELD, State.GONE} and row is not None and asked.request.deadline_ms < now_ms:
        asked.state = State.VOID  # a look that an admission had started
    if asked.state in {State.HELD, State.GONE}:
        assert row is None, f"{asked.state} has a row: {row}"
        return
    assert row is not None, f"{asked.state} has no row"
    assert row["state"] == asked.state.value
    if asked.state is State.VOID:
        return
    names = ("held_prompt_tokens", "held_output_tokens", "held_web_searches", "held_nano_usd")
    held = tuple(row[name] for name in names)
    assert (held, row["day"], row["period_id"]) == (asked.amounts, asked.request.day, asked.request.period_id)
    if asked.state is State.SETTLED:
        assert asked.known is not None
        expected = Measurement(asked.known.outcome, asked.known.source, asked.known.model, asked.counts)
        assert effective(row, entries) == expected
        assert UsageCounts.of(row) == asked.first
        assert (None if row["hold_until"] is None else to_ms(row["hold_until"])) == asked.hold_until_ms


def _sums(rows: list[Any], key: tuple[str, ...]) -> dict[tuple[Any, ...], UsageCounts]:
    sums: dict[tuple[Any, ...], UsageCounts] = {}
    for row in rows:
        names = tuple(str(row["model"] if name == "model" else row[name]) for name in key)
        sums[names] = sums.get(names, UsageCounts()) + UsageCounts.of(row)
    return {names: counts for names, counts in sums.items() if any(counts.values)}


def check_redis(model: BooksModel, reading: Reading, users: list[UUID], names: list[str], now_ms: int) -> None:
    """Each hash that counts: it holds what it must, nothing that it may not, and its windows add up."""
    for user_id in (None, *users):
        if not reading.fresh(user_id):
            continue
        key = hash_key(reading.tenant_id, user_id)
        fields, held = reading.hashes[key], reading.held(user_id)
        told = model.told(reading.tenant_id, user_id, reading.epoch)
        must = model.holding(reading.tenant_id, user_id, now_ms) - told
        assert must <= held.keys(), f"not held: {must - held.keys()}"
        for request_id, value in held.items():
            asked = model.asked[request_id]
            assert request_id in must or asked.lingers, f"still held: {asked}"
            assert value == asked.hold
        assert int(fields.get(b"c", 0)) == len(held)
        expected = model.redis(reading.tenant_id, user_id, names, set(held), reading.epoch)
        for name in names:
            assert WindowState.unpack(fields.get(name.encode())) == expected.window(name), name
