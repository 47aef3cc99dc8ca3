"""A real Valkey in a folder: it keeps its data, survives a pulled plug, can be frozen, and leaves nothing behind."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis

from sandbox.daemon import ServerUnavailable
from sandbox.valkey import Valkey
from tests import servers

Make = Callable[..., Valkey]


def ask(url: str, *command: str) -> object:
    with redis.Redis.from_url(url, socket_timeout=1, decode_responses=True) as client:
        return client.execute_command(*command)


def leave_orphan(home: Path) -> psutil.Process:
    """A server whose parent was killed before it could stop it."""
    parent = (
        "import os, sys, signal; from pathlib import Path; from sandbox.valkey import Valkey;"
        "server = Valkey(Path(sys.argv[1])); server.start();"
        "print(server.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", parent, home], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    orphan = psutil.Process(int(done.stdout))
    assert orphan.is_running()
    return orphan


def test_it_never_evicts_and_logs_every_write(private_valkey: Make) -> None:
    server = private_valkey()

    assert ask(server.url, "CONFIG", "GET", "maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert ask(server.url, "CONFIG", "GET", "appendonly") == {"appendonly": "yes"}
    assert ask(server.url, "CONFIG", "GET", "bind") == {"bind": "127.0.0.1"}


def test_only_the_password_opens_it_and_no_process_list_shows_it(private_valkey: Make) -> None:
    server = private_valkey()
    secret = (server.home / "password").read_text()

    assert stat.S_IMODE((server.home / "valkey.conf").stat().st_mode) == 0o600
    assert secret not in " ".join(psutil.Process(server.pid).cmdline())
    with pytest.raises(redis.AuthenticationError):
        ask(server.url.replace(secret, "wrong"), "PING")


def test_a_restart_keeps_data_and_url(private_valkey: Make) -> None:
    server = private_valkey()
    before = server.url
    ask(before, "SET", "answer", "42")

    assert server.restart() == before

    assert ask(server.url, "GET", "answer") == "42"


def test_without_persistence_a_restart_forgets(private_valkey: Make) -> None:
    server = private_valkey(appendonly="no")
    ask(server.url, "SET", "answer", "42")

    server.restart()

    assert ask(server.url, "GET", "answer") is None


def test_a_pulled_plug_keeps_what_was_synced(private_valkey: Make) -> None:
    server = private_valkey(appendfsync="always")
    ask(server.url, "SET", "answer", "42")
    run = ask(server.url, "INFO", "server")

    server.kill()
    with pytest.raises(redis.ConnectionError):
        ask(server.url, "PING")
    server.start()

    assert ask(server.url, "GET", "answer") == "42"
    assert isinstance(run, dict)
    again = ask(server.url, "INFO", "server")
    assert isinstance(again, dict)
    assert again["run_id"] != run["run_id"]


def test_a_frozen_one_times_out_and_goes_on(private_valkey: Make) -> None:
    server = private_valkey()

    server.pause()
    with pytest.raises(redis.TimeoutError):
        ask(server.url, "PING")
    server.resume()

    assert ask(server.url, "PING")


def test_a_frozen_one_still_stops(private_valkey: Make) -> None:
    server = private_valkey()
    pid = server.pid

    server.pause()
    server.stop()

    assert not psutil.pid_exists(pid)


def test_it_can_be_a_cluster_of_one(private_valkey: Make) -> None:
    server = private_valkey(cluster_enabled="yes")

    ask(server.url, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")

    assert isinstance(ask(server.url, "CLUSTER", "INFO"), dict | str)


@pytest.mark.slow
def test_what_a_killed_parent_left_running_is_replaced(private_home: Callable[[], Path]) -> None:
    home = private_home()
    orphan = leave_orphan(home)

    with Valkey(home) as server:
        assert ask(server.url, "PING")
        assert server.pid != orphan.pid
    assert not orphan.is_running()


def test_two_cannot_hold_one_home(private_valkey: Make) -> None:
    server = private_valkey()

    with pytest.raises(ServerUnavailable, match=f"in use by process {os.getpid()}"):
        Valkey(server.home).start()

    assert ask(server.url, "PING")


def test_a_taken_port_is_named(private_home: Callable[[], Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServerUnavailable, match=f"port {port} "):
            Valkey(private_home(), port=port).start()


def test_a_server_that_dies_says_its_last_words(private_home: Callable[[], Path]) -> None:
    with pytest.raises(ServerUnavailable, match="did not come up"):
        Valkey(private_home(), settings={"maxmemory": "much"}).start()


def test_a_missing_wheel_names_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(ServerUnavailable, match="REDIS_URL"):
        Valkey(tmp_path).start()


def test_each_worker_has_a_database_of_its_own(redis_url: str, shared_servers: servers.Servers, worker: str) -> None:
    number = int(worker.removeprefix("gw")) if worker.startswith("gw") else 0
    assert redis_url == servers.at_path(shared_servers.redis, str(number))
    ask(redis_url, "SET", "whose", worker)
    assert ask(servers.at_path(shared_servers.redis, str(number + 32)), "GET", "whose") is None
