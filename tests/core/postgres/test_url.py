"""DATABASE_URL: every component interprets it alike, by libpq's parameters, or refuses a parameter by name."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from core.postgres.connection import connect
from core.postgres.database import Connections, Database
from core.postgres.url import BadPostgresUrl, PostgresUrl, parse, server_options
from core.queue import Queue
from metering.journal.group_commit import GroupCommitter
from sandbox.daemon import free_port
from tests import servers
from tests.harness import ROOT
from tests.servers import asyncpg_dsn

PASSWORD = "p@ss:w/o?r#d%+&= é"
ASK = "SELECT current_user::text, current_setting('search_path'), current_setting('application_name')"


@pytest.mark.parametrize(
    ("url", "hosts", "ports"),
    [
        ("postgresql://h/x", ("h",), (5432,)),
        ("postgresql+asyncpg://a:1,b,[::1]:3/x", ("a", "b", "::1"), (1, 5432, 3)),
        ("postgresql://a,b:7/x?port=5", ("a", "b"), (5, 7)),
        ("postgres://%2Fvar%2Frun/x", ("/var/run",), (5432,)),
        ("postgresql:///x?host=/run,db&port=1,2", ("/run", "db"), (1, 2)),
        ("postgresql://", (), ()),
    ],
)
def test_hosts_and_ports_are_libpqs(url: str, hosts: tuple[str, ...], ports: tuple[int, ...]) -> None:
    parsed = parse(url)
    assert (parsed.hosts, parsed.ports) == (hosts, ports)


def test_encoded_parts_are_decoded_and_a_secret_is_not_shown() -> None:
    parsed = parse(f"postgresql://us%40er:{quote(PASSWORD, safe='')}@h/d%2Fb?application_name=a+b")
    assert (parsed.user, parsed.password, parsed.database) == ("us@er", PASSWORD, "d/b")
    assert parsed.server_settings == {"application_name": "a+b"}
    assert PASSWORD not in repr(parsed)
    assert parse("postgresql://h?user=u&password=a%2Bb+c&dbname=d") == PostgresUrl(("h",), (5432,), "u", "a+b+c", "d")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("secret", "not a URL"),
        ("mysql://u:secret@h/x", "not a URL"),
        ("postgresql://u:secret/w@h/x", "%2F"),
        ("postgresql://u:secret@h:0/x", "port"),
        ("postgresql://u:secret@h,/x", "host"),
        ("postgresql://h/x?port=secret", "port"),
        ("postgresql://h/x?statement_timeout=secret", "statement_timeout: not supported"),
        ("postgresql://h/x?requirepeer=secret", "requirepeer: not supported"),
        ("postgresql://h/x?channel_binding=require", "channel_binding"),
        ("postgresql://h/x?gssencmode=require", "gssencmode"),
        ("postgresql://h/x?sslmode=secret", "sslmode"),
        ("postgresql://h/x?sslrootcert=/secret.pem", "sslrootcert"),
        ("postgresql://h/x?sslmode=require&sslrootcert=system", "sslrootcert"),
        ("postgresql://h/x?target_session_attrs=standby", "target_session_attrs"),
        ("postgresql://h/x?connect_timeout=secret", "connect_timeout"),
        ("postgresql://h/x?load_balance_hosts=secret", "load_balance_hosts"),
        ("postgresql://h/x?sslmode", "sslmode"),
    ],
)
def test_what_nobody_would_carry_out_is_refused_by_name_and_without_its_value(url: str, said: str) -> None:
    with pytest.raises(BadPostgresUrl) as refused:
        parse(url)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_options_are_read_as_the_server_reads_them() -> None:
    assert server_options(r"-c search_path=a,b --work_mem=1MB -cx.y=a\ b") == {
        "search_path": "a,b",
        "work_mem": "1MB",
        "x.y": "a b",
    }
    with pytest.raises(BadPostgresUrl, match="options"):
        server_options("-d 3")
    with pytest.raises(BadPostgresUrl, match="ALTER ROLE"):
        parse("postgresql://h/x?options=-c%20a=b", "transaction")


async def _by_engine(url: str) -> tuple[Any, ...]:
    database = Database(url)
    async with database.session() as session:
        row = (await session.execute(text(ASK))).one()
    await database.close()
    return tuple(row)


async def _by_pool(url: str) -> tuple[Any, ...]:
    pool = Connections(url)
    await pool.start()
    async with pool.acquire() as connection:
        row = await connection.fetchrow(ASK)
    await pool.close()
    return tuple(row)


async def _by_lane(url: str) -> tuple[Any, ...]:
    async def run(connection: Any, items: list[int]) -> list[Any]:
        return [tuple(await connection.fetchrow(ASK)) for _ in items]

    lane: GroupCommitter[int, Any] = GroupCommitter("test", url, run, run, timeout_s=5, retry_s=None)
    lane.start()
    answer = await lane.submit(1)
    await lane.stop()
    return tuple(answer)


async def _by_queue(url: str) -> tuple[Any, ...]:
    async with Queue(url, [], timeout_s=5)._connected() as connection:
        row = await connection.fetchrow(ASK)
        assert row is not None
        return tuple(row)


WAYS = [_by_engine, _by_pool, _by_lane, _by_queue]


@pytest.fixture
async def role(database_url: str) -> AsyncIterator[str]:
    """A role whose password has every character special in URLs."""
    name = f"strange_{secrets.token_hex(4)}"
    connection = await asyncpg.connect(asyncpg_dsn(servers.owner(database_url)))
    await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    await connection.execute(f'GRANT CONNECT ON DATABASE "{make_url(database_url).database}" TO {name}')
    yield name
    await connection.execute(f"DROP OWNED BY {name}")
    await connection.execute(f"DROP ROLE {name}")
    await connection.close()


@asynccontextmanager
async def socket_to(url: str, folder: Path) -> AsyncIterator[None]:
    """Returns the folder of the server's Unix socket."""
    server = urlsplit(url)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(server.hostname, server.port)
        await asyncio.gather(copy(reader, back), copy(there, writer))

    async with await asyncio.start_unix_server(forward, folder / ".s.PGSQL.5432"):
        yield


@pytest.mark.parametrize("ask", WAYS)
async def test_every_part_connects_by_the_same_parameters(
    ask: Callable[[str], Any], database_url: str, role: str, tmp_path: Path
) -> None:
    server = urlsplit(database_url)
    secret, dead = quote(PASSWORD, safe=""), free_port()
    more = "options=-c%20search_path%3Da,b&application_name=mine&keepalives_idle=30&sslmode=prefer"
    expected = (role, "a,b", "mine")
    several = f"127.0.0.1:{dead},127.0.0.1:{server.port}"
    url = f"postgresql://{role}:{secret}@{several}{server.path}?{more}&target_session_attrs=read-write"
    assert await ask(url) == expected
    async with socket_to(database_url, tmp_path):
        assert await ask(f"postgresql://{server.path}?host={tmp_path}&user={role}&password={secret}&{more}") == expected
    with pytest.raises(Exception, match=r"rejected SSL upgrade|cannot be reached|does not answer"):
        await ask(f"postgresql://{role}:{secret}@127.0.0.1:{server.port}{server.path}?sslmode=require")


async def test_socket_options_and_the_timeout_are_set(database_url: str) -> None:
    options = {"keepalives_idle": "33", "keepalives_count": "4", "connect_timeout": "1"}
    url = parse(make_url(database_url).update_query_dict(options).render_as_string(hide_password=False))
    assert url.connect_timeout_s == 2
    connection = await connect(url, "test", timeout_s=5)
    raw = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
    assert {raw.getsockopt(level, option): value for level, option, value in url.socket_options} == {33: 33, 4: 4}
    await connection.close()


def test_nothing_else_in_the_product_connects() -> None:
    own = re.compile(r"asyncpg\.connect\(|(?<!def )create_async_engine\(|create_engine\(")
    folders = ("api", "billing", "core", "metering", "migrations")
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if own.search(path.read_text())
    }
    assert found == {"core/postgres/connection.py", "core/postgres/database.py"}
