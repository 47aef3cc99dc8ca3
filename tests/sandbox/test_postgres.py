"""A real Postgres in a folder: it keeps its data, survives a pulled plug, and leaves nothing behind."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import psutil
import pytest

from sandbox import account, postgres
from sandbox.daemon import ServerUnavailable
from sandbox.postgres import Postgres
from tests import servers

Make = Callable[..., Postgres]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")


async def ask(url: str, question: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


def leave_orphan(home: Path) -> psutil.Process:
    """A server whose parent was killed before it could stop it."""
    parent = (
        "import os, sys, signal; from pathlib import Path; from sandbox.postgres import Postgres;"
        "server = Postgres(Path(sys.argv[1]), settings={'fsync': 'off'}); server.start();"
        "print(server.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", parent, home], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    orphan = psutil.Process(int(done.stdout))
    assert orphan.is_running()
    return orphan


@pytest.mark.slow
async def test_it_answers_at_its_url_with_its_settings(private_postgres: Make) -> None:
    server = private_postgres(max_connections="17")

    assert await ask(server.url, "SELECT current_setting('max_connections')") == "17"
    assert await ask(server.url, "SELECT current_database() || current_user") == "nakanaka"
    assert await ask(server.url, "SHOW server_encoding") == "UTF8"
    assert await ask(server.url, "SELECT upper('é')") == "É"
    assert await ask(server.url, "SHOW unix_socket_directories") == ""


@pytest.mark.slow
async def test_only_the_password_opens_it(private_postgres: Make) -> None:
    server = private_postgres()

    secret = server.home / "password"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(server.url.replace(secret.read_text(), "wrong"))


@pytest.mark.slow
async def test_a_restart_keeps_data_and_url(private_postgres: Make) -> None:
    server = private_postgres()
    before = server.url
    await ask(before, "CREATE TABLE kept AS SELECT 42 AS answer")

    started = time.monotonic()
    assert server.restart() == before
    assert time.monotonic() - started < 10

    assert await ask(server.url, "SELECT answer FROM kept") == 42


@pytest.mark.slow
async def test_a_pulled_plug_loses_no_commit(private_postgres: Make) -> None:
    server = private_postgres(fsync="on", synchronous_commit="on", full_page_writes="on")
    await ask(server.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    family = psutil.Process(server.pid).children()

    server.kill()

    assert family
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in family)
    server.start()
    assert await ask(server.url, "SELECT answer FROM kept") == 42


@pytest.mark.slow
async def test_what_a_killed_parent_left_running_is_replaced(private_home: Callable[[], Path]) -> None:
    home = private_home()
    orphan = leave_orphan(home)

    with Postgres(home, settings={"fsync": "off"}) as server:
        assert await ask(server.url, "SELECT 1") == 1
        assert server.pid != orphan.pid
    assert not orphan.is_running()


@pytest.mark.slow
def test_an_orphan_can_be_stopped_without_starting(private_home: Callable[[], Path]) -> None:
    home = private_home()
    orphan = leave_orphan(home)

    Postgres(home).stop()

    assert not orphan.is_running()


@pytest.mark.slow
def test_two_cannot_hold_one_home(private_postgres: Make) -> None:
    server = private_postgres()

    with pytest.raises(ServerUnavailable, match=f"in use by process {os.getpid()}"):
        Postgres(server.home).start()

    assert psutil.pid_exists(server.pid)


@pytest.mark.slow
def test_a_taken_port_is_named(private_home: Callable[[], Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServerUnavailable, match=f"port {port} "):
            Postgres(private_home(), port=port, settings={"fsync": "off"}).start()


@pytest.mark.slow
def test_a_server_that_dies_says_its_last_words(private_home: Callable[[], Path]) -> None:
    home = private_home()
    with pytest.raises(ServerUnavailable, match="max_connections"):
        Postgres(home, settings={"fsync": "off", "max_connections": "many"}).start()

    with Postgres(home, settings={"fsync": "off"}) as server:  # and the folder is free again
        assert server.pid


@pytest.mark.slow
def test_an_initialisation_cut_short_is_done_again(private_home: Callable[[], Path]) -> None:
    home = private_home()
    (home / "data.new").mkdir(parents=True)
    (home / "data.new" / "PG_VERSION").write_text("18")

    with Postgres(home, settings={"fsync": "off"}) as server:
        assert server.url


def test_a_missing_wheel_names_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(ServerUnavailable, match="DATABASE_URL"):
        Postgres(tmp_path).start()


@pytest.mark.slow
@as_root
def test_root_gives_away_the_data_and_no_more(private_postgres: Make) -> None:
    server = private_postgres()

    assert psutil.Process(server.pid).uids().effective != 0
    assert (server.home / "data").stat().st_uid != 0
    assert server.home.stat().st_uid == 0
    assert (server.home / "password").stat().st_uid == 0


@pytest.mark.slow
@as_root
def test_under_a_closed_folder_it_gets_one_capability_and_no_mode_changes(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    with Postgres(closed / "home", settings={"fsync": "off"}) as server:
        status = Path(f"/proc/{server.pid}/status").read_text().splitlines()
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff"))

    assert effective.bit_count() == 1
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
def test_an_account_without_any_capability_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    closed = tmp_path / "closed" / "data"
    closed.parent.mkdir(mode=0o700)
    closed.mkdir()
    monkeypatch.setattr(account, "CAPABILITIES", (None,))

    with pytest.raises(ServerUnavailable, match="cannot reach"):
        account.choose(postgres.binaries(), closed)


async def test_each_worker_has_a_database_of_its_own(
    postgres_url: str, shared_servers: servers.Servers, worker: str
) -> None:
    assert await ask(postgres_url, "SELECT current_database()") == f"naka_{worker}"
    assert postgres_url != shared_servers.postgres


def test_a_database_can_be_a_copy(shared_servers: servers.Servers, worker: str) -> None:
    first = servers.create_database(shared_servers.postgres, f"template_{worker}")
    try:
        copy = servers.create_database(shared_servers.postgres, f"copy_{worker}", template=f"template_{worker}")
        assert copy != first
    finally:
        servers.drop_database(shared_servers.postgres, f"copy_{worker}")
        servers.drop_database(shared_servers.postgres, f"template_{worker}")
